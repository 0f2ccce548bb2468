//! Bytes of the VMM's own sockets: user-mode networking, disks over the network, migration. Never guest traffic on a tap.
//!
//! The programs stand on a VM's own control group of version 2, for it and all below it; the kernel hands them that
//! group's counter. A length is `skb->len` from the network header on: IP header and all behind it, a GSO packet as the
//! one it still is. Other programs on the group still run, and every packet passes.

#![expect(deprecated, reason = "its successor, task and cgroup storage by pointer, takes 6.2")]

use aya_ebpf::{
    macros::{cgroup_skb, map},
    maps::CgroupStorage,
    programs::SkBuffContext,
};

use crate::counter::add;

/// A group's counter; one for each way, as the attach type is part of the key.
#[map]
static SOCKET_BYTES: CgroupStorage<u64> = CgroupStorage::new();

/// Lets the packet go on.
const PASS: i32 = 1;

/// A packet for a socket of the group.
#[cgroup_skb(ingress)]
pub fn host_socket_receive(ctx: SkBuffContext) -> i32 {
    count(&ctx)
}

/// A packet that a socket of the group sends.
#[cgroup_skb(egress)]
pub fn host_socket_transmit(ctx: SkBuffContext) -> i32 {
    count(&ctx)
}

#[inline(always)]
fn count(ctx: &SkBuffContext) -> i32 {
    // SAFETY: the helper gives the attached group's own value, a u64 aligned to 8, and never null.
    unsafe { add(SOCKET_BYTES.get_ptr_mut(), u64::from(ctx.len())) }
    PASS
}
