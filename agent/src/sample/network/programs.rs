//! What the network sampling asks of the kernel programs, so that it is tested without a kernel.

use std::{error::Error, fmt::Debug};

pub use crate::bpf::network::{Account, CLASSES, Flow, Held, NOBODY};
use crate::{
    bpf::network::{NetworkPrograms, PortId},
    host::NetNs,
};

/// The kernel programs.
pub trait Programs: Send + 'static {
    /// An interface that is or was counted.
    type Port: Copy + Debug + Send;

    /// Whether accounts of a tap can begin with its openings, in the kernel: such a tap is attached with whom holds it.
    fn follows(&self) -> bool;
    /// Counts an interface; `reversed` for a macvtap, whose hooks run the other way round. With `held`, its accounts begin
    /// with its openings.
    ///
    /// # Errors
    /// When the kernel refuses, the interface is gone, or there is no room.
    fn attach(
        &mut self,
        netns: &NetNs,
        ifindex: u32,
        reversed: bool,
        held: Option<Held>,
    ) -> Result<Self::Port, Box<dyn Error>>;
    /// Who holds a tap that is followed, as it was seen.
    fn hold(&mut self, port: Self::Port, held: Held);
    /// False once the interface is gone.
    fn is_attached(&self, port: Self::Port) -> bool;
    /// The agent itself knows that the interface changed hands.
    fn next_account(&mut self, port: Self::Port);
    /// Each cumulative; the one in use last.
    fn read(&self, port: Self::Port) -> Vec<Account>;
    /// Gives accounts up to this serial number back, the one in use excepted; their last figures.
    fn retire(&mut self, port: Self::Port, up_to: u64) -> Vec<Account>;
    /// Ends the counting; the last figures.
    fn detach(&mut self, port: Self::Port) -> Vec<Account>;
    /// Zeroes a class that no program uses any more, in all accounts.
    fn wipe_class(&mut self, class: usize);
    /// The kernel announced something about the interface: what its device segments itself may be another now.
    fn link_changed(&mut self, port: Self::Port);
    /// Now and then, for what nobody announces: whether its packets are handled by the thread that wrote them. Where they
    /// are not, accounts have no writer.
    fn recheck(&mut self, port: Self::Port);
    /// This namespace begins to be listened in: what an agent that was killed left there is taken away.
    fn sweep(&mut self, netns: &NetNs);
    /// A port's number, under which a later agent finds it.
    fn number(port: Self::Port) -> u32;
    /// An interface that an earlier agent left under this number.
    fn left(&self, number: u32) -> Option<Self::Port>;
    /// Whether the programs of one that was left are yet to be found in its namespace, or were not.
    fn is_unseen(&self, port: Self::Port) -> bool;
    /// Whether the device of such a one is known to be gone.
    fn is_gone(&self, port: Self::Port) -> bool;
    /// These interfaces are written down, with accounts that an earlier agent had given back; others that it left are let
    /// go.
    fn take_up(&mut self, known: &[(u32, Vec<u64>)]);
    /// The namespace of an interface that was left is entered. False if it is no longer there.
    fn adopt(&mut self, port: Self::Port, netns: &NetNs, ifindex: u32) -> bool;
    /// Writes down, for a later agent, what `book` gives for programs of a code; then what was given back is emptied, and
    /// what was ended is let go.
    fn save(&mut self, book: &mut dyn FnMut(&str) -> Vec<u8>);
    /// Packets so far that went to another writer's account because none was free.
    fn shared_packets(&self) -> u64;
}

impl Programs for NetworkPrograms {
    type Port = PortId;

    fn follows(&self) -> bool {
        Self::follows(self)
    }

    fn attach(
        &mut self,
        netns: &NetNs,
        ifindex: u32,
        reversed: bool,
        held: Option<Held>,
    ) -> Result<PortId, Box<dyn Error>> {
        Ok(self.attach_held(netns, ifindex, reversed, held)?)
    }

    fn hold(&mut self, port: PortId, held: Held) {
        Self::hold(self, port, held);
    }

    fn is_attached(&self, port: PortId) -> bool {
        Self::is_attached(self, port)
    }

    fn next_account(&mut self, port: PortId) {
        Self::next_account(self, port);
    }

    fn read(&self, port: PortId) -> Vec<Account> {
        Self::read(self, port)
    }

    fn retire(&mut self, port: PortId, up_to: u64) -> Vec<Account> {
        Self::retire(self, port, up_to)
    }

    fn detach(&mut self, port: PortId) -> Vec<Account> {
        Self::detach(self, port)
    }

    fn wipe_class(&mut self, class: usize) {
        Self::wipe_class(self, class);
    }

    fn link_changed(&mut self, port: PortId) {
        // An interface that is gone has nothing left to segment.
        if let Err(error) = self.refresh_offload(port) {
            tracing::debug!(%error, "an interface's offloads cannot be asked");
        }
        self.recheck(port);
    }

    fn recheck(&mut self, port: PortId) {
        if let Err(error) = self.refresh_split(port) {
            tracing::warn!(%error, "packets of an interface may be told on another VM");
        }
    }

    fn sweep(&mut self, netns: &NetNs) {
        match Self::sweep(self, netns) {
            Ok(0) => {}
            Ok(filters) => tracing::info!(filters, "filters that an earlier agent left were taken away"),
            Err(error) => tracing::debug!(%error, "a namespace cannot be searched for filters that were left"),
        }
    }

    fn number(port: PortId) -> u32 {
        port.number()
    }

    fn left(&self, number: u32) -> Option<PortId> {
        Self::left(self, number)
    }

    fn is_unseen(&self, port: PortId) -> bool {
        Self::is_unseen(self, port)
    }

    fn is_gone(&self, port: PortId) -> bool {
        Self::is_gone(self, port)
    }

    fn take_up(&mut self, known: &[(u32, Vec<u64>)]) {
        Self::take_up(self, known);
    }

    fn adopt(&mut self, port: PortId, netns: &NetNs, ifindex: u32) -> bool {
        Self::adopt(self, port, netns, ifindex)
    }

    fn save(&mut self, book: &mut dyn FnMut(&str) -> Vec<u8>) {
        Self::save(self, book);
    }

    fn shared_packets(&self) -> u64 {
        self.losses().shared_packets
    }
}
