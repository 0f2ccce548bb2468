//! Interfaces that the kernel does not let us count.

use std::collections::HashSet;

use super::*;

#[test]
fn who_takes_over_an_interface_that_was_refused_is_told_why_and_no_zeros() {
    let mut model = Model::default();
    let refuse = |model: &mut Model| {
        for command in model.commands() {
            if let Command::Attach { link, .. } = command {
                model.attached(link, Err("no room".to_owned()));
            }
        }
    };
    for one in [1, 2] {
        model.born(vm(one), 100 * SECOND);
        model.held(vm(one), &scan(&[holding(NS, link(7, "tap0"))]), 100 * SECOND);
        refuse(&mut model);
    }
    for one in [1, 2] {
        let usage = model.usage(vm(one)).expect("known");
        assert_eq!(usage.interfaces[0].unobserved.as_deref(), Some("no room"));
    }
}

#[test]
fn an_interface_that_was_counted_and_then_is_refused_says_so_beside_what_it_counted() {
    let (mut model, key) = one_vm(1, 7, "tap0");
    model.accounts(key, &[account(1, 1, 3, 4)], &strangers, 101 * SECOND);
    model.change(NS, &LinkChange::Gone { link: link(7, "tap0"), moved: false }, 102 * SECOND);
    model.detached(key, &[account(1, 1, 3, 4)], &strangers, 102 * SECOND);
    model.commands();
    // Made anew under its name.
    model.held(vm(1), &scan(&[holding(NS, link(8, "tap0"))]), 103 * SECOND);
    let [Command::Attach { link: key, .. }] = model.commands()[..] else { panic!("one interface to attach") };
    model.attached(key, Err("no room".to_owned()));
    let told = |model: &mut Model| {
        let usage = model.usage(vm(1)).expect("known");
        (usage.interfaces.len(), usage.interfaces[0].unobserved.as_deref().map(str::to_owned), usage.interfaces[0].held)
    };
    assert_eq!(told(&mut model), (1, Some("no room".to_owned()), true));
    assert_eq!(packets(&mut model, vm(1), "tap0", None), (3, 4));
    model.reconcile(&HashSet::new(), 200 * SECOND);
    attach_all(&mut model);
    assert_eq!(told(&mut model), (1, None, true));
    assert_eq!(packets(&mut model, vm(1), "tap0", None), (3, 4));
}
