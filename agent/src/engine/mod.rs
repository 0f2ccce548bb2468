//! The loop that owns kernel programs, registry and time: wakes, reads, decides, publishes.
//!
//! One thread. It waits on the kernel's wake-ups, KVM uevents, the ledger's commits and its own clock; it never waits
//! for a disk or a reader. Lifecycle facts go to the ledger, numbers into the snapshot that all views share.

mod annotate;
mod clocks;
mod discover;
mod disk;
mod ending;
mod groups;
mod identify;
mod inventory;
mod keeper;
mod keeping;
mod life;
mod memory;
mod moved;
mod network;
mod outlive;
mod outstanding;
mod owner;
mod parts;
mod pause;
mod publish;
mod remote;
mod resume;
mod run;
mod scan;
mod shape;
mod silent;
mod sockets;
mod starting;
mod still;
mod storage;
mod throttle;
mod tick;
mod workload;

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{Arc, mpsc},
};

use nix::sys::eventfd::EventFd;
use tokio::sync::watch;

use crate::{
    account::{Host, Snapshot, VmState},
    bpf::Kernel,
    history::Store,
    host::{HostFacts, ProcFs, PssReader, UeventSocket},
    ledger::{Draft, Ticket, WriterHandle},
    lifecycle::Bus,
    metrics,
    vm::{Line, Registry, Tally},
    workload::Asker,
};

pub use annotate::{Annotate, Refused};
pub use inventory::read as read_inventory;
pub use network::Counting;
pub use parts::{OWN_STAGES, Parts, SOURCES};
pub use remote::{Control, Remote, Settings};
pub use run::EngineError;

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
    /// Slots of VMs that have ended, with their stop line: they go back once that is durable.
    leaving: BTreeMap<u32, Line>,
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
    /// Of the last line that was handed to the ledger.
    newest_ticket: Ticket,
    snapshots: watch::Sender<Arc<Snapshot>>,
    serial: u64,
    control: mpsc::Receiver<Control>,
    waker: Arc<EventFd>,
    next_tick_ns: u64,
    /// When memory was looked at last.
    sampled_ns: u64,
    next_scan_ns: u64,
    still: still::Still,
    next_heartbeat_s: u64,
    /// The newest heartbeat slot told, by this agent or one before, Unix seconds.
    last_slot_s: u64,
    clocks: clocks::Clocks,
    /// How many there were.
    samples: u64,
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
    /// What is stored.
    storage: storage::Storage,
    /// Lists disks.
    lister: Option<disk::Lister>,
    /// Whether guests' page faults are told here.
    faults: silent::Entries,
    /// What it was asked and has not answered.
    listing: outstanding::Outstanding,
    /// Reads proportional sizes, once one was wanted.
    pss: Option<PssReader>,
    /// What it was asked and has not answered.
    pss_open: outstanding::Outstanding,
    /// Counts VMs' interfaces, where that works.
    counting: Option<Counting>,
    /// Which of its readings is waited for.
    network_asked: u64,
    /// The one asked for at an earlier sample has not come yet.
    network_is_late: bool,
    /// When it was asked for, CLOCK_BOOTTIME nanoseconds.
    network_asked_ns: u64,
    /// Samples that had to do without it.
    network_missed: u64,
    /// Since when the kernel programs count, this agent's or those before, CLOCK_BOOTTIME nanoseconds.
    attached_ns: u64,
    history: Arc<Store>,
    workloads: Option<Asker>,
    /// Where boots and states are counted.
    metrics: metrics::Shared,
    /// How many VMs it was told to be in each state.
    states_told: [usize; VmState::ALL.len()],
    /// Knows what its subscribers lost.
    bus: Bus,
    /// What starts and ends are judged by, beside readings.
    why: ending::Why,
}

impl Engine {
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
