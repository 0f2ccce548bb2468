//! Counting packets at VMs' interfaces: loading and attaching the programs, reading what they counted.
//!
//! Each interface gets two program instances and a page of counters of its own. It refuses to guess: an account says who
//! wrote first, never whose VM that is.

mod attachment;
mod clsact;
mod error;
mod grace;
mod netlink;
mod offload;
mod port;
mod reading;
mod split;
mod syscall;
mod table;
mod template;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use aya_obj::generated::{bpf_attach_type, bpf_map_type};
use kvmeter_common::network;

use attachment::{Attachment, Pair};
pub use error::Error;
use grace::Grace;
use port::Port;
pub use reading::{Account, CLASSES, Flow, Hook, Losses, PortId};
use syscall::MapShape;
use table::Table;
use template::{Constants, Templates};
use writer::Writer;

use super::object::OBJECT;
use crate::account::class::ClassTable;
use crate::host::{
    link::LinkDevice,
    netns::{NetNs, NetNsId},
    realtime,
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
    ports: BTreeMap<PortId, Port>,
    last: u32,
    /// Of ports that are gone.
    losses: Losses,
    table: Option<Table>,
}

impl NetworkPrograms {
    /// Prepares the programs, and finds out how they are attached here.
    ///
    /// # Errors
    /// Without the capabilities, or where the kernel has no hook.
    pub fn load() -> Result<Self, Error> {
        Self::load_for(probe()?, Writer::probe())
    }

    fn load_for(hook: Hook, writer: Writer) -> Result<Self, Error> {
        let claims = syscall::create_map(&MapShape {
            name: "NETWORK_CLAIMS",
            kind: bpf_map_type::BPF_MAP_TYPE_HASH,
            key_bytes: 8,
            value_bytes: 4,
            entries: u32::try_from(2 * PORTS * network::ACCOUNTS).unwrap_or(u32::MAX),
            // `BPF_F_NO_PREALLOC`: nearly all of it is never used.
            flags: 1,
            inner: None,
        })
        .map_err(Error::Refused)?;
        Ok(Self {
            templates: Templates::parse(OBJECT)?,
            claims,
            grace: Grace::new().map_err(Error::Refused)?,
            own: NetNs::own().ok().map(|own| own.id()),
            lanes: lanes(),
            hook,
            writer,
            ports: BTreeMap::new(),
            last: 0,
            losses: Losses::default(),
            table: None,
        })
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
        if self.ports.len() >= PORTS {
            return Err(Error::Full);
        }
        self.last = self.last.checked_add(1).ok_or(Error::Full)?;
        let id = PortId(self.last);
        let mut port = Port::new(id, self.lanes, reversed)?;
        port.open(self.claims.as_fd());
        port.place = Some((netns.clone(), ifindex));
        // One that does not tell is taken to segment all itself, as most do.
        let _ = port.refresh_offload();
        port.device = LinkDevice::open(netns, ifindex).ok();
        // Nor is anything put off by default.
        port.split = port.runs_in_writer().unwrap_or(true);
        let pair = self.pair(&port, self.table.as_ref())?;
        let here = self.own == Some(netns.id());
        port.attachment = Some(Attachment::new(self.hook, netns, here, ifindex, id.0, &pair)?);
        self.ports.insert(id, port);
        Ok(id)
    }

    /// Takes away what an agent that was killed left in a namespace: filters, where those are the hooks; links went with
    /// it. To be called when interfaces of the namespace begin to be counted, by the one agent that counts on this host;
    /// with an interface of ours in it, nothing is done.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or its queueing disciplines not be listed.
    pub fn sweep(&mut self, netns: &NetNs) -> io::Result<u32> {
        let is_here = |port: &Port| port.place.as_ref().is_some_and(|(of, _)| of.id() == netns.id());
        if self.hook == Hook::Tcx || self.ports.values().any(is_here) {
            return Ok(0);
        }
        netns.inside(clsact::sweep)?
    }

