//! What an engine is made of, and how it is put together; nothing is read yet.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{Arc, mpsc},
};

use nix::sys::eventfd::EventFd;
use tokio::sync::watch;

use super::{
    Counting, Engine, Remote, Settings, clocks::Clocks, disk, ending, identify, inventory, outstanding, silent, storage,
};
use crate::{
    account::{Histogram, Host, Snapshot},
    bpf::Kernel,
    clock::{self, Instant2},
    history::Store,
    host::{HostFacts, ProcFs, UeventSocket},
    ledger::{Ticket, WriterHandle},
    lifecycle::Bus,
    metrics,
    storage::Pool,
    vm::{Registry, Tally},
    workload::Asker,
};

/// What an engine is made of.
pub struct Parts {
    /// `/`, or a test's own tree.
    pub root: PathBuf,
    /// Facts about the host.
    pub facts: HostFacts,
    /// This boot.
    pub boot_id: String,
    /// What can change later.
    pub settings: Settings,
    /// The kernel programs, where they run.
    pub kernel: Option<Kernel>,
    /// Counts VMs' interfaces, where that works.
    pub counting: Option<Counting>,
    /// KVM's uevents, where the socket opens.
    pub uevents: Option<UeventSocket>,
    /// Where images and snapshots are kept.
    pub pools: Vec<Pool>,
    /// The ledger's writer.
    pub ledger: WriterHandle,
    /// Woken by commits.
    pub waker: Arc<EventFd>,
    /// The operator's inventory.
    pub inventory: Option<PathBuf>,
    /// Where statements that wait are kept; unset where no ledger is kept either.
    pub annotations: Option<PathBuf>,
    /// Where samples are kept.
    pub history: Arc<Store>,
    /// Asks workloads, where that is wanted.
    pub workloads: Option<Asker>,
    /// Where boots and states are counted.
    pub metrics: metrics::Shared,
    /// Tells of durable lines, and what was lost of them.
    pub bus: Bus,
}

/// What can fail to be read; every source is shown from the start, at 0.
pub const SOURCES: [&str; 14] = [
    "annotations",
    "disk",
    "fold",
    "identity",
    "kvm_count",
    "memory",
    "network",
    "proc",
    "refresh",
    "regression",
    "scan",
    "sockets",
    "throttle",
    "walk",
];
/// Where the agent itself can lose something, beside the kernel programs.
pub const OWN_STAGES: [&str; 14] = [
    "final_io",
    "final_network",
    "heartbeat",
    "hook",
    "hook_given_up",
    "last_slice",
    "link_event",
    "metrics",
    "network_writer",
    "past",
    "storage_files",
    "stream_queue",
    "uevent",
    "unread",
];

/// Bounds of `kvmeter_sample_duration_seconds`.
const SAMPLE_BOUNDS: [f64; 8] = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 1.0];

impl Engine {
    /// Puts the parts together; nothing is read yet.
    #[must_use]
    pub fn new(parts: Parts, now: Instant2) -> (Self, Remote, watch::Receiver<Arc<Snapshot>>) {
        let (sender, control) = mpsc::channel();
        let zero = |names: &[&'static str]| names.iter().map(|name| (*name, 0)).collect();
        let host = Host {
            losses: zero(&OWN_STAGES),
            sample_errors: zero(&SOURCES),
            programs: parts.kernel.as_ref().map(|kernel| kernel.statuses().to_vec()).unwrap_or_default(),
            sample_durations: Histogram::new(&SAMPLE_BOUNDS),
            ..Host::default()
        };
        let counting = parts.counting.map(|counting| counting.waking(&parts.waker));
        let empty = Snapshot { taken: now, sampled_ns: 0, serial: 0, vms: Vec::new(), host: Arc::new(host.clone()) };
        let (snapshots, receiver) = watch::channel(Arc::new(empty));
        let remote = Remote { sender, waker: Arc::clone(&parts.waker) };
        let mut why = ending::Why::default();
        why.annotations.keeping.place = parts.annotations.map(|path| (path, remote.clone()));
        let root = parts.root;
        let attached_ns = parts.kernel.as_ref().and_then(Kernel::found).map_or(now.boot_ns, |found| found.since_ns);
        let storage = storage::Storage::start(&parts.boot_id, parts.pools, &parts.waker, now);
        let engine = Self {
            procfs: ProcFs::new(&root),
            facts: parts.facts,
            boot_id: parts.boot_id,
            settings: parts.settings,
            kernel: parts.kernel,
            uevents: parts.uevents,
            ledger: parts.ledger,
            registry: Registry::default(),
            slots: HashMap::new(),
            leaving: BTreeMap::new(),
            ran: BTreeMap::new(),
            ended: HashMap::new(),
            pending: HashMap::new(),
            tally: Tally::default(),
            uevents_missing: 0,
            host,
            out: Vec::new(),
            newest_ticket: Ticket::default(),
            snapshots,
            serial: 0,
            control,
            identifier: identify::Identifier::start(root.clone()),
            next_identity_ns: 0,
            inventories: inventory::Inventories::first(parts.inventory),
            storage,
            lister: disk::Lister::start(root.clone()),
            waker: parts.waker,
            next_tick_ns: 0,
            sampled_ns: 0,
            next_scan_ns: 0,
            still: super::still::Still::default(),
            next_heartbeat_s: 0,
            last_slot_s: 0,
            samples: 0,
            clocks: Clocks::new(now, clock::asleep().ok()),
            peek_ns: 0,
            unwalked: 0,
            count_was_off: (None, None),
            entries: silent::Entries::default(),
            faults: silent::Entries::default(),
            listing: outstanding::Outstanding::default(),
            pss: None,
            pss_open: outstanding::Outstanding::default(),
            counting,
            network_asked: 0,
            network_is_late: false,
            network_asked_ns: now.boot_ns,
            network_missed: 0,
            history: parts.history,
            workloads: parts.workloads,
            attached_ns,
            why,
            metrics: parts.metrics,
            states_told: Default::default(),
            bus: parts.bus,
            root,
        };
        (engine, remote, receiver)
    }
}
