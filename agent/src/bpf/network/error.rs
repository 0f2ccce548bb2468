//! Why packets of an interface are not counted.

use std::io;

use super::PORTS;
use crate::bpf::maps::MapError;

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
    #[error("the kernel refused program {name} ({source}): {log}")]
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
    /// An `ingress` discipline stands where clsact would, and has no hook for egress.
    #[error(
        "interface {0} has the queueing discipline \"ingress\" where \"clsact\" is needed: replace it \
         (`tc qdisc delete dev … ingress`, `tc qdisc add dev … clsact`)"
    )]
    Ingress(u32),
    /// Programs were not replaced.
    #[error("the network classes cannot be changed: a program was not replaced")]
    Replace(#[source] io::Error),
    /// Programs of an interface were not replaced.
    #[error("whether an interface's writers are told apart cannot be changed: a program was not replaced")]
    Split(#[source] io::Error),
    /// Nothing can be pinned.
    #[error("what counts at interfaces cannot be pinned")]
    Pins(#[source] io::Error),
    /// No room.
    #[error("{PORTS} interfaces are counted already; no more can be")]
    Full,
}

impl Error {
    pub(super) fn of_attaching(ifindex: u32, source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(libc::ENODEV) => Self::Gone(ifindex),
            Some(libc::EPERM) => Self::Refused(source),
            Some(libc::EEXIST) => Self::Ingress(ifindex),
            _ => Self::Attach { ifindex, source },
        }
    }
}
