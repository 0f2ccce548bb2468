//! Interfaces that change hands, names, indices, or cease.

use super::*;
use crate::host::link::{LinkChange, LinkOutcome, LinkSocket};

#[test]
fn each_of_a_hundred_owners_of_one_tap_is_told_what_it_wrote() {
    let (rig, network) = (quiet(), network());
    // A namespace without a VM is let go after a second, and a busy host takes that between two of the owners.
    let resident = Holder::of(rig.tap("kept0", &[]));
    network.born(key(&resident));
    counted(&network, 1);
    rig.persistent("hot0");
    rig.ip(&["link", "set", "hot0", "up"]);
    let mut vms = Vec::new();
    for turn in 0..100_u64 {
        let mut holder = Holder::of(rig.tap("hot0", &[]));
        let vm = key(&holder);
        // Every third is told of before it writes, every third after, and every third when it is gone.
        let early = turn == 0 || turn % 3 == 0;
        if early {
            network.born(vm);
        }
        if turn == 0 {
            counted(&network, 2);
        }
        transmit(&rig, "hot0", &mut holder, 1 + turn % 4);
        if turn % 3 == 1 {
            network.born(vm);
        }
        drop(holder);
        if turn % 3 == 2 {
            network.born(vm);
        }
        // A program has four accounts: a reading now and then is what the agent promises them.
        if turn % 3 == 0 {
            sample(&network);
        }
        if turn % 2 == 0 {
            network.ended(vm);
        }
        vms.push((vm, 1 + turn % 4));
    }
    for (vm, _) in &vms {
        network.ended(*vm);
    }
    let told: Vec<u64> =
        vms.iter().map(|(vm, _)| sum(&network.final_usage(*vm, PATIENCE).expect("its last figures"))[1]).collect();
    let wrote: Vec<u64> = vms.iter().map(|(_, frames)| *frames).collect();
    assert_eq!(told, wrote);
    sample(&network);
    let tally = network.tally();
    assert_eq!((tally.unowned.traffic.transmit_packets, tally.undecided.transmit_packets), (0, 0));
    assert_eq!(tally.shared_packets, 0);
    assert_eq!(told.iter().sum::<u64>(), stats(&rig, "hot0").rx_packets);
}

#[test]
fn a_tap_deleted_under_traffic_keeps_its_totals_and_the_next_with_its_index_is_another() {
    let (rig, other, network) = (quiet(), quiet(), network());
    rig.persistent("del0");
    let mut holder = Holder::of(rig.tap("del0", &[]));
    rig.ip(&["link", "set", "del0", "up"]);
    let vm = key(&holder);
    network.born(vm);
    counted(&network, 1);
    let events = LinkSocket::open(rig.netns()).expect("subscribe");
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Its writer ends with the tap.
            let mut writes = true;
            while writes && !stop.load(std::sync::atomic::Ordering::Relaxed) {
                writes = holder.send(&frame(100));
            }
        });
        until("traffic flows", || stats(&rig, "del0").rx_packets > 1_000);
        rig.ip(&["link", "del", "del0"]);
        // What is written after it fails, until the writer is told to stop.
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let mut last = None;
    while let Ok(LinkOutcome::Changes(changes)) = events.recv() {
        for change in changes {
            if let LinkChange::Gone { link, .. } = change {
                last = Some((link.ifindex, link.stats.expect("counted")));
            }
        }
    }
    let (ifindex, last) = last.expect("its end was announced");
    until("its end is known", || {
        sample(&network);
        network.tally().interfaces == 0
    });
    let one = interface(&network, vm, "del0").expect("it keeps its totals");
    assert!(!one.held);
    let told = sum(&network.usage(vm).expect("known"));
    assert_eq!(told[..2], of_link(last)[..2]);
    // The same index again, through a tap that comes from another namespace.
    let mut second = Holder::of(other.tap("new0", &[]));
    other.move_link("new0", rig.netns());
    let again = LinkRequests::open(rig.netns()).expect("open").named("new0").expect("ask").expect("came");
    assert_eq!(again.ifindex, ifindex);
    rig.ip(&["link", "set", "new0", "up"]);
    network.born(key(&second));
    counted(&network, 1);
    transmit(&rig, "new0", &mut second, 4);
    sample(&network);
    assert_eq!(sum(&network.usage(vm).expect("known")), told);
    assert_eq!(sum(&network.usage(key(&second)).expect("known"))[1], 4);
}

