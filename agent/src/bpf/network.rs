//! Counting packets at VMs' interfaces: loading and attaching the programs, reading what they counted.
//!
//! Each interface gets two program instances and a page of counters of its own. It refuses to guess: an account says who
//! wrote first, never whose VM that is.

mod attachment;
mod carrier;
mod claims;
mod classes;
mod clsact;
mod error;
mod grace;
mod holder;
mod instance;
mod keep;
mod netlink;
mod object;
mod offload;
mod pins;
mod port;
mod probe;
mod reading;
mod retire;
mod running;
mod socket;
mod split;
mod syscall;
mod table;
mod template;
#[cfg(test)]
mod tests;
mod watch;
mod writer;

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use aya_obj::generated::bpf_map_type;
use kvmeter_common::network;

use attachment::Attachment;
use carrier::Carrier;
use clsact::Mark;
pub use error::Error;
use grace::Grace;
pub(super) use grace::wait_for_programs;
pub use keep::release_filters;
use pins::Pins;
use port::Port;
pub use reading::{Account, CLASSES, Flow, Held, Hook, Losses, NOBODY, PortId};
use syscall::MapShape;
use table::Table;
use template::Templates;
use watch::Watches;
use writer::Writer;

use super::object::OBJECT;
use crate::host::{
    cpus,
    link::LinkDevice,
    netns::{NetNs, NetNsId},
};

/// Interfaces at a time.
pub const PORTS: usize = 4_096;

/// The programs and all that is attached.
pub struct NetworkPrograms {
    templates: Templates,
    claims: OwnedFd,
    grace: Grace,
    own: Option<NetNsId>,
    lanes: u32,
    hook: Hook,
    writer: Writer,
    carrier: Carrier,
    /// Where which task runs is kept, by CPU; empty where programs ask.
    tasks: Vec<u64>,
    /// There are programs for usual packets alone.
    quick: bool,
    /// The highest number that a CPU can have, if that is known.
    last_cpu: Option<u32>,
    watches: Watches,
    ports: BTreeMap<PortId, Port>,
    last: u32,
    /// Of ports that are gone.
    losses: Losses,
    table: Option<Table>,
    /// Of the programs in force.
    code: String,
    /// Where it outlives the agent.
    pins: Option<Pins>,
    /// Interfaces to be let go once that is written down.
    leaving: Vec<u32>,
}

impl NetworkPrograms {
    /// Prepares the programs, and finds out how they are attached here.
    ///
    /// # Errors
    /// Without the capabilities, or where the kernel has no hook.
    pub fn load() -> Result<Self, Error> {
        Self::load_for(probe::hook()?, Writer::probe())
    }

    fn load_for(hook: Hook, writer: Writer) -> Result<Self, Error> {
        Self::load_with(hook, writer, &Carrier::ways())
    }

    fn load_with(hook: Hook, writer: Writer, ways: &[Carrier]) -> Result<Self, Error> {
        Self::load_on(hook, writer, ways, None)
    }

    fn load_on(hook: Hook, writer: Writer, ways: &[Carrier], pins: Option<Pins>) -> Result<Self, Error> {
        let shared = |name: &str, shape: &MapShape<'_>| keep::shared_map(pins.as_ref(), name, shape);
        let claims = shared(
            "claims",
            &MapShape {
                name: "NETWORK_CLAIMS",
                kind: bpf_map_type::BPF_MAP_TYPE_HASH,
                key_bytes: 8,
                value_bytes: 4,
                entries: u32::try_from(2 * PORTS * network::ACCOUNTS).unwrap_or(u32::MAX),
                // `BPF_F_NO_PREALLOC`: nearly all of it is never used.
                flags: 1,
                inner: None,
            },
        )
        .map_err(Error::Refused)?;
        let mut programs = Self {
            templates: Templates::parse(OBJECT)?,
            claims,
            grace: Grace::new().map_err(Error::Refused)?,
            own: NetNs::own().ok().map(|own| own.id()),
            lanes: probe::lanes(),
            hook,
            writer,
            carrier: Carrier::default(),
            tasks: Vec::new(),
            quick: true,
            last_cpu: cpus::highest_possible(Path::new("/")),
            watches: Watches::new(|shape| shared("openers", shape)).map_err(Error::Refused)?,
            ports: BTreeMap::new(),
            last: 0,
            losses: Losses::default(),
            table: None,
            code: String::new(),
            pins: None,
            leaving: Vec::new(),
        };
        programs.pins = pins;
        programs.carrier = programs.try_out(ways)?;
        Ok(programs)
    }

    /// How programs are attached here.
    #[must_use]
    pub fn hook(&self) -> Hook {
        self.hook
    }

    /// Begins to count at an interface. `reversed`: it is a macvtap, whose hooks run the other way round.
    ///
    /// # Errors
    /// When there is no room, the interface is gone, or the kernel refuses.
    pub fn attach(&mut self, netns: &NetNs, ifindex: u32, reversed: bool) -> Result<PortId, Error> {
        self.attach_held(netns, ifindex, reversed, None)
    }

