//! The model without a kernel: single laws here, random histories in `property`.

mod before;
mod kept;
mod property;
mod refused;
mod workers;

use std::collections::HashSet;

use super::*;
use crate::{
    host::{
        link::{LinkChange, LinkStats},
        writer::Writer,
    },
    sample::network::programs::{Account, Flow, NOBODY},
};

const SECOND: u64 = 1_000_000_000;
const NS: NetNsId = NetNsId { dev: 4, inode: 1 };
const OTHER_NS: NetNsId = NetNsId { dev: 4, inode: 2 };

fn vm(tgid: u32) -> VmKey {
    VmKey { tgid, start_ticks: 100 + u64::from(tgid) }
}

fn link(ifindex: u32, name: &str) -> Link {
    let kind = Some(InterfaceKind::Tap);
    let stats = Some(LinkStats::default());
    Link { ifindex, name: name.to_owned(), kind, carrier: true, carrier_ups: Some(1), carrier_changes: None, stats }
}

fn holding(netns: NetNsId, link: Link) -> Holding {
    Holding { netns, link, persistent: Some(false), generation: None }
}

fn scan(held: &[Holding]) -> Scan {
    Scan { home: Some(NS), held: held.to_vec(), passed: Vec::new() }
}

fn strangers(writer: u32) -> Writer {
    Writer::Process(writer)
}

/// An account with packets of 10 bytes in class 0.
fn account(serial: u64, writer: u32, transmit: u64, receive: u64) -> Account {
    let none = [Flow { bytes: 0, packets: 0 }; CLASSES];
    let mut account = Account { serial, writer, transmit: none, receive: none };
    account.transmit[0] = Flow { bytes: 10 * transmit, packets: transmit };
    account.receive[0] = Flow { bytes: 10 * receive, packets: receive };
    account
}

/// Transmitted and received packets of an interface, of all classes or one.
fn packets(model: &mut Model, vm: VmKey, name: &str, class: Option<&str>) -> (u64, u64) {
    let usage = model.usage(vm).unwrap_or_default();
    let interfaces = usage.interfaces.iter().filter(|one| &*one.name == name);
    let classes = interfaces.flat_map(|one| one.classes.iter());
    let classes = classes.filter(|(name, _)| class.is_none_or(|class| &***name == class));
    classes.fold((0, 0), |sum, (_, one)| (sum.0 + one.transmit_packets, sum.1 + one.receive_packets))
}

/// Carries out what needs no kernel; what else was asked for.
fn attach_all(model: &mut Model) -> Vec<Command> {
    let mut rest = Vec::new();
    for command in model.commands() {
        match command {
            Command::Attach { link, .. } => model.attached(link, Ok(())),
            Command::Changed(_) => {}
            other => rest.push(other),
        }
    }
    rest
}

/// A VM with a tap that is counted.
fn one_vm(tgid: u32, ifindex: u32, name: &str) -> (Model, LinkKey) {
    let mut model = Model::default();
    model.born(vm(tgid), 100 * SECOND);
    model.held(vm(tgid), &scan(&[holding(NS, link(ifindex, name))]), 100 * SECOND);
    assert_eq!(attach_all(&mut model), []);
    let key = model.current(NS, ifindex).expect("known");
    model.accounts(key, &[account(1, 0, 0, 0)], &strangers, 100 * SECOND);
    (model, key)
}

#[test]
fn the_same_name_and_index_in_two_namespaces_are_two_interfaces() {
    let (mut model, one) = one_vm(1, 7, "tap0");
    model.born(vm(2), 100 * SECOND);
    model.held(vm(2), &scan(&[holding(OTHER_NS, link(7, "tap0"))]), 100 * SECOND);
    attach_all(&mut model);
    let two = model.current(OTHER_NS, 7).expect("known");
    assert_ne!(one, two);
    model.accounts(one, &[account(1, 1, 3, 4)], &strangers, 101 * SECOND);
    model.accounts(two, &[account(1, 2, 5, 6)], &strangers, 101 * SECOND);
    assert_eq!(packets(&mut model, vm(1), "tap0", None), (3, 4));
    assert_eq!(packets(&mut model, vm(2), "tap0", None), (5, 6));
}

