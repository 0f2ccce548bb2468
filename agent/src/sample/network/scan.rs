//! Looking at processes: what each holds, in terms of links that exist at that moment.

use super::{
    model::{Holding, Scan, VmKey},
    programs::Programs,
    thread::{Worker, now_ns},
};
use crate::{
    account::network::InterfaceKind,
    host::{
        NetNs, ProcError,
        link::LinkChange,
        passthrough,
        tap::{HeldTap, HeldTaps},
    },
    units::Tgid,
};

/// How often a scan is done again at once when a link it saw changed meanwhile.
const TRIES: u32 = 3;
/// When it is done again after that.
const LATER_NS: u64 = 100_000_000;
/// How long scans may take before orders are heard again: attaching to an interface waits out two grace periods of the
/// kernel, and a thousand VMs that are found at once must not keep a sample, or another VM's last figures, from coming.
const TURN_NS: u64 = 100_000_000;

impl<P: Programs> Worker<P> {
    pub(super) fn scan_due(&mut self) {
        let begun = now_ns();
        let (vms, sweep) = self.model.due(begun);
        self.execute();
        for vm in vms {
            // A sweep is one piece: what it costs decides when the next may be.
            if !sweep && now_ns().saturating_sub(begun) > TURN_NS {
                self.model.look(vm, begun);
                continue;
            }
            self.scan(vm);
            self.execute();
        }
        if sweep {
            let now = now_ns();
            self.model.swept(now.saturating_sub(begun), now);
        }
    }

    /// One process. A link is believed only if nothing was announced about it between the look at the file and the
    /// answer: it could be the successor of what the file stands for.
    fn scan(&mut self, vm: VmKey) {
        for _ in 0..TRIES {
            self.hear();
            self.tally.scans += 1;
            let begun = now_ns();
            let files = self.asked.get(&vm);
            let known = |fd: i32| {
                let (link, ups, tap) = files?.get(&fd)?;
                (self.model.open_since(link.netns, link.ifindex) == Some((*link, *ups)))
                    .then(|| HeldTap { ifindex: Some(link.ifindex), ..tap.clone() })
            };
            let held = match self.procfs.held_taps(Tgid(vm.tgid), &known) {
                Ok(held) if self.is_same(vm) => held,
                Ok(_) | Err(ProcError::Gone { .. }) => HeldTaps::default(),
                Err(error) => return self.fail("the files of a VM cannot be looked at", &error),
            };
            let mut scan = self.resolve(vm, &held);
            let touched = self.hear();
            if self.stood(&mut scan, begun)
                && !scan.held.iter().any(|one| touched.contains(&(one.netns, one.link.ifindex)))
            {
                self.model.held(vm, &scan, now_ns());
                self.remember(vm, &held, &scan);
                let spaces = scan.held.iter().map(|one| one.netns).chain(scan.home);
                for netns in spaces {
                    self.leaving.remove(&netns);
                }
                return;
            }
        }
        self.model.look(vm, now_ns().saturating_add(LATER_NS));
    }

    /// Where openings are followed, it must be the same one from before the look at the files to the answer; false where it
    /// was not, or that is not known yet.
    fn stood(&mut self, scan: &mut Scan, begun_ns: u64) -> bool {
        let mut all = true;
        let taps = |one: &&mut Holding| one.link.kind == Some(InterfaceKind::Tap);
        for one in scan.held.iter_mut().filter(taps).filter(|_| self.programs.follows()) {
            let Some(changes) = one.link.carrier_changes else { continue };
            if self.model.stood(one.netns, one.link.ifindex, changes, begun_ns) {
                one.generation = Some(changes);
            } else {
                // Known from here on.
                self.model.change(one.netns, &LinkChange::New(one.link.clone()), now_ns());
                all = false;
            }
        }
        all
    }

    fn resolve(&mut self, vm: VmKey, held: &HeldTaps) -> Scan {
        let home = NetNs::of_process(&self.root, vm.tgid).ok().filter(|home| self.watch(home));
        let line = self.procfs.cmdline(Tgid(vm.tgid)).unwrap_or_default();
        let args: Vec<Vec<u8>> = line.raw.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
        let passed = passthrough::find(&self.root, &args, &held.devices);
        let passed = passed.into_iter().map(|one| (one.name, one.kind, one.reason)).collect();
        let mut scan = Scan { home: home.map(|home| home.id()), held: Vec::new(), passed };
        for tap in &held.taps {
            if !self.watch(&tap.netns) {
                scan.passed.push(unheard(tap));
                continue;
            }
            match self.spaces.link(tap.netns.id(), &tap.name, tap.ifindex) {
                // The index of a macvtap in another namespace may be another one's here.
                Ok(Some(link)) if link.kind == Some(tap.kind) && may_be(tap, &link.name) => {
                    let (netns, persistent) = (tap.netns.id(), tap.persistent);
                    scan.held.push(Holding { netns, link, persistent, generation: None });
                }
                Ok(_) if tap.kind == InterfaceKind::Macvtap => scan.passed.push(elsewhere(tap)),
                // It went after its file was asked.
                Ok(_) => {}
                Err(error) => self.fail("a link cannot be asked for", &error),
            }
        }
        self.tally.errors += u64::from(held.unseen);
        scan
    }

    /// So that the same files need not be asked again.
    fn remember(&mut self, vm: VmKey, held: &HeldTaps, scan: &Scan) {
        let is = |tap: &HeldTap, one: &Holding| one.netns == tap.netns.id() && one.link.name == tap.name;
        let find = |tap: &HeldTap| {
            // A macvtap is opened without anybody telling.
            if !is_tap(tap) {
                return None;
            }
            let one = scan.held.iter().find(|one| is(tap, one))?;
            let (link, ups) = self.model.open_since(one.netns, one.link.ifindex)?;
            Some((link, ups, tap.clone()))
        };
        let files = held.files.iter().filter_map(|(fd, tap)| Some((*fd, find(tap)?))).collect();
        self.asked.insert(vm, files);
    }

    fn watch(&mut self, netns: &NetNs) -> bool {
        match self.spaces.watch(netns) {
            Ok(true) => {
                self.programs.sweep(netns);
                self.adopt(netns);
                self.list(netns.id());
            }
            Ok(false) => {}
            Err(error) => {
                self.fail("a network namespace cannot be listened in", &error);
                return false;
            }
        }
        true
    }

    /// Whether the process is still the VM's.
    pub(super) fn is_same(&self, vm: VmKey) -> bool {
        self.procfs.stat(Tgid(vm.tgid)).is_ok_and(|stat| stat.start_ticks == vm.start_ticks)
    }
}

fn is_tap(tap: &HeldTap) -> bool {
    tap.kind == InterfaceKind::Tap
}

/// Whether a link found by a macvtap's index can be that macvtap; a tap's file tells where it is.
fn may_be(tap: &HeldTap, name: &str) -> bool {
    is_tap(tap) || tap.name.is_empty() || tap.name == name
}

/// An interface in a namespace that cannot be entered.
fn unheard(tap: &HeldTap) -> (String, InterfaceKind, String) {
    let reason = "in a network namespace that the agent cannot listen in (it takes CAP_SYS_ADMIN)".to_owned();
    (tap.name.clone(), tap.kind, reason)
}

/// A macvtap that is not where its VMM is. (If it went after its file was asked, the next look says so.)
fn elsewhere(tap: &HeldTap) -> (String, InterfaceKind, String) {
    let reason = "macvtap in another network namespace than its VMM's: the kernel does not tell in which (tap_ioctl)";
    (tap.name.clone(), tap.kind, reason.to_owned())
}