    /// The same; with `held`, its programs follow who holds it, where [`NetworkPrograms::follows`].
    ///
    /// # Errors
    /// As [`NetworkPrograms::attach`].
    pub fn attach_held(
        &mut self,
        netns: &NetNs,
        ifindex: u32,
        reversed: bool,
        held: Option<Held>,
    ) -> Result<PortId, Error> {
        if self.ports.len() >= PORTS {
            return Err(Error::Full);
        }
        self.last = self.last.checked_add(1).ok_or(Error::Full)?;
        let id = PortId(self.last);
        let mut port = Port::new(id, self.lanes, reversed)?;
        match held.filter(|_| self.follows() && !reversed) {
            Some(held) => self.follow(&mut port, netns, ifindex, held),
            None => port.open(self.claims.as_fd()),
        }
        port.put_tasks(&self.tasks, self.carrier.direct.running);
        port.place = Some((netns.clone(), ifindex));
        // One that does not tell is taken to segment all itself, as most do.
        let _ = port.refresh_offload();
        port.device = LinkDevice::open(netns, ifindex).ok();
        // Nor is anything put off by default.
        port.split = port.runs_in_writer().unwrap_or(true);
        let here = self.own == Some(netns.id());
        let pair = self.pair(&port, self.table.as_ref());
        match pair.and_then(|pair| Attachment::new(self.hook, netns, here, ifindex, port.mark(), &pair)) {
            Ok(attachment) => port.attachment = Some(attachment),
            Err(error) => {
                self.forget(&port);
                return Err(error);
            }
        }
        port.note_made();
        self.ports.insert(id, port);
        self.keep(id);
        Ok(id)
    }

    /// Takes away what an agent that was killed left in a namespace and this one does not go on with: filters, where those
    /// are the hooks; links went with it. To be called when interfaces of the namespace begin to be counted, by the one
    /// agent that counts on this host.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or its queueing disciplines not be listed.
    pub fn sweep(&mut self, netns: &NetNs) -> io::Result<u32> {
        if self.hook == Hook::Tcx {
            return Ok(0);
        }
        let kept: Vec<Mark> = self.ports.values().map(Port::mark).collect();
        netns.inside(|| clsact::sweep(&kept))?
    }

    /// Takes over what an interface's device segments itself, which changes when a guest's driver starts: to be called
    /// at each message about its link.
    ///
    /// # Errors
    /// When the device is gone or does not tell; what was known holds on then.
    pub fn refresh_offload(&mut self, port: PortId) -> io::Result<()> {
        self.ports.get_mut(&port).map_or(Ok(()), Port::refresh_offload)
    }

    /// Whether its programs are still on a device: false once that is gone.
    #[must_use]
    pub fn is_attached(&self, port: PortId) -> bool {
        self.ports.get(&port).is_some_and(Port::is_attached)
    }

    /// The agent itself knows of a handover: who writes next begins an account, whoever it is.
    pub fn next_account(&mut self, port: PortId) {
        match self.ports.get_mut(&port) {
            Some(port) if port.follows.is_some() => port.choose_anew(&self.grace),
            Some(port) => port.next(self.claims.as_fd(), &self.grace),
            None => {}
        }
    }

    /// What was counted, account by account, the one in use last.
    #[must_use]
    pub fn read(&self, port: PortId) -> Vec<Account> {
        self.ports.get(&port).map_or_else(Vec::new, Port::read)
    }

    /// Gives accounts back up to this serial, the one in use excepted; their final values, after which nothing is
    /// added to them.
    pub fn retire(&mut self, port: PortId, up_to: u64) -> Vec<Account> {
        let (claims, grace) = (self.claims.as_fd(), &self.grace);
        self.ports.get_mut(&port).map_or_else(Vec::new, |port| port.retire(claims, grace, up_to))
    }

    /// Ends counting; the final values.
    pub fn detach(&mut self, port: PortId) -> Vec<Account> {
        let Some(mut port) = self.ports.remove(&port) else { return Vec::new() };
        port.take_off(&self.grace);
        let accounts = port.read();
        self.losses.shared_packets += port.shared();
        port.release(self.claims.as_fd());
        self.forget(&port);
        self.leaving.extend(port.kept.then_some(port.id));
        accounts
    }

    /// What could not be told apart so far.
    #[must_use]
    pub fn losses(&self) -> Losses {
        let now: u64 = self.ports.values().map(Port::shared).sum();
        Losses { shared_packets: self.losses.shared_packets + now }
    }
}

impl Drop for NetworkPrograms {
    fn drop(&mut self) {
        // Links go with their descriptors, filters do not, nor are they to where they are kept.
        if self.hook == Hook::Clsact {
            let ours = self.ports.values_mut().filter(|port| !port.kept);
            for attachment in ours.filter_map(|port| port.attachment.take()) {
                let _waits = attachment.take_off();
            }
        }
    }
}
