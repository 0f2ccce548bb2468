//! Two programs on an interface's hooks, by whichever way this kernel has.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use aya_obj::generated::bpf_attach_type::{BPF_TCX_EGRESS, BPF_TCX_INGRESS};

use super::{
    Error, Hook,
    clsact::{Filters, Mark},
    syscall,
};
use crate::host::netns::NetNs;

/// The programs for ingress and egress, and their names.
pub(super) struct Pair {
    pub programs: [OwnedFd; 2],
    pub names: [&'static str; 2],
}

/// Where they are.
pub(super) enum Attachment {
    Tcx([OwnedFd; 2]),
    Clsact { filters: Filters, netns: NetNs },
}

impl Attachment {
    /// Puts them there. `here`: the namespace is the agent's own.
    pub(super) fn new(
        hook: Hook,
        netns: &NetNs,
        here: bool,
        ifindex: u32,
        mark: Mark,
        pair: &Pair,
    ) -> Result<Self, Error> {
        let [ingress, egress] = pair.programs.each_ref();
        let tcx = || -> io::Result<Self> {
            let ingress = syscall::link(ingress.as_fd(), ifindex, BPF_TCX_INGRESS)?;
            Ok(Self::Tcx([ingress, syscall::link(egress.as_fd(), ifindex, BPF_TCX_EGRESS)?]))
        };
        let clsact = || -> io::Result<Self> {
            let filters = Filters::attach([ingress, egress], pair.names, ifindex, mark)?;
            Ok(Self::Clsact { filters, netns: netns.clone() })
        };
        let put = || match hook {
            Hook::Tcx => tcx(),
            Hook::Clsact => clsact(),
        };
        let attached =
            if here { put() } else { netns.inside(put).map_err(|source| Error::Namespace { ifindex, source })? };
        attached.map_err(|source| Error::of_attaching(ifindex, source))
    }

    /// Whether both are still on the device; where that cannot be asked, they are taken to be.
    pub(super) fn is_there(&self) -> bool {
        match self {
            Self::Tcx(links) => {
                links.iter().all(|link| syscall::linked(link.as_fd()).is_ok_and(|(_, ifindex)| ifindex != 0))
            }
            Self::Clsact { filters, netns } => {
                netns.inside(|| filters.are_attached()).and_then(|answer| answer).unwrap_or(true)
            }
        }
    }

    /// Its links, where those are what holds the programs.
    pub(super) fn links(&self) -> Option<&[OwnedFd; 2]> {
        match self {
            Self::Tcx(links) => Some(links),
            Self::Clsact { .. } => None,
        }
    }

    /// Whether both are on this device of this namespace, and not on another's of the same number.
    pub(super) fn is_on(&self, netns: &NetNs, ifindex: u32) -> bool {
        let Self::Tcx(links) = self else { return self.is_there() };
        let hooks = [BPF_TCX_INGRESS, BPF_TCX_EGRESS];
        let on = || {
            links.iter().zip(hooks).all(|(link, hook)| {
                let id = syscall::linked(link.as_fd()).map_or(0, |(id, _)| id);
                syscall::links_on(ifindex, hook).is_ok_and(|all| all.contains(&id))
            })
        };
        netns.inside(on).unwrap_or(false)
    }

    /// Whether something was brought for them that goes with them.
    pub(super) fn brought(&self) -> bool {
        matches!(self, Self::Clsact { filters, .. } if filters.brought())
    }

    /// Puts other programs in their place, between two packets.
    pub(super) fn replace(&mut self, pair: &Pair) -> io::Result<()> {
        match self {
            Self::Tcx(links) => {
                links.iter().zip(&pair.programs).try_for_each(|(link, new)| syscall::replace(link.as_fd(), new.as_fd()))
            }
            Self::Clsact { filters, netns } => {
                netns.inside(|| filters.replace(pair.programs.each_ref(), pair.names)).and_then(|answer| answer)
            }
        }
    }

    /// Takes them off; whether they may still run for a moment. A device that is gone has let go already, which is as good.
    pub(super) fn take_off(self) -> bool {
        match self {
            // Closing the link does the same, without telling. The kernel waits for those that run.
            Self::Tcx(links) => {
                links.iter().for_each(|link| drop(syscall::unlink(link.as_fd())));
                false
            }
            Self::Clsact { filters, netns } => {
                drop(netns.inside(|| filters.detach()));
                true
            }
        }
    }
}
