//! A book that knows of no writer yet, of an interface that is out of sight when the next agent comes.

use super::*;

/// Goes on from the book of an agent that ended before anybody wrote; the VM has ended since, and the account has this now.
fn resumed(now: &Account, left: Left) -> (Model, (u64, u64)) {
    let (model, _) = one_vm(1, 7, "tap0");
    let book = model.book("", |_| Some(1));
    let mut next = Model::default();
    let links = next.resume(book, |_| left, |_| false, (200 * SECOND, 0));
    next.accounts(links[0].0, std::slice::from_ref(now), &strangers, 200 * SECOND);
    let told = packets(&mut next, vm(1), "tap0", None);
    (next, told)
}

#[test]
fn what_came_in_while_no_agent_ran_is_the_vm_s_that_wrote_to_the_account_it_was_opened_for() {
    let (model, told) = resumed(&account(1, 1, 10, 20), Left::Lost);
    assert_eq!(told, (10, 20));
    assert_eq!(model.unowned().traffic, Traffic::default());
}

#[test]
fn what_came_in_for_a_vm_that_is_over_is_nobodys_where_another_wrote_or_none() {
    for (writer, transmit) in [(2, 10), (0, 0)] {
        let (model, told) = resumed(&account(1, writer, transmit, 20), Left::Lost);
        assert_eq!(told, (0, 0));
        assert_eq!(model.unowned().traffic.receive_packets, 20, "writer {writer}");
    }
}

#[test]
fn what_came_in_at_an_interface_that_others_may_have_opened_since_is_nobodys_whoever_wrote() {
    let (model, told) = resumed(&account(1, 1, 10, 20), Left::Attached);
    assert_eq!(told, (10, 0));
    assert_eq!(model.unowned().traffic.receive_packets, 20);
}
