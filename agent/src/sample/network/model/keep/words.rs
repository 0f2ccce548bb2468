//! Each part of the model in the book's own words, and back.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    super::{
        LinkKey, VmKey,
        before::{Before, dropped},
        port::{Owner, Port, Seen, State},
        tally::{Classes, Label, Tally, Told, Vm},
    },
    Left,
};
use crate::{
    account::network::Traffic,
    sample::network::{
        book::{KeptAccount, KeptLabel, KeptOwner, KeptPort, KeptTally, KeptVm},
        programs::{Account, CLASSES, Flow},
    },
};

pub(super) fn keep_label((name, kind): &Label) -> KeptLabel {
    (name.as_ref().to_owned(), *kind)
}

pub(super) fn take_label((name, kind): KeptLabel) -> Label {
    (Arc::from(name), kind)
}

pub(super) fn keep_classes(classes: &Classes) -> Vec<(String, Traffic)> {
    classes.iter().map(|(name, traffic)| (name.as_ref().to_owned(), *traffic)).collect()
}

pub(super) fn take_classes(classes: Vec<(String, Traffic)>) -> Classes {
    classes.into_iter().map(|(name, traffic)| (Arc::from(name), traffic)).collect()
}

pub(super) fn keep_port(key: LinkKey, port: &Port, number: u32) -> KeptPort {
    let Before { owner, start, dropped: at_first, told } = port.before;
    let drops = port.stats.map(|stats| dropped(stats, port.reversed())).or(at_first);
    KeptPort {
        number,
        netns: key.netns,
        ifindex: key.ifindex,
        label: keep_label(&port.label),
        holders: port.holders.clone(),
        follows: port.follows,
        counted: port.counted,
        before: (owner, start, told, drops),
        accounts: port.accounts.values().map(keep_account).collect(),
        settled: port.settled.clone(),
    }
}

pub(super) fn take_port(kept: KeptPort, state: Left, now_ns: u64, off_ns: u64) -> Port {
    let (owner, start, told, dropped) = kept.before;
    let (name, kind) = take_label(kept.label);
    let mut port = Port::new(&name, kind, VmKey { tgid: 0, start_ticks: 0 }, Before { owner, start, dropped, told });
    port.state = if state == Left::Attached { State::Attached } else { State::Closing };
    // Whoever has it goes on counting it anew, and what was told of it must not be told again.
    port.moved = state == Left::Lost;
    port.idle_since_ns = kept.holders.is_empty().then_some(now_ns);
    port.holders = kept.holders;
    port.accounts = kept.accounts.into_iter().map(|account| (account.serial, take_account(account))).collect();
    port.opened = false;
    port.follows = kept.follows;
    port.landed = true;
    port.counted = kept.counted;
    port.settled = kept.settled;
    port.left_ns = Some(off_ns);
    port
}

fn keep_account(seen: &Seen) -> KeptAccount {
    let flows = |flows: &[Flow; CLASSES]| {
        let moved = flows.iter().enumerate().filter(|(_, flow)| **flow != Flow::default());
        moved.map(|(class, flow)| (class, flow.bytes, flow.packets)).collect()
    };
    KeptAccount {
        serial: seen.last.serial,
        writer: seen.last.writer,
        owner: match seen.owner {
            Owner::Vm(vm) => KeptOwner::Vm(vm),
            Owner::Nobody => KeptOwner::Nobody,
            Owner::Writer(writer) => KeptOwner::Writer(writer),
        },
        by_writer: seen.by_writer,
        first_seen_ns: seen.first_seen_ns,
        flows: [flows(&seen.last.transmit), flows(&seen.last.receive)],
    }
}

fn take_account(kept: KeptAccount) -> Seen {
    let [transmit, receive] = kept.flows.map(|told| {
        let mut flows = [Flow::default(); CLASSES];
        for (class, bytes, packets) in told {
            flows.get_mut(class).into_iter().for_each(|flow| *flow = Flow { bytes, packets });
        }
        flows
    });
    Seen {
        last: Account { serial: kept.serial, writer: kept.writer, transmit, receive },
        owner: match kept.owner {
            KeptOwner::Vm(vm) => Owner::Vm(vm),
            KeptOwner::Nobody => Owner::Nobody,
            KeptOwner::Writer(writer) => Owner::Writer(writer),
        },
        by_writer: kept.by_writer,
        doubted: false,
        first_seen_ns: kept.first_seen_ns,
        quiet: 0,
    }
}

pub(super) fn keep_vm(key: VmKey, vm: &Vm, places: &BTreeMap<LinkKey, usize>) -> KeptVm {
    let tally = |port: Option<usize>, label: &Label, tally: &Tally| KeptTally {
        port,
        label: keep_label(label),
        classes: keep_classes(&tally.classes),
        dropped: (tally.receive_dropped, tally.transmit_dropped),
    };
    let held = vm.tallies.iter().map(|(link, (label, one))| tally(places.get(link).copied(), label, one));
    let told = |(interface, class, traffic): &Told| (interface.to_string(), class.to_string(), *traffic);
    KeptVm {
        vm: key,
        base: vm.base.iter().map(told).collect(),
        workers: vm.workers.iter().copied().collect(),
        moved: vm.moved.iter().map(|(label, traffic)| (keep_label(label), *traffic)).collect(),
        tallies: held.chain(vm.past.iter().map(|(label, one)| tally(None, label, one))).collect(),
    }
}

pub(super) fn take_vm(kept: KeptVm, ports: &[(LinkKey, u32)], now_ns: u64) -> Vm {
    let told = |(interface, class, traffic): (String, String, Traffic)| (interface.into(), class.into(), traffic);
    let mut vm = Vm {
        base: kept.base.into_iter().map(told).collect(),
        workers: kept.workers.into_iter().collect(),
        moved: kept.moved.into_iter().map(|(label, traffic)| (take_label(label), traffic)).collect(),
        left_ns: Some(now_ns),
        ..Vm::default()
    };
    for one in kept.tallies {
        let label = take_label(one.label);
        let tally = Tally {
            held: false,
            unobserved: None,
            classes: take_classes(one.classes),
            receive_dropped: one.dropped.0,
            transmit_dropped: one.dropped.1,
        };
        match one.port.and_then(|place| ports.get(place)) {
            Some((link, _)) => drop(vm.tallies.insert(*link, (label, tally))),
            None => vm.add_past(label, &tally),
        }
    }
    vm
}