#[test]
fn who_writes_decides_before_any_event_does() {
    let (mut model, key) = one_vm(1, 7, "tap0");
    model.born(vm(2), 100 * SECOND);
    // 2 has it by now and nobody told.
    model.accounts(key, &[account(1, 1, 3, 4), account(2, 2, 5, 6)], &strangers, 101 * SECOND);
    assert_eq!(packets(&mut model, vm(1), "tap0", None), (3, 4));
    assert_eq!(packets(&mut model, vm(2), "tap0", None), (5, 6));
    // Told later, nothing changes and no further account is begun.
    model.held(vm(1), &scan(&[]), 102 * SECOND);
    model.held(vm(2), &scan(&[holding(NS, link(7, "tap0"))]), 102 * SECOND);
    assert_eq!(attach_all(&mut model), [Command::Turn(key)]);
    assert!(!model.turn(key, 102 * SECOND));
    let held: Vec<bool> =
        [1, 2].into_iter().map(|one| model.usage(vm(one)).expect("known").interfaces[0].held).collect();
    assert_eq!(held, [false, true]);
}

#[test]
fn a_holder_that_only_receives_is_known_by_events() {
    let (mut model, key) = one_vm(1, 7, "tap0");
    model.born(vm(2), 100 * SECOND);
    model.accounts(key, &[account(1, 1, 3, 4)], &strangers, 101 * SECOND);
    model.held(vm(1), &scan(&[]), 102 * SECOND);
    model.held(vm(2), &scan(&[holding(NS, link(7, "tap0"))]), 102 * SECOND);
    assert!(model.turn(key, 102 * SECOND), "the account is the first VM's");
    model.accounts(key, &[account(1, 1, 3, 4), account(2, 0, 0, 9)], &strangers, 103 * SECOND);
    assert_eq!(packets(&mut model, vm(2), "tap0", None), (0, 9));
    assert_eq!(packets(&mut model, vm(1), "tap0", None), (3, 4));
}

#[test]
fn in_a_burst_of_handovers_a_new_holder_may_write_before_an_account_is_ended_for_it() {
    let (mut model, key) = one_vm(1, 7, "tap0");
    model.born(vm(2), 100 * SECOND);
    model.accounts(key, &[account(1, 1, 3, 4)], &strangers, 101 * SECOND);
    model.held(vm(1), &scan(&[]), 102 * SECOND);
    assert!(model.turn(key, 102 * SECOND));
    model.accounts(key, &[account(1, 1, 3, 4), account(2, 0, 0, 1)], &strangers, 102 * SECOND);
    model.held(vm(2), &scan(&[holding(NS, link(7, "tap0"))]), 102 * SECOND);
    assert!(!model.turn(key, 102 * SECOND));
    model.due(102 * SECOND);
    model.commands();
    assert_eq!(model.next_due_ns(), Some(102 * SECOND + 100_000_000));
    model.due(103 * SECOND);
    assert_eq!(model.commands(), [Command::Turn(key)]);
    assert!(model.turn(key, 103 * SECOND), "it did not write");
}

#[test]
fn what_passes_while_nobody_holds_it_is_nobody_s_and_counted() {
    let (mut model, key) = one_vm(1, 7, "tap0");
    model.accounts(key, &[account(1, 1, 3, 4)], &strangers, 101 * SECOND);
    model.held(vm(1), &scan(&[]), 102 * SECOND);
    assert!(model.turn(key, 102 * SECOND));
    model.accounts(key, &[account(1, 1, 3, 4), account(2, 0, 0, 2)], &strangers, 103 * SECOND);
    assert_eq!(model.unowned().traffic.receive_packets, 2);
    assert_eq!(packets(&mut model, vm(1), "tap0", None), (3, 4));
}

