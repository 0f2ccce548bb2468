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

fn programs() -> NetworkPrograms {
    NetworkPrograms::load().expect("network programs")
}
