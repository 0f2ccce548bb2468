//! What passed before the program was attached.

use super::*;

#[test]
fn a_class_that_is_wiped_keeps_what_it_was_told_and_its_number_begins_anew() {
    let (mut model, key) = one_vm(1, 7, "tap0");
    let mut names = ClassNames::default();
    names[0] = Some(Arc::from("old"));
    model.set_names(names.clone());
    model.accounts(key, &[account(1, 1, 3, 4)], &strangers, 101 * SECOND);
    model.wiped(0);
    names[0] = Some(Arc::from("new"));
    model.set_names(names);
    model.accounts(key, &[account(1, 1, 1, 2)], &strangers, 102 * SECOND);
    assert_eq!(packets(&mut model, vm(1), "tap0", Some("old")), (3, 4));
    assert_eq!(packets(&mut model, vm(1), "tap0", Some("new")), (1, 2));
    assert_eq!(model.unowned().regressions, 0);
}

fn counters(transmit: u64, receive: u64, dropped: u64) -> LinkStats {
    LinkStats {
        rx_packets: transmit,
        rx_bytes: 10 * transmit,
        tx_packets: receive,
        tx_bytes: 10 * receive,
        rx_dropped: 0,
        tx_dropped: dropped,
    }
}

#[test]
fn what_passed_before_is_never_told_too_high_and_is_exact_at_a_quiet_moment() {
    let (mut model, key) = one_vm(1, 7, "tap0");
    let tell = |model: &mut Model, stats: LinkStats, ours: Account| {
        model.stats(NS, &[(7, stats)].into());
        model.accounts(key, &[ours], &strangers, 101 * SECOND);
        model.narrowed();
        packets(model, vm(1), "tap0", Some("unclassified"))
    };
    // 100 and 50 passed before; ours is read later than the link, so it has more by then.
    assert_eq!(tell(&mut model, counters(110, 60, 0), account(1, 1, 30, 15)), (80, 45));
    assert_eq!(tell(&mut model, counters(150, 90, 0), account(1, 1, 90, 60)), (80, 45));
    assert_eq!(tell(&mut model, counters(190, 108, 2), account(1, 1, 90, 60)), (100, 50));
    assert_eq!(tell(&mut model, counters(300, 208, 2), account(1, 1, 200, 160)), (100, 50));
    assert_eq!(model.usage(vm(1)).expect("known").interfaces[0].receive_dropped, Some(2));
}

#[test]
fn counters_of_earlier_holders_are_nobody_s() {
    // Persistent and taken for the second time, the first unseen: whose its counters are is not known.
    let mut model = Model::default();
    model.born(vm(1), 100 * SECOND);
    let mut tap = Link { carrier_ups: Some(2), stats: Some(counters(100, 50, 0)), ..link(7, "tap0") };
    let mut hold = Holding { netns: NS, link: tap.clone(), persistent: Some(true), generation: None };
    model.held(vm(1), &scan(&[hold.clone()]), 100 * SECOND);
    attach_all(&mut model);
    model.stats(NS, &[(7, counters(100, 50, 0))].into());
    model.narrowed();
    assert_eq!(packets(&mut model, vm(1), "tap0", None), (0, 0));
    assert_eq!(model.unowned().unknown_before, 1);
    // Seen in nobody's hands before: what was counted up to then is not the new holder's.
    let mut model = Model::default();
    (tap.carrier, tap.carrier_ups) = (false, Some(1));
    model.change(NS, &LinkChange::New(tap.clone()), 99 * SECOND);
    model.born(vm(1), 100 * SECOND);
    (hold.link.carrier, hold.link.carrier_ups) = (true, Some(2));
    model.held(vm(1), &scan(&[hold]), 100 * SECOND);
    attach_all(&mut model);
    model.stats(NS, &[(7, counters(103, 54, 0))].into());
    model.narrowed();
    assert_eq!(packets(&mut model, vm(1), "tap0", Some("unclassified")), (3, 4));
}

#[test]
fn a_move_to_another_namespace_doubles_nothing() {
    let (mut model, key) = one_vm(1, 7, "tap0");
    model.stats(NS, &[(7, counters(100, 50, 0))].into());
    model.accounts(key, &[account(1, 1, 30, 20)], &strangers, 101 * SECOND);
    model.narrowed();
    let left = Link { stats: Some(counters(101, 50, 0)), ..link(7, "tap0") };
    model.change(NS, &LinkChange::Gone { link: left, moved: true }, 102 * SECOND);
    model.commands();
    model.detached(key, &[account(1, 1, 31, 20)], &strangers, 102 * SECOND);
    assert_eq!(packets(&mut model, vm(1), "tap0", None), (101, 50));
    model.held(vm(1), &scan(&[holding(OTHER_NS, link(3, "tap0"))]), 103 * SECOND);
    attach_all(&mut model);
    model.stats(OTHER_NS, &[(3, counters(110, 55, 0))].into());
    model.accounts(model.current(OTHER_NS, 3).expect("known"), &[account(1, 1, 4, 5)], &strangers, 104 * SECOND);
    model.narrowed();
    assert_eq!(packets(&mut model, vm(1), "tap0", None), (110, 55));
}

#[test]
fn the_past_of_an_interface_that_another_vm_had_when_an_earlier_agent_ran_is_told_of_nobody() {
    let past = |former: &[(u32, &str)], one: VmKey| {
        let mut model = Model::default();
        for (vm_of, name) in former {
            model.former(vm(*vm_of), [Arc::from(*name)].into(), 100 * SECOND);
        }
        model.born(one, 101 * SECOND);
        let link = Link { stats: Some(counters(100, 50, 0)), ..link(7, "tap0") };
        // It goes with its last file, so it was made for one that has it: by whom, nobody knows.
        model.held(one, &scan(&[holding(NS, link)]), 101 * SECOND);
        attach_all(&mut model);
        model.stats(NS, &[(7, counters(100, 50, 0))].into());
        model.narrowed();
        (packets(&mut model, one, "tap0", Some("unclassified")), model.unowned().unknown_before)
    };
    let (known, unknown) = (((100, 50), 0), ((0, 0), 1));
    assert_eq!(past(&[], vm(2)), known);
    assert_eq!(past(&[(1, "tap0")], vm(2)), unknown);
    assert_eq!(past(&[(1, "tap0"), (2, "tap0")], vm(2)), known, "it had one itself");
    assert_eq!(past(&[(1, "tap1")], vm(2)), known);
    assert_eq!(past(&[(1, "tap0")], VmKey { tgid: 2, start_ticks: 10_001 }), known, "born under this agent");
}