    /// An interface's two programs.
    fn pair(&self, port: &Port, table: Option<&Table>) -> Result<Pair, Error> {
        let constants = Constants {
            port: port.map(),
            claims: self.claims.as_fd(),
            lanes: self.lanes,
            split: port.split,
            writer: self.writer,
            table: table.map(|table| (table.fd.as_fd(), table.mask)),
        };
        let names =
            if port.reversed { ["macvtap_receive", "macvtap_transmit"] } else { ["tap_transmit", "tap_receive"] };
        Ok(Pair { programs: [self.program(names[0], &constants)?, self.program(names[1], &constants)?], names })
    }

    /// Puts other classes in force for all interfaces, none missing a packet. When this returns, no program runs that
    /// knows the old ones; after an error the old ones are in force. `None`: all is `external` or `non_ip`.
    ///
    /// # Errors
    /// When the kernel refuses the table or a program.
    pub fn set_classes(&mut self, table: Option<&ClassTable>) -> Result<(), Error> {
        let table = table.map(Table::new).transpose()?;
        let mut pairs = Vec::with_capacity(self.ports.len());
        for (id, port) in &self.ports {
            pairs.push((*id, self.pair(port, table.as_ref())?));
        }
        for (at, (id, pair)) in pairs.iter().enumerate() {
            if let Err(source) = self.replace(*id, pair) {
                // Classes of two configurations at once would mix their counts.
                for (id, _) in &pairs[..=at] {
                    if let Some(old) = self.ports.get(id).map(|port| self.pair(port, self.table.as_ref())) {
                        self.replace(*id, &old?).map_err(Error::Replace)?;
                    }
                }
                return Err(Error::Replace(source));
            }
        }
        self.table = table;
        self.grace.wait().map_err(Error::Replace)
    }

    /// A device that is gone needs no other programs.
    fn replace(&mut self, id: PortId, pair: &Pair) -> io::Result<()> {
        let Some(port) = self.ports.get_mut(&id) else { return Ok(()) };
        let Some(attachment) = port.attachment.as_mut() else { return Ok(()) };
        attachment.replace(pair).or_else(|error| if attachment.is_there() { Err(error) } else { Ok(()) })
    }

    /// Wipes a class that no table in force has, so that its number can be given to another name. What was counted must
    /// have been read before.
    pub fn wipe_class(&mut self, class: usize) {
        if class < CLASSES {
            self.ports.values_mut().for_each(|port| port.wipe(class));
        }
    }

    fn program(&self, name: &'static str, constants: &Constants<'_>) -> Result<OwnedFd, Error> {
        let code = self.templates.instance(name, constants)?;
        syscall::load_classifier(name, &code, None).map_err(|source| {
            let mut log = vec![0; 256 * 1024];
            let _again = syscall::load_classifier(name, &code, Some(&mut log));
            // Behind the first 0 are words that the verifier took back.
            let text = String::from_utf8_lossy(log.split(|byte| *byte == 0).next().unwrap_or_default());
            let lines: Vec<_> = text.lines().collect();
            let log = lines[lines.len().saturating_sub(4)..].join(" | ");
            Error::Program { name, log, source }
        })
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
        if let Some(port) = self.ports.get_mut(&port) {
            port.next(self.claims.as_fd(), &self.grace);
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
        // Links go with their descriptors, filters do not.
        if self.hook == Hook::Clsact {
            self.ports.values_mut().filter_map(|port| port.attachment.take()).for_each(Attachment::take_off);
        }
    }
}

/// Looks at the loopback device, whose index is 1 everywhere: kernels without tcx do not know the question.
fn probe() -> Result<Hook, Error> {
    match syscall::count_on(1, bpf_attach_type::BPF_TCX_INGRESS) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Err(Error::Refused(error)),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => Ok(Hook::Clsact),
        _answer => Ok(Hook::Tcx),
    }
}

/// CPUs that can count by themselves here, by their highest number.
fn lanes() -> u32 {
    let most = u32::try_from(network::LANES).unwrap_or(u32::MAX);
    let online = aya::util::online_cpus().unwrap_or_default();
    // Where softirqs can be preempted, no CPU can.
    if realtime::is_realtime(Path::new("/")) { 0 } else { online.into_iter().max().map_or(0, |cpu| cpu + 1).min(most) }
}
