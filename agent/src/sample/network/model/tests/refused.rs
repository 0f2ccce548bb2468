//! Interfaces that the kernel does not let us count.

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
