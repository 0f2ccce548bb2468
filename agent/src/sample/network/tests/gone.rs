//! A thread that fails.

use super::*;

#[test]
fn a_thread_that_panics_is_known_to_be_gone() {
    let network = network();
    sample(&network);
    assert!(!network.is_gone());
    network.set_classes(|_| panic!("for the test"));
    until("it is gone", || network.is_gone());
    // Nobody waits for it.
    network.sample();
    assert!(!network.wait_sample(network.samples() + 1, Duration::from_millis(1)));
}
