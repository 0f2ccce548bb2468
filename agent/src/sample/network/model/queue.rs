//! What a queueing discipline drops behind our program: it was on its way and is counted, and in none of the link's
//! counters. Looked at only where our numbers and the link's have moved apart, so one that is put in another's place under
//! its very number meanwhile goes on from the other's count.

use std::collections::{BTreeSet, HashMap};

use super::{
    Model,
    before::guest,
    port::{Owner, Port},
};
use crate::host::{NetNsId, link::Queue};

impl Port {
    /// What was counted beyond what the link sent: what waits in the queue, was dropped there, or passed between two
    /// readings. Only its changes mean something.
    fn gap_now(&self) -> Option<u64> {
        let link = guest(self.stats?, self.reversed());
        Some(if self.reversed() {
            self.counted.transmit_packets.wrapping_sub(link.transmit_packets)
        } else {
            self.counted.receive_packets.wrapping_sub(link.receive_packets)
        })
    }
}

impl Model {
    /// After the counters and the accounts: namespaces whose disciplines are to be looked at.
    pub fn queued(&mut self) -> BTreeSet<NetNsId> {
        let moved = |port: &mut Port| {
            let now = port.gap_now();
            port.is_attached() && now.is_some() && std::mem::replace(&mut port.gap, now) != now
        };
        self.ports.iter_mut().filter_map(|(key, port)| moved(port).then_some(key.netns)).collect()
    }

    /// The disciplines of a namespace's links. The first look is where counting begins.
    pub fn queues(&mut self, netns: NetNsId, queues: &HashMap<u32, Queue>) {
        for (key, port) in self.ports.iter_mut().filter(|(key, port)| key.netns == netns && port.is_attached()) {
            let Some(now) = queues.get(&key.ifindex).copied() else { continue };
            let more = match port.queue.replace(now) {
                None => 0,
                Some(before) if before.handle != now.handle => now.drops,
                // One of the same number that is new begins at nothing; a counter that wraps goes on.
                Some(before) => match now.drops.wrapping_sub(before.drops) {
                    fell if fell > u32::MAX / 2 => now.drops,
                    more => more,
                },
            };
            let (Owner::Vm(vm), true) = (port.holder(), more > 0) else { continue };
            let Some(vm) = self.vms.get_mut(&vm) else { continue };
            let reversed = port.reversed();
            let tally = vm.tally(*key, &port.label);
            let sum = if reversed { &mut tally.transmit_dropped } else { &mut tally.receive_dropped };
            *sum = Some(sum.unwrap_or(0).saturating_add(more.into()));
        }
    }
}
