//! Taps whose programs follow who holds them: telling them who does.

use std::mem::offset_of;

use kvmeter_common::network::{self as abi, CLASSES, Flow, direction};

use super::{Account, Held, NOBODY, NetworkPrograms, PortId, grace::Grace, port::Port};
use crate::host::netns::NetNs;

impl Port {
    /// From now on the programs follow who holds it. To be called before they are there.
    pub(super) fn follow(&mut self, key: u64) {
        self.follows = Some(key);
        self.page.put_u64(0, offset_of!(abi::Header, key), key);
        self.page.put_u64(0, offset_of!(abi::Header, active), abi::NO_WRITER | abi::NOBODY);
    }

    /// Where its openings are told from now on.
    pub(super) fn listen_at(&mut self, key: u64) {
        self.follows = Some(key);
        self.page.put_u64(0, offset_of!(abi::Header, key), key);
    }

    /// Who holds it in which generation: chosen from now on, should that generation still be.
    pub(super) fn hold(&mut self, held: Held, grace: &Grace) {
        self.page.put_u64(0, offset_of!(abi::Header, held), abi::held(held.generation, held.tgid));
        self.choose_anew(grace);
    }

    /// The next packet looks who holds it.
    pub(super) fn choose_anew(&mut self, grace: &Grace) {
        let mut ask = || self.page.put_u64(0, offset_of!(abi::Header, carriers), abi::ANEW);
        ask();
        // A program that looked before the holder was told may put in what it found after this.
        if self.attachment.is_some() && grace.wait().is_ok() {
            ask();
        }
    }

    /// What passed while nobody was known to hold it.
    pub(super) fn nobodys(&self) -> Account {
        let flow = |direction: usize| {
            let at = offset_of!(abi::Header, nobody) + direction * size_of::<Flow>();
            let mut flows = [Flow::default(); CLASSES];
            flows[0] = Flow {
                bytes: self.word(at + offset_of!(Flow, bytes)),
                packets: self.word(at + offset_of!(Flow, packets)),
            };
            flows
        };
        let (transmit, receive) = (flow(direction::TRANSMIT), flow(direction::RECEIVE));
        Account { serial: 0, writer: NOBODY, transmit, receive }
    }
}

impl NetworkPrograms {
    /// Whether programs can follow who holds a tap.
    #[must_use]
    pub fn follows(&self) -> bool {
        self.carrier.is_read()
    }

    pub(super) fn follow(&mut self, port: &mut Port, netns: &NetNs, ifindex: u32, held: Held) {
        let key = self.watches.add(netns, ifindex).unwrap_or_else(|error| {
            // Then it is nobody's after a handover until the agent has seen who holds it.
            tracing::warn!(%error, ifindex, "who opens an interface cannot be noted");
            0
        });
        port.follow(key);
        port.hold(held, &self.grace);
    }

    pub(super) fn forget(&mut self, port: &Port) {
        if let Some(key) = port.follows.filter(|key| *key != 0) {
            self.watches.forget(port.place.as_ref().map(|(netns, _)| netns.id()), key);
        }
    }

    /// Who holds an interface, and in which generation of it that was seen.
    pub fn hold(&mut self, port: PortId, held: Held) {
        if let Some(port) = self.ports.get_mut(&port).filter(|port| port.follows.is_some()) {
            port.hold(held, &self.grace);
        }
    }
}