#[test]
fn a_tap_renamed_under_its_vm_goes_on_where_it_was() {
    let (rig, network) = (quiet(), network());
    let mut holder = Holder::of(rig.tap("old0", &[]));
    rig.ip(&["link", "set", "old0", "up"]);
    let vm = key(&holder);
    network.born(vm);
    counted(&network, 1);
    transmit(&rig, "old0", &mut holder, 2);
    rig.ip(&["link", "set", "old0", "down"]);
    rig.ip(&["link", "set", "old0", "name", "new0"]);
    rig.ip(&["link", "set", "new0", "up"]);
    transmit(&rig, "new0", &mut holder, 3);
    network.reconcile(HashSet::new());
    sample(&network);
    let usage = network.usage(vm).expect("known");
    assert_eq!(usage.interfaces.len(), 1);
    assert_eq!((&*usage.interfaces[0].name, usage.interfaces[0].held), ("old0", true));
    assert_eq!(sum(&usage), of_link(stats(&rig, "new0")));
}

#[test]
fn a_tap_moved_to_another_namespace_under_its_vm_is_told_once() {
    let (rig, other, network) = (quiet(), quiet(), network());
    let mut holder = Holder::of(rig.tap("move0", &[]));
    rig.ip(&["link", "set", "move0", "up"]);
    transmit(&rig, "move0", &mut holder, 4);
    let vm = key(&holder);
    network.born(vm);
    counted(&network, 1);
    transmit(&rig, "move0", &mut holder, 2);
    rig.move_link("move0", other.netns());
    other.ip(&["link", "set", "move0", "up"]);
    transmit(&other, "move0", &mut holder, 3);
    until("it is found where it went", || {
        sample(&network);
        interface(&network, vm, "move0").is_some_and(|one| one.held) && network.tally().interfaces == 1
    });
    transmit(&other, "move0", &mut holder, 5);
    sample(&network);
    assert_eq!(sum(&network.usage(vm).expect("known")), of_link(stats(&other, "move0")));
}

#[test]
fn a_tap_that_a_running_vm_opens_later_is_found_without_being_told() {
    let (rig, network) = (quiet(), network());
    let mut first = Holder::of(rig.tap("one0", &[]));
    let second = Holder::of(rig.tap("two0", &[]));
    rig.persistent("plug0");
    rig.ip(&["link", "set", "one0", "up"]);
    network.born(key(&first));
    network.born(key(&second));
    counted(&network, 2);
    transmit(&rig, "one0", &mut first, 1);
    // This process is the VM that plugs one in: its files change while nobody tells.
    let own = ProcFs::new(Path::new("/")).stat(Tgid(std::process::id())).expect("stat").start_ticks;
    let own = VmKey { tgid: std::process::id(), start_ticks: own };
    let anchor = rig.tap("anchor0", &[]);
    network.born(own);
    until("its first is known", || {
        sample(&network);
        interface(&network, own, "anchor0").is_some_and(|one| one.held)
    });
    let plugged = rig.tap("plug0", &[]);
    until("the plugged one is known", || {
        sample(&network);
        interface(&network, own, "plug0").is_some_and(|one| one.held)
    });
    drop((anchor, plugged));
}

#[test]
fn a_tap_whose_writers_nobody_knows_is_its_holder_s() {
    /// Packets wait for a poll, in whose context nobody knows who wrote them.
    const NAPI: u16 = 0x10;
    let (rig, network) = (quiet(), network());
    rig.persistent_with("napi0", &[NAPI]);
    rig.ip(&["link", "set", "napi0", "up"]);
    let mut told = Vec::new();
    for frames in [3, 4] {
        let mut holder = Holder::of(rig.tap("napi0", &[NAPI]));
        let vm = key(&holder);
        network.born(vm);
        until("it is known who holds it", || {
            sample(&network);
            interface(&network, vm, "napi0").is_some_and(|one| one.held) && network.tally().interfaces == 1
        });
        transmit(&rig, "napi0", &mut holder, frames);
        until("its packets are counted", || {
            sample(&network);
            network.usage(vm).is_some_and(|usage| sum(&usage)[1] == frames)
        });
        drop(holder);
        network.ended(vm);
        told.push(sum(&network.final_usage(vm, PATIENCE).expect("its last figures"))[1]);
    }
    assert_eq!(told, [3, 4]);
    sample(&network);
    let tally = network.tally();
    assert_eq!((tally.unowned.traffic.transmit_packets, tally.undecided.transmit_packets), (0, 0));
}