#[test]
fn a_writer_that_turns_out_to_be_a_vm_gets_what_it_wrote_and_one_that_does_not_is_nobody() {
    let (mut model, key) = one_vm(1, 7, "tap0");
    model.accounts(key, &[account(1, 9, 3, 0), account(2, 8, 5, 0)], &strangers, 110 * SECOND);
    assert_eq!((model.undecided().transmit_packets, model.unowned().traffic.transmit_packets), (8, 0));
    model.born(vm(9), 111 * SECOND);
    assert_eq!(packets(&mut model, vm(9), "tap0", None), (3, 0));
    model.expire(171 * SECOND);
    assert_eq!((model.undecided().transmit_packets, model.unowned().traffic.transmit_packets), (0, 5));
}

#[test]
fn a_process_id_used_again_does_not_inherit() {
    let (mut model, key) = one_vm(1, 7, "tap0");
    model.accounts(key, &[account(1, 9, 3, 0)], &strangers, 110 * SECOND);
    let younger = VmKey { tgid: 9, start_ticks: 11_100 };
    model.born(younger, 112 * SECOND);
    model.accounts(key, &[account(1, 9, 4, 0)], &strangers, 113 * SECOND);
    assert_eq!(packets(&mut model, younger, "tap0", None), (0, 0));
    assert_eq!(model.undecided().transmit_packets, 4);
}

#[test]
fn an_account_that_waited_for_a_writer_may_be_older_than_it() {
    let (mut model, key) = one_vm(1, 7, "tap0");
    let younger = VmKey { tgid: 9, start_ticks: 11_100 };
    model.accounts(key, &[account(1, 9, 3, 0)], &strangers, 112 * SECOND);
    model.born(younger, 113 * SECOND);
    assert_eq!(packets(&mut model, younger, "tap0", None), (3, 0));
}

#[test]
fn a_vhost_worker_writes_for_its_vm() {
    let (mut model, key) = one_vm(1, 7, "tap0");
    let whose = |writer: u32| if writer == 50 { Writer::Process(1) } else { Writer::Gone };
    model.accounts(key, &[account(1, 50, 3, 1)], &whose, 101 * SECOND);
    // Known from then on, also when it can be asked no more.
    model.accounts(key, &[account(1, 50, 3, 1), account(2, 50, 2, 0)], &|_| Writer::Gone, 102 * SECOND);
    assert_eq!(packets(&mut model, vm(1), "tap0", None), (5, 1));
}

#[test]
fn a_deleted_interface_keeps_its_totals_and_its_successor_is_another() {
    let (mut model, key) = one_vm(1, 7, "tap0");
    model.accounts(key, &[account(1, 1, 3, 4)], &strangers, 101 * SECOND);
    let gone = LinkChange::Gone { link: link(7, "tap0"), moved: false };
    assert!(model.change(NS, &gone, 102 * SECOND));
    assert_eq!(model.commands(), [Command::Detach(key)]);
    model.detached(key, &[account(1, 1, 5, 4)], &strangers, 102 * SECOND);
    assert_eq!(packets(&mut model, vm(1), "tap0", None), (5, 4));
    assert!(!model.usage(vm(1)).expect("known").interfaces[0].held);
    // The index again, for somebody else.
    model.born(vm(2), 103 * SECOND);
    model.held(vm(2), &scan(&[holding(NS, link(7, "tap0"))]), 103 * SECOND);
    attach_all(&mut model);
    let again = model.current(NS, 7).expect("known");
    assert_ne!(again, key);
    model.accounts(again, &[account(1, 2, 1, 1)], &strangers, 104 * SECOND);
    assert_eq!(packets(&mut model, vm(1), "tap0", None), (5, 4));
    assert_eq!(packets(&mut model, vm(2), "tap0", None), (1, 1));
}

