//! Counting packets at VMs' interfaces: loading and attaching the programs, reading what they counted.
//!
//! Each interface gets two program instances and a page of counters of its own. It refuses to guess: an account says who
//! wrote first, never whose VM that is.

mod grace;
mod port;
mod syscall;
mod template;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use aya_obj::generated::{bpf_attach_type, bpf_map_type};
use kvmeter_common::network;

use grace::Grace;
pub use kvmeter_common::network::{CLASSES, Flow};
use port::Port;
use syscall::MapShape;
use template::{Constants, Templates};

use super::{maps::MapError, object::OBJECT};
use crate::host::netns::{NetNs, NetNsId};

/// Interfaces at a time.
pub const PORTS: usize = 4_096;

/// Why an interface is not counted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The agent's own build is broken.
    #[error("the kernel programs are of no use: {0}")]
    Object(String),
    /// No right to attach, or a kernel without the hook.
    #[error("network programs cannot be used (they need CAP_BPF and CAP_NET_ADMIN, or root)")]
    Refused(#[source] io::Error),
    /// The kernel takes neither tcx nor clsact.
    #[error(
        "this kernel has neither tcx (CONFIG_NET_XGRESS, 6.6) nor clsact (CONFIG_NET_CLS_ACT with CONFIG_NET_CLS_BPF)"
    )]
    NoHook,
    /// A program did not load.
    #[error("the kernel refused program {name}: {log}")]
    Program {
        /// Its name.
        name: &'static str,
        /// The end of the verifier's words.
        log: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A map was not created.
    #[error("the kernel refused map {0}")]
    Map(&'static str, #[source] io::Error),
    /// A map was not mapped.
    #[error(transparent)]
    Mapping(#[from] MapError),
    /// Its namespace cannot be entered.
    #[error("the network namespace of interface {ifindex} cannot be entered (needs CAP_SYS_ADMIN)")]
    Namespace {
        /// Index of the interface.
        ifindex: u32,
        /// The kernel's answer.
        source: io::Error,
    },
    /// It is not there (any more).
    #[error("interface {0} is gone")]
    Gone(u32),
    /// The hook did not take the program.
    #[error("the program cannot be attached to interface {ifindex}")]
    Attach {
        /// Index of the interface.
        ifindex: u32,
        /// The kernel's answer.
        source: io::Error,
    },
    /// No room.
    #[error("{PORTS} interfaces are counted already; no more can be")]
    Full,
}

/// How programs are attached here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// By a link that goes with the agent (Linux 6.6).
    Tcx,
    /// As a filter of the clsact queueing discipline.
    Clsact,
}

/// An interface that is or was counted; never given to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(pub(super) u32);

/// What passed while one process had the interface. Every number is cumulative.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// CLOCK_MONOTONIC nanoseconds of its beginning; grows from account to account of an interface.
    pub serial: u64,
    /// Thread group that wrote first; 0 = none has.
    pub writer: u32,
    /// Out of the guest, by class.
    pub transmit: [Flow; CLASSES],
    /// Into the guest, by class.
    pub receive: [Flow; CLASSES],
}

/// What could not be told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Packets that went to another writer's account because none was free.
    pub shared_packets: u64,
}

/// The programs and all that is attached.
pub struct NetworkPrograms {
    templates: Templates,
    claims: OwnedFd,
    grace: Grace,
    own: Option<NetNsId>,
    hook: Hook,
    ports: BTreeMap<PortId, Port>,
    last: u32,
    /// Of ports that are gone.
    losses: Losses,
}

impl NetworkPrograms {
    /// Prepares the programs, and finds out how they are attached here.
    ///
    /// # Errors
    /// Without the capabilities, or where the kernel has no hook.
    pub fn load() -> Result<Self, Error> {
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
            hook: probe()?,
            ports: BTreeMap::new(),
            last: 0,
            losses: Losses::default(),
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
        let mut port = Port::new(id)?;
        port.open(self.claims.as_fd());
        let constants = Constants { port: port.map(), claims: self.claims.as_fd(), split: true, table: None };
        let names = if reversed { ["macvtap_receive", "macvtap_transmit"] } else { ["tap_transmit", "tap_receive"] };
        let programs = [self.program(names[0], &constants)?, self.program(names[1], &constants)?];
        let link_both = || -> io::Result<[OwnedFd; 2]> {
            let ingress = syscall::link(programs[0].as_fd(), ifindex, bpf_attach_type::BPF_TCX_INGRESS)?;
            let egress = syscall::link(programs[1].as_fd(), ifindex, bpf_attach_type::BPF_TCX_EGRESS)?;
            Ok([ingress, egress])
        };
        let links = if self.own == Some(netns.id()) {
            link_both()
        } else {
            netns.inside(link_both).map_err(|source| Error::Namespace { ifindex, source })?
        };
        port.links = Some(links.map_err(|source| attach_error(ifindex, source))?);
        self.ports.insert(id, port);
        Ok(id)
    }

    fn program(&self, name: &'static str, constants: &Constants<'_>) -> Result<OwnedFd, Error> {
        let code = self.templates.instance(name, constants)?;
        syscall::load_classifier(name, &code, None).map_err(|source| {
            let mut log = vec![0; 64 * 1024];
            let _again = syscall::load_classifier(name, &code, Some(&mut log));
            let text = String::from_utf8_lossy(&log);
            let lines: Vec<_> = text.trim_end_matches('\0').lines().collect();
            let log = lines[lines.len().saturating_sub(4)..].join(" | ");
            Error::Program { name, log, source }
        })
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
        port.unlink();
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

fn attach_error(ifindex: u32, source: io::Error) -> Error {
    match source.raw_os_error() {
        Some(libc::ENODEV) => Error::Gone(ifindex),
        Some(libc::EPERM) => Error::Refused(source),
        _ => Error::Attach { ifindex, source },
    }
}

/// Looks at the loopback device, whose index is 1 everywhere: kernels without tcx do not know the question.
fn probe() -> Result<Hook, Error> {
    match syscall::query(1, bpf_attach_type::BPF_TCX_INGRESS) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Err(Error::Refused(error)),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => Ok(Hook::Clsact),
        _answer => Ok(Hook::Tcx),
    }
}
