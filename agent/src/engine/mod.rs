//! The loop that owns kernel programs, registry and time: wakes, reads, decides, publishes.
//!
//! One thread. It waits on the kernel's wake-ups, KVM uevents, the ledger's commits and its own clock; it never waits
//! for a disk or a reader. Lifecycle facts go to the ledger, numbers into the snapshot that all views share.

mod annotate;
mod discover;
mod disk;
mod ending;
mod groups;
mod identify;
mod inventory;
mod life;
mod memory;
mod network;
mod owner;
mod publish;
mod resume;
mod run;
mod scan;
mod shape;
mod silent;
mod sockets;
mod starting;
mod throttle;
mod tick;

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{Arc, mpsc},
};

use nix::sys::eventfd::EventFd;
use tokio::sync::watch;

use crate::{
    account::{Histogram, Host, Snapshot, class::Classes, snapshot::Detail},
    bpf::Kernel,
    clock::Instant2,
    host::{HostFacts, ProcFs, PssReader, UeventSocket},
    ledger::{Draft, WriterHandle},
    vm::{Registry, Tally},
};

pub use annotate::{Annotate, Refused};
pub use inventory::read as read_inventory;
pub use network::Counting;
pub use run::EngineError;

/// What can change while it runs; all lengths in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Between two samples.
    pub sample_ns: u64,
    /// Between two points of a VM's history.
    pub history_ns: u64,
    /// Between two heartbeats in the ledger.
    pub heartbeat_ns: u64,
    /// How long a stopped VM is shown.
    pub linger_ns: u64,
    /// Between two full scans of `/proc`.
    pub scan_ns: u64,
    /// Between two readings of a VM's proportional memory; 0 = none.
    pub pss_ns: u64,
    /// How much of each VM the metrics show.
    pub detail: Detail,
}

/// What the engine is told while it runs.
pub enum Control {
    /// New settings.
    Settings(Settings),
    /// Other classes of traffic.
    Classes(Classes),
    /// Somebody states something of a VM.
    Annotate(Box<Annotate>),
    /// Another inventory, or none.
    Inventory(Option<PathBuf>),
    /// End in order.
    Stop,
}

/// How others reach the engine.
#[derive(Clone)]
pub struct Remote {
    sender: mpsc::Sender<Control>,
    waker: Arc<EventFd>,
}

impl Remote {
    /// Tells the engine something; false when it has ended.
    #[must_use]
    pub fn tell(&self, control: Control) -> bool {
        let told = self.sender.send(control).is_ok();
        told && self.waker.write(1).is_ok()
    }
}

/// A VM object KVM told of that is not known to run yet.
#[derive(Clone, Copy, Debug)]
struct Pending {
    tgid: u32,
    since_ns: u64,
}