#[test]
fn a_program_that_landed_on_a_successor_gives_its_receives_to_nobody() {
    let mut model = Model::default();
    model.born(vm(1), 100 * SECOND);
    model.held(vm(1), &scan(&[holding(NS, link(7, "tap0"))]), 100 * SECOND);
    let [Command::Attach { link: key, .. }] = model.commands()[..] else { panic!("one interface to attach") };
    // Between the order and the answer it went, and came again for others.
    model.change(NS, &LinkChange::Gone { link: link(7, "tap0"), moved: false }, 100 * SECOND);
    model.change(NS, &LinkChange::New(link(7, "tap0")), 100 * SECOND);
    model.attached(key, Ok(()));
    model.detached(key, &[account(1, 0, 0, 7)], &strangers, 101 * SECOND);
    assert_eq!(packets(&mut model, vm(1), "tap0", None), (0, 0));
    assert_eq!(model.unowned().traffic.receive_packets, 7);
}

#[test]
fn a_renamed_interface_goes_on_under_the_name_its_vm_took_it_by() {
    let (mut model, key) = one_vm(1, 7, "tap0");
    model.change(NS, &LinkChange::New(link(7, "new0")), 101 * SECOND);
    model.accounts(key, &[account(1, 1, 3, 4)], &strangers, 102 * SECOND);
    assert_eq!(packets(&mut model, vm(1), "tap0", None), (3, 4));
    assert_eq!(packets(&mut model, vm(1), "new0", None), (0, 0));
    assert!(model.due(101 * SECOND).0.contains(&vm(1)), "its holder is looked at");
}

#[test]
fn what_cannot_be_counted_is_told_with_its_reason_and_never_as_zero() {
    let mut model = Model::default();
    model.born(vm(1), 100 * SECOND);
    let passed = vec![("0000:3b:02.1".to_owned(), InterfaceKind::Vfio, "vfio: passed".to_owned())];
    model.held(vm(1), &Scan { passed, ..scan(&[holding(NS, link(7, "tap0"))]) }, 100 * SECOND);
    let [Command::Attach { link: key, .. }] = model.commands()[..] else { panic!("one interface to attach") };
    model.attached(key, Err("no room".to_owned()));
    let usage = model.usage(vm(1)).expect("known");
    for interface in &usage.interfaces {
        assert!(interface.unobserved.is_some() && interface.classes.is_empty() && interface.held);
        assert_eq!((interface.receive_dropped, interface.transmit_dropped), (None, None));
    }
    assert_eq!(usage.interfaces.len(), 2);
    // Tried again at the reconcile, and then it is counted.
    model.reconcile(&HashSet::new(), 200 * SECOND);
    assert_eq!(attach_all(&mut model), []);
    assert_eq!(model.usage(vm(1)).expect("known").interfaces[1].unobserved, None);
}

#[test]
fn taps_of_strangers_cause_no_scan_beyond_a_rare_sweep() {
    let (mut model, _) = one_vm(1, 7, "tap0");
    model.due(200 * SECOND);
    let mut scans = 0;
    for step in 0..10_000_u32 {
        let now = 200 * SECOND + u64::from(step) * 1_000_000;
        model.change(NS, &LinkChange::New(link(1_000 + step, "other")), now);
        let (vms, sweep) = model.due(now);
        scans += vms.len();
        if sweep {
            // 10 ms each: a hundred times that goes by before the next.
            model.swept(10_000_000, now);
        }
    }
    assert!((5..=12).contains(&scans), "{scans} scans in ten seconds");
    assert_eq!(model.commands(), []);
}

#[test]
fn an_account_is_given_back_once_it_is_quiet_and_its_last_word_counts() {
    let (mut model, key) = one_vm(1, 7, "tap0");
    let former = account(1, 1, 3, 0);
    for second in 101..104 {
        model.accounts(key, &[former.clone(), account(2, 8, 1, 0)], &strangers, second * SECOND);
    }
    assert_eq!(model.commands(), [Command::Retire(key, 1)]);
    model.retired(key, &[account(1, 1, 4, 0)], &strangers, 104 * SECOND);
    assert_eq!(packets(&mut model, vm(1), "tap0", None), (4, 0));
}
