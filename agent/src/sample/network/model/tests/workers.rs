//! vhost workers: threads of the kernel whose ids are used again, too.

use super::*;

/// A worker's id.
const WORKER: u32 = 900;

fn of(owner: u32) -> impl Fn(u32) -> Writer {
    move |writer| Writer::Process(if writer == WORKER { owner } else { writer })
}

fn gone(_: u32) -> Writer {
    Writer::Gone
}

#[test]
fn a_worker_s_id_that_another_vm_s_worker_has_later_is_that_vm_s() {
    let (mut model, one) = one_vm(1, 7, "tap0");
    model.born(vm(2), 100 * SECOND);
    model.held(vm(2), &scan(&[holding(NS, link(8, "tap1"))]), 100 * SECOND);
    attach_all(&mut model);
    let two = model.current(NS, 8).expect("known");
    model.accounts(one, &[account(1, WORKER, 3, 0)], &of(1), 101 * SECOND);
    model.accounts(two, &[account(1, 0, 0, 0)], &of(1), 101 * SECOND);
    // The first VM's worker ended, and the second's got its id.
    model.accounts(two, &[account(1, 0, 0, 0), account(2, WORKER, 5, 0)], &of(2), 102 * SECOND);
    assert_eq!(packets(&mut model, vm(1), "tap0", None), (3, 0));
    assert_eq!(packets(&mut model, vm(1), "tap1", None), (0, 0));
    assert_eq!(packets(&mut model, vm(2), "tap1", None), (5, 0));
}

#[test]
fn a_worker_that_is_gone_was_its_last_vm_s() {
    let (mut model, key) = one_vm(1, 7, "tap0");
    model.accounts(key, &[account(1, WORKER, 3, 0)], &of(1), 101 * SECOND);
    // The agent ended its account; it wrote once more, and ended.
    model.accounts(key, &[account(1, WORKER, 3, 0), account(2, WORKER, 4, 0)], &gone, 102 * SECOND);
    assert_eq!(packets(&mut model, vm(1), "tap0", None), (7, 0));
}

#[test]
fn what_nobody_is_named_for_is_the_holder_s_of_then() {
    let (mut model, key) = one_vm(1, 7, "tap0");
    model.born(vm(2), 100 * SECOND);
    model.accounts(key, &[account(1, 0, 3, 4)], &strangers, 101 * SECOND);
    model.held(vm(1), &scan(&[]), 102 * SECOND);
    model.held(vm(2), &scan(&[holding(NS, link(7, "tap0"))]), 102 * SECOND);
    assert!(attach_all(&mut model).contains(&Command::Turn(key)));
    assert!(model.turn(key, 102 * SECOND));
    model.accounts(key, &[account(1, 0, 3, 4), account(2, 0, 5, 6)], &strangers, 103 * SECOND);
    assert_eq!(packets(&mut model, vm(1), "tap0", None), (3, 4));
    assert_eq!(packets(&mut model, vm(2), "tap0", None), (5, 6));
}
