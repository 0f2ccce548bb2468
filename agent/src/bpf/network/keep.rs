//! Counting that outlives the agent: taking up what an earlier one left, and writing down what was made of it.
//!
//! The programs of the agent before go on until theirs are replaced, between two packets and on the same page, so no
//! packet is missed or counted twice. Giving accounts back, and letting go of interfaces, waits for the book.

use std::{
    collections::BTreeMap,
    io,
    mem::offset_of,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use kvmeter_common::network::{self as abi, ACCOUNTS, BLOCK_BYTES, made, state};

use super::{
    Carrier, Error, Hook, NetworkPrograms, PortId, Writer,
    attachment::Attachment,
    claims, clsact,
    clsact::{Filters, Found},
    object,
    pins::{Left, Pins},
    port::Port,
    probe,
    syscall::MapShape,
};
use crate::host::{
    ProcFs,
    link::LinkDevice,
    netns::{NetNs, NetNsId},
};

/// A shared map: one that outlives the agent, or the agent's own.
pub(super) fn shared_map(pins: Option<&Pins>, name: &str, shape: &MapShape<'_>) -> io::Result<OwnedFd> {
    pins.map_or_else(|| super::syscall::create_map(shape), |pins| pins.map(name, shape))
}

impl Port {
    /// One that an earlier agent left.
    fn found(left: Left) -> Result<Self, Error> {
        let bytes = object::info(left.page.as_fd()).map_err(Error::Refused)?.value_size() as usize;
        let lanes = (bytes / BLOCK_BYTES).saturating_sub(1) / ACCOUNTS;
        let lanes = u32::try_from(lanes.saturating_sub(1)).unwrap_or(0);
        let mut port = Self::around(PortId(left.id), left.page, lanes, false)?;
        let how = port.word(offset_of!(abi::Header, made));
        port.reversed = how & made::REVERSED != 0;
        port.split = how & made::SPLIT != 0;
        port.follows = (how & made::FOLLOWS != 0).then(|| port.word(offset_of!(abi::Header, key)));
        port.shared_before = port.word(offset_of!(abi::Header, shared_told));
        port.last_serial = (0..ACCOUNTS).map(|number| port.head(number).serial).max().unwrap_or(0);
        // Filters are in a namespace that is yet to be entered.
        port.attachment = left.links.map(Attachment::Tcx);
        port.kept = true;
        Ok(port)
    }

    /// Looks for its filters in a namespace.
    fn find_filters(&mut self, netns: &NetNs, ifindex: u32) {
        let (mark, brought) = (self.mark(), self.word(offset_of!(abi::Header, made)) & made::BROUGHT != 0);
        match netns.inside(|| Filters::find(ifindex, mark, brought)).and_then(|found| found) {
            Ok(Found::Both(filters)) => {
                self.attachment = Some(Attachment::Clsact { filters, netns: netns.clone() });
            }
            Ok(Found::Gone) => self.gone = true,
            Ok(Found::Taken) => {}
            Err(error) => tracing::debug!(%error, ifindex, "an interface's filters cannot be looked for"),
        }
    }

    /// Leaves word how its programs were made.
    pub(super) fn note_made(&mut self) {
        let bit = |set: bool, bit: u64| if set { bit } else { 0 };
        let how = bit(self.reversed, made::REVERSED)
            | bit(self.split, made::SPLIT)
            | bit(self.follows.is_some(), made::FOLLOWS)
            | bit(self.attachment.as_ref().is_some_and(Attachment::brought), made::BROUGHT);
        self.page.put_u64(0, offset_of!(abi::Header, made), how);
    }
}

impl NetworkPrograms {
    /// Prepares the programs so that they outlive the agent, their pins in `dir`; and an earlier agent's book.
    ///
    /// # Errors
    /// As [`NetworkPrograms::load`], and when nothing can be pinned there.
    pub fn load_kept(dir: &Path) -> Result<(Self, Option<Vec<u8>>), Error> {
        Self::load_kept_on(probe::hook()?, dir)
    }

    pub(crate) fn load_kept_on(hook: Hook, dir: &Path) -> Result<(Self, Option<Vec<u8>>), Error> {
        let writer = Writer::probe();
        let pins = Pins::open(dir).map_err(Error::Pins)?;
        let mut programs = Self::load_on(hook, writer, &Carrier::ways(), Some(pins))?;
        let book = programs.find();
        Ok((programs, book))
    }

    /// Lets go of what an earlier agent left, so that counting begins anew.
    ///
    /// # Errors
    /// When a pin cannot be removed.
    pub fn remove_kept(dir: &Path) -> io::Result<()> {
        Pins::open(dir)?.remove()
    }

    /// Finds interfaces that were left; where nothing is written down of them, they are let go.
    fn find(&mut self) -> Option<Vec<u8>> {
        let pins = self.pins.as_ref()?;
        let book = pins.book().ok();
        for left in pins.ports(self.hook == Hook::Tcx).unwrap_or_default() {
            let id = left.id;
            self.last = self.last.max(id);
            match Port::found(left) {
                Ok(mut port) => {
                    port.put_tasks(&self.tasks, self.carrier.direct.running);
                    self.watches.left(port.follows.unwrap_or(0));
                    self.ports.insert(PortId(id), port);
                }
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, id, "an interface's counters are let go");
                    self.leaving.push(id);
                }
            }
        }
        let known: Vec<u32> = self.ports.values().map(|port| port.claimant).collect();
        if let Err(error) = claims::sweep(self.claims.as_fd(), &known) {
            tracing::debug!(%error, "claims of interfaces that are gone cannot be looked for");
        }
        if book.is_none() {
            self.take_up(&[]);
        }
        book
    }

    /// An interface that was left.
    #[must_use]
    pub fn left(&self, number: u32) -> Option<PortId> {
        self.ports.contains_key(&PortId(number)).then_some(PortId(number))
    }

    /// Goes on with these interfaces, of which accounts with these serials were given back by an earlier agent. Others
    /// that were left are let go.
    pub fn take_up(&mut self, known: &[(u32, Vec<u64>)]) {
        let (known_ports, others): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut self.ports)
            .into_iter()
            .partition(|(id, _)| known.iter().any(|(number, _)| *number == id.0));
        self.ports = known_ports;
        for port in others.into_values() {
            port.release(self.claims.as_fd());
            self.forget(&port);
            self.leaving.push(port.id);
        }
        for (number, serials) in known {
            self.settled(PortId(*number), serials);
        }
    }

    /// Accounts with these serials were given back by an earlier agent and are written down; it may have come to
    /// emptying them or not.
    fn settled(&mut self, id: PortId, serials: &[u64]) {
        let Some(port) = self.ports.get_mut(&id) else { return };
        for number in 0..ACCOUNTS {
            let head = port.head(number);
            match head.state {
                _ if !serials.contains(&head.serial) => {}
                // Its claims may have stayed, and nobody could take it then.
                state::FREE => port.unclaim(self.claims.as_fd(), number),
                _ => port.retired.push(number),
            }
        }
    }

    /// The namespace of an interface that was left is entered: what the agent needs there. False if it is no longer on
    /// this device.
    pub fn adopt(&mut self, id: PortId, netns: &NetNs, ifindex: u32) -> bool {
        let Some(port) = self.ports.get_mut(&id) else { return false };
        if port.place.is_some() {
            return true;
        }
        match &port.attachment {
            Some(attachment) if !attachment.is_on(netns, ifindex) => return false,
            Some(_there) => {}
            None => port.find_filters(netns, ifindex),
        }
        if port.attachment.is_none() {
            return false;
        }
        port.place = Some((netns.clone(), ifindex));
        // One that does not tell keeps what was known.
        let _ = port.refresh_offload();
        port.device = LinkDevice::open(netns, ifindex).ok();
        if let Some(key) = port.follows {
            let place = (ifindex, key);
            let key = self.watches.again(netns, place).unwrap_or_else(|error| {
                tracing::warn!(%error, ifindex, "who opens an interface cannot be noted");
                0
            });
            port.listen_at(key);
        }
        true
    }

    /// Whether the programs of an interface that was left are yet to be found in its namespace, or were not.
    #[must_use]
    pub fn is_unseen(&self, id: PortId) -> bool {
        self.ports.get(&id).is_some_and(|port| port.attachment.is_none())
    }

    /// Whether the device of such an interface is known to be gone.
    #[must_use]
    pub fn is_gone(&self, id: PortId) -> bool {
        self.ports.get(&id).is_some_and(|port| port.gone)
    }

    /// Pins an interface that has just been attached. Where that fails nothing outlives the agent any more.
    pub(super) fn keep(&mut self, id: PortId) {
        let (Some(pins), Some(port)) = (&self.pins, self.ports.get_mut(&id)) else { return };
        let links = port.attachment.as_ref().and_then(Attachment::links);
        match pins.keep(id.0, port.fd.as_fd(), links) {
            Ok(()) => port.kept = true,
            Err(error) => self.unkeep(&error),
        }
    }

    /// Writes down what was made of the counters; then accounts are emptied and interfaces let go that wait for it.
    pub fn save(&mut self, book: &mut dyn FnMut(&str) -> Vec<u8>) {
        if let Some(pins) = &self.pins
            && let Err(error) = pins.put_book(&book(&self.code))
        {
            self.unkeep(&error);
        }
        for port in self.ports.values_mut() {
            port.page.put_u64(0, offset_of!(abi::Header, shared_told), port.word(offset_of!(abi::Header, shared)));
            if !port.retired.is_empty() {
                port.empty(self.claims.as_fd());
            }
        }
        for id in std::mem::take(&mut self.leaving) {
            if let Some(Err(error)) = self.pins.as_ref().map(|pins| pins.drop(id)) {
                tracing::debug!(%error, id, "an interface's pins cannot be removed");
            }
        }
    }

    /// From now on all of it ends with the agent: it was let go, or cannot be written down.
    fn unkeep(&mut self, error: &io::Error) {
        let Some(pins) = self.pins.take() else { return };
        if error.kind() == io::ErrorKind::NotFound {
            tracing::info!("interfaces are counted as long as the agent runs: their pins were let go");
        } else {
            tracing::warn!(%error, "interfaces are counted as long as the agent runs: nothing can be written down");
        }
        if let Err(error) = pins.remove() {
            tracing::warn!(%error, "pins cannot be removed");
        }
        self.ports.values_mut().for_each(|port| port.kept = false);
    }
}

/// Takes away the filters that agents left, in every network namespace that a process is in or has a tap in; how many there
/// were. Not while an agent runs, whose own they would be. Links have gone with their pins.
#[must_use]
pub fn release_filters(root: &Path) -> u32 {
    let procfs = ProcFs::new(root);
    let tgids = procfs.tgids().unwrap_or_default();
    let spaces_of = |tgid| {
        let held = procfs.held_taps(tgid, &|_| None).unwrap_or_default();
        let of_taps = held.taps.into_iter().map(|tap| tap.netns);
        NetNs::of_process(root, tgid.get()).into_iter().chain(of_taps)
    };
    let spaces: BTreeMap<NetNsId, NetNs> =
        tgids.into_iter().flat_map(spaces_of).map(|netns| (netns.id(), netns)).collect();
    // One that ends meanwhile takes its filters along.
    spaces.into_values().filter_map(|netns| netns.inside(|| clsact::sweep(&[])).ok()?.ok()).sum()
}
