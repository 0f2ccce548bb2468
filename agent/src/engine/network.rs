//! VMs' interfaces: a thread of its own counts them (`sample/network`); the engine tells it of births and ends, asks it
//! to read at each sample, and takes over what it read. A VM's end waits for the thread's last word on it, not for long.

mod kept;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use nix::sys::eventfd::EventFd;

use super::Engine;
use crate::{
    account::class::{ClassTable, Classes, Numbers},
    bpf::network::{Hook, NetworkPrograms},
    cause,
    clock::Instant2,
    sample::network::{ClassChange, Network, Told, VmKey},
    vm::{Line, Vm},
};

/// How long a sample waits for the thread's reading; later it takes the one before.
const SAMPLE: Duration = Duration::from_millis(20);
/// How old figures may become before they are absent, and how many samples.
const STALLED_NS: u64 = 5_000_000_000;
const STALLED_SAMPLES: u64 = 3;
/// How long the end of a VM waits for its last figures: it lets go of its files in milliseconds, but a thousand that end
/// at once are taken off their interfaces one after the other.
const FINAL_NS: u64 = 10_000_000_000;
/// How long an end that nobody saw waits.
const UNSEEN: Duration = Duration::from_millis(20);

/// The thread, and what the numbers of the classes mean.
pub struct Counting {
    network: Network<NetworkPrograms>,
    numbers: Arc<Mutex<Numbers>>,
    /// Of VMs that an earlier agent knew: what was told of them before any of what is counted now.
    bases: BTreeMap<VmKey, Vec<Told>>,
    /// Stop lines of VMs: once they are durable, the thread need not keep their last figures.
    over: Vec<(VmKey, Line)>,
    /// How programs are attached.
    pub hook: Hook,
}

impl Counting {
    /// Loads the programs and starts the thread. With `pins`, a directory, they outlive the agent, and what an earlier one
    /// left there is gone on with.
    ///
    /// # Errors
    /// One sentence: what the kernel lacks or refuses, or the classes that do not fit.
    pub fn start(root: &Path, classes: &Classes, pins: Option<&Path>) -> Result<Self, String> {
        if let Some(pins) = pins {
            match kept::start(root, classes, pins) {
                Ok(counting) => return Ok(counting),
                // What cannot be gone on with is let go: living VMs' totals are the links' own all the same.
                Err(why) => kept::let_go(pins, &why),
            }
        }
        let mut programs = NetworkPrograms::load().map_err(|error| cause::chain(&error))?;
        let first = change(&Numbers::default(), classes, &mut programs);
        let (numbers, first) = first.map_err(|error| cause::chain(error.as_ref()))?;
        let hook = programs.hook();
        let network = Network::start(root.to_owned(), programs, first.names).map_err(|error| cause::chain(&error))?;
        Ok(Self { network, numbers: Arc::new(Mutex::new(numbers)), bases: BTreeMap::new(), over: Vec::new(), hook })
    }

    /// Lets the thread wake the loop when it has a VM's last figures.
    pub(super) fn waking(self, waker: &Arc<EventFd>) -> Self {
        self.network.waking(Arc::clone(waker));
        self
    }

    /// Other classes from now on. What does not fit, or is refused by the kernel, leaves the old ones in force.
    fn set_classes(&self, classes: Classes) {
        let numbers = Arc::clone(&self.numbers);
        self.network.set_classes(move |programs| {
            let mut now = numbers.lock().unwrap_or_else(PoisonError::into_inner);
            match change(&now, &classes, programs) {
                Ok((next, change)) => {
                    *now = next;
                    tracing::info!(classes = classes.prefixes.len(), "the classes of traffic were changed");
                    Some(change)
                }
                Err(error) => {
                    tracing::error!(error, "the classes of traffic were not changed, the old ones stay in force");
                    None
                }
            }
        });
    }
}

/// Which VM, to the thread.
fn key(vm: &Vm, tick_ns: u64) -> VmKey {
    VmKey { tgid: vm.fixed.tgid, start_ticks: vm.start_tick(tick_ns) }
}

fn change(
    now: &Numbers,
    classes: &Classes,
    programs: &mut NetworkPrograms,
) -> Result<(Numbers, ClassChange), Box<dyn std::error::Error>> {
    let mut next = now.after(classes)?;
    programs.set_classes(ClassTable::new(classes, &next)?.as_ref())?;
    let change = ClassChange { names: next.names(), freed: next.gone().collect() };
    // The thread reads and wipes them before it does anything else.
    for number in &change.freed {
        next.release(*number);
    }
    Ok((next, change))
}

impl Engine {
    /// A VM is one of ours.
    pub(super) fn network_born(&self, tgid: u32) {
        if let (Some(counting), Some(vm)) = (&self.counting, self.registry.of_tgid(tgid)) {
            counting.network.born(key(vm, self.tick_ns()));
        }
    }

    /// A VM had interfaces of these names while an earlier agent ran.
    pub(super) fn network_former(&self, vm: VmKey, names: BTreeSet<Arc<str>>) {
        if let (Some(counting), false) = (&self.counting, names.is_empty()) {
            counting.network.former(vm, names);
        }
    }