/// Everything the loop owns.
pub struct Engine {
    root: PathBuf,
    procfs: ProcFs,
    facts: HostFacts,
    boot_id: String,
    settings: Settings,
    kernel: Option<Kernel>,
    uevents: Option<UeventSocket>,
    ledger: WriterHandle,
    registry: Registry,
    /// Kernel slots by number, to the process they belong to.
    slots: HashMap<u32, u32>,
    /// Processes that ran a guest lately, with the instant: so that their destroyed KVM VMs are not called unrun.
    ran: BTreeMap<u32, u64>,
    /// Processes that were VMs and have their stop line: start tick, and when.
    ended: HashMap<u32, (u64, u64)>,
    pending: HashMap<u32, Pending>,
    tally: Tally,
    /// Uevents known to be missing so far.
    uevents_missing: u64,
    host: Host,
    out: Vec<Draft>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    serial: u64,
    control: mpsc::Receiver<Control>,
    waker: Arc<EventFd>,
    next_tick_ns: u64,
    next_scan_ns: u64,
    next_heartbeat_s: u64,
    /// The newest heartbeat slot told, by this agent or one before, Unix seconds.
    last_slot_s: u64,
    clock_offset_ns: i128,
    /// When to look at the running threads again between two samples; 0 = not.
    peek_ns: u64,
    /// Processes the kernel could not walk to the end so far.
    unwalked: u64,
    /// KVM's count and ours, if they differed at the last scan.
    count_was_off: (Option<u64>, Option<u64>),
    /// Whether guest entries are told here.
    entries: silent::Entries,
    /// Reads files that say who a VM is.
    identifier: Option<identify::Identifier>,
    /// When to look at them again, CLOCK_BOOTTIME nanoseconds.
    next_identity_ns: u64,
    /// The operator's inventory.
    inventories: inventory::Inventories,
    /// Lists disks.
    lister: Option<disk::Lister>,
    /// Whether guests' page faults are told here.
    faults: silent::Entries,
    /// Reads proportional sizes, once one was wanted.
    pss: Option<PssReader>,
    /// Counts VMs' interfaces, where that works.
    counting: Option<Counting>,
    /// Which of its readings is waited for.
    network_asked: u64,
    /// The one asked for at an earlier sample has not come yet.
    network_is_late: bool,
    /// When the kernel programs were attached, CLOCK_BOOTTIME nanoseconds.
    attached_ns: u64,
    /// What starts and ends are judged by, beside readings.
    why: ending::Why,
}

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
    /// The ledger's writer.
    pub ledger: WriterHandle,
    /// Woken by commits.
    pub waker: Arc<EventFd>,
    /// The operator's inventory.
    pub inventory: Option<PathBuf>,
}

/// What can fail to be read; every source is shown from the start, at 0.
pub const SOURCES: [&str; 13] = [
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
pub const OWN_STAGES: [&str; 8] =
    ["final_io", "final_network", "heartbeat", "last_slice", "link_event", "network_writer", "past", "uevent"];

/// Bounds of `kvmeter_sample_duration_seconds`.
const SAMPLE_BOUNDS: [f64; 8] = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 1.0];
/// Bounds of `kvmeter_vm_boot_seconds`.
const BOOT_BOUNDS: [f64; 8] = [0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

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
            boot: Histogram::new(&BOOT_BOUNDS),
            ..Host::default()
        };
        let counting = parts.counting.map(|counting| counting.waking(&parts.waker));
        let empty = Snapshot { taken: now, serial: 0, vms: Vec::new(), host: Arc::new(host.clone()) };
        let (snapshots, receiver) = watch::channel(Arc::new(empty));
        let remote = Remote { sender, waker: Arc::clone(&parts.waker) };
        let engine = Self {
            procfs: ProcFs::new(&parts.root),
            facts: parts.facts,
            boot_id: parts.boot_id,
            settings: parts.settings,
            kernel: parts.kernel,
            uevents: parts.uevents,
            ledger: parts.ledger,
            registry: Registry::default(),
            slots: HashMap::new(),
            ran: BTreeMap::new(),
            ended: HashMap::new(),
            pending: HashMap::new(),
            tally: Tally::default(),
            uevents_missing: 0,
            host,
            out: Vec::new(),
            snapshots,
            serial: 0,
            control,
            identifier: identify::Identifier::start(parts.root.clone()),
            next_identity_ns: 0,
            inventories: inventory::Inventories::first(parts.inventory),
            lister: disk::Lister::start(parts.root.clone()),
            waker: parts.waker,
            next_tick_ns: 0,
            next_scan_ns: 0,
            next_heartbeat_s: 0,
            last_slot_s: 0,
            clock_offset_ns: now.offset_ns(),
            peek_ns: 0,
            unwalked: 0,
            count_was_off: (None, None),
            entries: silent::Entries::default(),
            faults: silent::Entries::default(),
            pss: None,
            counting,
            network_asked: 0,
            network_is_late: false,
            attached_ns: now.boot_ns,
            why: ending::Why::default(),
            root: parts.root,
        };
        (engine, remote, receiver)
    }

    fn count_error(&mut self, source: &'static str, by: u64) {
        if by > 0 {
            *self.host.sample_errors.entry(source).or_default() += by;
        }
    }

    fn count_loss(&mut self, stage: &'static str, by: u64) {
        if by > 0 {
            *self.host.losses.entry(stage).or_default() += by;
        }
    }
}
