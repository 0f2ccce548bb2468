//! Who holds what, by scans of the processes.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use super::{
    Command, Holding, LinkKey, Model, Scan, VmKey,
    accounts::TICK_NS,
    before::Before,
    port::{Owner, Port, State},
};
use crate::{account::network::Traffic, sample::network::programs::Held};

/// How long an interface that nobody holds goes on being counted, so that its next holder is counted from the start.
const IDLE_NS: u64 = 60_000_000_000;
/// Interfaces of one VM.
const MAX_HELD: usize = 256;

impl Model {
    /// What a process holds now.
    pub fn held(&mut self, vm: VmKey, scan: &Scan, now_ns: u64) {
        if !self.vms.contains_key(&vm) {
            return;
        }
        self.unowned.folded += u64::from(scan.held.len() > MAX_HELD);
        let mut keys = BTreeSet::new();
        for holding in scan.held.iter().take(MAX_HELD) {
            self.seen(holding.netns, &holding.link, now_ns);
            keys.extend(self.current(holding.netns, holding.link.ifindex));
        }
        for holding in &scan.held {
            if let Some(key) = self.current(holding.netns, holding.link.ifindex).filter(|key| keys.contains(key)) {
                self.take(vm, key, holding);
            }
        }
        self.set_held(vm, &keys, now_ns);
        for holding in &scan.held {
            if let Some(key) = self.current(holding.netns, holding.link.ifindex).filter(|key| keys.contains(key)) {
                self.tell_holder(vm, key, holding);
            }
        }
        if let Some(state) = self.vms.get_mut(&vm) {
            state.spaces = scan.home.into_iter().chain(keys.iter().map(|key| key.netns)).collect();
            state.set_passed(&scan.passed);
        }
    }

    /// The program is attached, or why it is not.
    pub fn attached(&mut self, link: LinkKey, result: Result<(), String>) {
        let Some(port) = self.ports.get_mut(&link) else { return };
        // It may have gone while the program was being attached.
        if port.state == State::Closing {
            return;
        }
        port.state = if result.is_ok() { State::Attached } else { State::Refused };
        port.expected = port.holder();
        port.landed = result.is_ok();
        self.decided = true;
        if result.is_ok() && port.before.owner.is_none() {
            self.unowned.unknown_before += 1;
        }
        let reason = result.err().map(Arc::from);
        for vm in &port.holders {
            if let Some(vm) = self.vms.get_mut(vm) {
                vm.tally(link, &port.label).unobserved.clone_from(&reason);
            }
        }
    }

    /// At a reconcile: every process but the `still` ones is looked at again, refused interfaces are tried again, idle
    /// ones are let go.
    pub fn reconcile(&mut self, still: &HashSet<u32>, now_ns: u64) {
        let stirred: Vec<VmKey> = self.vms.keys().filter(|vm| !still.contains(&vm.tgid)).copied().collect();
        self.schedule.soon(&stirred, now_ns);
        for (key, port) in &mut self.ports {
            if port.state == State::Refused {
                port.state = State::Wanted;
                self.out.push(port.attach(*key));
            }
        }
        self.let_go(now_ns);
    }

    /// Once a sample: ends the counting of what nobody has held for a minute.
    pub fn let_go(&mut self, now_ns: u64) {
        let idle = |port: &Port| port.idle_since_ns.is_some_and(|since| now_ns.saturating_sub(since) >= IDLE_NS);
        for (key, port) in self.ports.iter_mut().filter(|(_, port)| port.state != State::Closing && idle(port)) {
            port.state = State::Closing;
            self.out.push(Command::Detach(*key));
        }
    }

    /// A VM had interfaces of these names while an earlier agent ran.
    pub fn former(&mut self, vm: VmKey, names: BTreeSet<Arc<str>>, now_ns: u64) {
        for name in names {
            self.former.entry(name).or_default().insert(vm);
        }
        self.former_until_ns = now_ns;
    }

    /// A VM has an interface in its hands.
    fn take(&mut self, vm: VmKey, key: LinkKey, holding: &Holding) {
        let (Some(known), Some(state)) = (self.links.get(&(key.netns, key.ifindex)), self.vms.get_mut(&vm)) else {
            return;
        };
        if let Some(port) = self.ports.get_mut(&key) {
            if !port.holders.contains(&vm) && port.state != State::Closing {
                self.decided = true;
                if port.holders.is_empty() {
                    port.label.0 = Arc::from(known.name.as_str());
                }
                port.holders.push(vm);
                port.idle_since_ns = None;
                // The answer says why to the newcomer, too, which would else be told of zeros.
                if port.state == State::Refused {
                    port.state = State::Wanted;
                    self.out.push(port.attach(key));
                }
                // Carrier on, so it is open: what it counted unheld is nobody's.
                state.tally(key, &port.label).held = true;
                if port.holders.len() == 1 && port.is_attached() {
                    self.want_turn(key);
                }
            }
            return;
        }
        // Its file may have been passed on by a VM that had one of this name, and then its past is that VM's.
        let others = self.former.get(known.name.as_str()).is_some_and(|had| !had.contains(&vm));
        let early = vm.start_ticks.saturating_mul(TICK_NS) <= self.former_until_ns;
        let mut before = if others && early { Before::default() } else { Before::of(known, holding.persistent, vm) };
        let mut port = Port::new(&known.name, known.kind, vm, before);
        if let Some(told) = state.moved.remove(&port.label) {
            // It came from another namespace in this VM's hands: what was told there is not told again, and what was not
            // known to be its past there is not here.
            let on = |start| Before { owner: Some(vm), start, dropped: None, told: Traffic::default() };
            before = told.map_or_else(Before::default, on);
            port.before = before;
        }
        state.tally(key, &port.label).held = true;
        port.follows = holding.generation.map(|generation| Held { generation, tgid: vm.tgid });
        self.out.push(port.attach(key));
        self.ports.insert(key, port);
    }

    /// The programs are told of the first holder whom they do not know of.
    fn tell_holder(&mut self, vm: VmKey, key: LinkKey, holding: &Holding) {
        let Some(port) = self.ports.get_mut(&key).filter(|port| port.holder() == Owner::Vm(vm)) else { return };
        let (Some(told), Some(generation)) = (port.follows, holding.generation) else { return };
        let held = Held { generation, tgid: vm.tgid };
        if told != held {
            port.follows = Some(held);
            self.decided = true;
            self.out.push(Command::Held(key, held));
        }
    }

    /// A VM holds these and nothing else.
    pub(super) fn set_held(&mut self, vm: VmKey, keys: &BTreeSet<LinkKey>, now_ns: u64) {
        let mut turns = Vec::new();
        for (key, port) in &mut self.ports {
            if keys.contains(key) || !port.holders.contains(&vm) {
                continue;
            }
            self.decided = true;
            let first = port.holders.first() == Some(&vm);
            port.holders.retain(|holder| *holder != vm);
            port.released(vm);
            if let Some(state) = self.vms.get_mut(&vm) {
                state.tally(*key, &port.label).held = false;
            }
            // Another that holds it goes on with it.
            self.schedule.soon(&port.holders, now_ns);
            if port.holders.is_empty() {
                port.idle_since_ns = Some(now_ns);
                // Somebody else may have it already.
                self.schedule.sweep(key.netns, now_ns);
            }
            if first && port.is_attached() {
                turns.push(*key);
            }
        }
        turns.into_iter().for_each(|key| self.want_turn(key));
    }
}