    /// Asks for a reading: before a sample's other work, so that it is there when that is done.
    pub(super) fn ask_network(&mut self, now: Instant2) {
        let Some(counting) = &self.counting else { return };
        self.network_is_late = counting.network.samples() < self.network_asked;
        if !self.network_is_late {
            self.network_asked = counting.network.samples() + 1;
            self.network_asked_ns = now.boot_ns;
            counting.network.sample();
        }
    }

    /// Takes over the newest reading of every VM.
    pub(super) fn sample_network(&mut self, at: Instant2) {
        let Some(counting) = &self.counting else { return };
        // One that is late is taken at the next sample. While the thread has much to do (a thousand VMs' interfaces to
        // attach to) nobody waits a second time for it.
        let at_most = if self.network_is_late { Duration::ZERO } else { SAMPLE };
        let _ = counting.network.wait_sample(self.network_asked, at_most);
        if counting.network.samples() >= self.network_asked {
            self.host.network_read_ns = self.network_asked_ns;
        }
        let stalled = self.stalled(counting, at);
        let usages = counting.network.usages();
        let tick_ns = self.tick_ns();
        let mut fell = 0;
        for vm in self.registry.live_mut() {
            if let Some(usage) = usages.get(&key(vm, tick_ns)) {
                fell += u64::from(vm.take_network(usage));
            }
            vm.changed |= vm.network_is_old != stalled.is_some();
            vm.network_is_old = stalled.is_some();
        }
        let tally = counting.network.tally();
        self.host.losses.insert("link_event", tally.overflows);
        self.host.losses.insert("network_writer", tally.shared_packets);
        self.network_missed += u64::from(stalled.is_some());
        self.host.sample_errors.insert("network", tally.errors + self.network_missed);
        self.host.network = stalled.is_none().then_some(tally);
        if self.host.network_stalled.is_some() != stalled.is_some() {
            match &stalled {
                Some(why) => tracing::error!(why, "traffic of interfaces is absent until it can be read again"),
                None => tracing::warn!("traffic of interfaces is read again"),
            }
        }
        self.host.network_stalled = stalled;
        self.count_error("regression", fell);
    }

    /// Why what the thread published is no longer true.
    fn stalled(&self, counting: &Counting, at: Instant2) -> Option<String> {
        if counting.network.is_gone() {
            return Some("the thread that counts interfaces has failed; start the agent again".to_owned());
        }
        let waits_ns = at.boot_ns.saturating_sub(self.network_asked_ns);
        let most_ns = STALLED_NS.max(self.settings.sample_ns.saturating_mul(STALLED_SAMPLES));
        let late = counting.network.samples() < self.network_asked && waits_ns > most_ns;
        late.then(|| format!("the thread that counts interfaces hangs: a reading takes {} s", waits_ns / 1_000_000_000))
    }

    /// Takes a VM's last figures. False while the thread has not told them yet.
    pub(super) fn settle_network(&mut self, tgid: u32, at: Instant2) -> bool {
        let Some(key) = self.network_end(tgid, at) else { return true };
        if self.take_final(tgid, key, Duration::ZERO) {
            return true;
        }
        let since = self.registry.of_tgid(tgid).and_then(|vm| vm.network_ends_ns).unwrap_or(0);
        let gone = self.counting.as_ref().is_some_and(|counting| counting.network.is_gone());
        let given_up = gone || at.boot_ns.saturating_sub(since) > FINAL_NS;
        if given_up {
            self.count_loss("final_network", 1);
        }
        given_up
    }

    /// The last figures of a VM whose end nobody saw, if they come soon.
    pub(super) fn settle_network_unseen(&mut self, tgid: u32, at: Instant2) {
        let Some(key) = self.network_end(tgid, at) else { return };
        // One that never had an interface is not waited for: a thousand that end unseen come one after the other.
        let had = self.registry.of_tgid(tgid).is_some_and(|vm| vm.network.last().is_some());
        if !self.take_final(tgid, key, if had { UNSEEN } else { Duration::ZERO }) {
            self.count_loss("final_network", u64::from(had));
        }
    }

    /// Tells the thread that a VM ends, once.
    fn network_end(&mut self, tgid: u32, at: Instant2) -> Option<VmKey> {
        self.counting.as_ref()?;
        let key = key(self.registry.of_tgid(tgid)?, self.tick_ns());
        let vm = self.registry.of_tgid_mut(tgid)?;
        if vm.network_ends_ns.is_none() {
            vm.network_ends_ns = Some(at.boot_ns);
            self.counting.as_ref()?.network.ended(key);
        }
        Some(key)
    }

    fn take_final(&mut self, tgid: u32, key: VmKey, at_most: Duration) -> bool {
        let Some(counting) = &self.counting else { return true };
        let Some(usage) = counting.network.final_usage(key, at_most) else { return false };
        let fell = self.registry.of_tgid_mut(tgid).is_some_and(|vm| vm.take_network(&usage));
        self.count_error("regression", u64::from(fell));
        true
    }

    /// All VMs but the `still` ones are looked at again.
    pub(super) fn follow_network(&self, still: HashSet<u32>) {
        if let Some(counting) = &self.counting {
            counting.network.reconcile(still);
        }
    }

    /// Other classes.
    pub(super) fn set_classes(&self, classes: Classes) {
        if let Some(counting) = &self.counting {
            counting.set_classes(classes);
        }
    }
}
