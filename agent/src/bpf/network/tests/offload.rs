//! What a device segments itself changes when a guest's driver starts, and the kernel says so.

use super::*;
use crate::host::link::{LinkChange, LinkOutcome, LinkSocket};

/// `TUN_F_CSUM | TUN_F_TSO4`
const TSO4: u64 = 1 | 2;

/// Whether a change of a link was announced since the last call.
fn announced(events: &LinkSocket, ifindex: u32) -> bool {
    let mut found = false;
    loop {
        match events.recv().expect("a socket") {
            LinkOutcome::Changes(changes) => {
                found |= changes.iter().any(|one| matches!(one, LinkChange::New(link) if link.ifindex == ifindex));
            }
            LinkOutcome::Empty => return found,
            LinkOutcome::Overflow => panic!("too slow"),
        }
    }
}

#[test]
fn other_offloads_of_a_tap_are_announced() {
    let lab = Lab::new();
    let tap = lab.tap("tap0", 0);
    let left = || lab.inside(|| crate::bpf::network::offload::left_to_the_kernel(tap.ifindex)).expect("it tells");
    tap.set_offload(0);
    let events = LinkSocket::open(&lab.netns).expect("subscribe");
    let none = left();
    announced(&events, tap.ifindex);
    tap.set_offload(TSO4);
    assert!(announced(&events, tap.ifindex), "taken up");
    assert_ne!(left(), none);
    tap.set_offload(TSO4);
    assert!(!announced(&events, tap.ifindex), "nothing changed");
    tap.set_offload(0);
    assert!(announced(&events, tap.ifindex), "given up");
    assert_eq!(left(), none);
}
