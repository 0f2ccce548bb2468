//! The programs at work, on real taps and macvtaps in namespaces of their own, against the kernel's own statistics.

mod accounts;
mod classes;
mod exact;
mod frames;
mod holder;
mod kept;
mod lab;
mod links;
mod offload;
mod older;
mod quick;
mod split;

use super::*;
use lab::{Lab, Tap};

fn add(one: Flow, other: Flow) -> Flow {
    Flow { bytes: one.bytes + other.bytes, packets: one.packets + other.packets }
}

fn sum(flows: &[Flow; CLASSES]) -> Flow {
    flows.iter().copied().fold(Flow::default(), add)
}

/// Transmit and receive over all accounts and classes.
fn totals(accounts: &[Account]) -> (Flow, Flow) {
    accounts.iter().fold((Flow::default(), Flow::default()), |(transmit, receive), account| {
        (add(transmit, sum(&account.transmit)), add(receive, sum(&account.receive)))
    })
}

/// One class's transmit and receive over all accounts.
fn class(accounts: &[Account], class: usize) -> (Flow, Flow) {
    accounts.iter().fold((Flow::default(), Flow::default()), |(transmit, receive), account| {
        (add(transmit, account.transmit[class]), add(receive, account.receive[class]))
    })
}

/// A tap that is counted.
fn counted_tap() -> (Lab, Tap, NetworkPrograms, PortId) {
    let lab = Lab::new();
    let tap = lab.tap("tap0", 0);
    let mut programs = programs();
    let port = programs.attach(&lab.netns, tap.ifindex, false).expect("attach");
    (lab, tap, programs, port)
}

/// The ways in which usual packets are counted: whether who holds the tap is followed, and whether by programs of their own.
const WAYS: [(bool, bool); 4] = [(false, true), (true, true), (false, false), (true, false)];

/// Counts at a tap in one of [`WAYS`].
fn attach_as(programs: &mut NetworkPrograms, lab: &Lab, ifindex: u32, (follows, quick): (bool, bool)) -> PortId {
    programs.quick &= quick;
    let link = crate::host::link::LinkRequests::open(&lab.netns).expect("open").indexed(ifindex).expect("ask");
    let generation = link.expect("there").carrier_changes.expect("counted");
    let held = follows.then_some(Held { generation, tgid: std::process::id() });
    programs.attach_held(&lab.netns, ifindex, false, held).expect("attach")
}

fn programs() -> NetworkPrograms {
    NetworkPrograms::load().expect("network programs")
}
