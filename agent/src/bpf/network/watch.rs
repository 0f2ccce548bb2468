//! Who opens taps: a socket a namespace on announcements of links, whose filter takes in none and notes whose doing each
//! is (`agent-ebpf`, `network/watch`).

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
};

use aya_obj::generated::{bpf_map_type, bpf_prog_type::BPF_PROG_TYPE_SOCKET_FILTER};
use nix::sys::socket::{AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, socket};

use super::{
    PORTS,
    socket::{cookie, put_filter},
    syscall,
    syscall::MapShape,
    template::Templates,
    writer::Writer,
};
use crate::host::{NetNs, NetNsId};

/// RTNLGRP_LINK as a bit.
const GROUP_LINK: u32 = 1;

/// One namespace.
struct Watch {
    /// Closing it takes the filter away.
    _socket: OwnedFd,
    cookie: u64,
    number: u32,
    interfaces: usize,
}

/// All of them.
pub(super) struct Watches {
    openers: OwnedFd,
    listeners: OwnedFd,
    /// One for all sockets, once it is loaded.
    filter: Option<OwnedFd>,
    spaces: BTreeMap<NetNsId, Watch>,
    last: u32,
}

impl Watches {
    /// `map` gives the map of openers.
    pub(super) fn new(map: impl FnOnce(&MapShape<'_>) -> io::Result<OwnedFd>) -> io::Result<Self> {
        let shape = |name, value_bytes| MapShape {
            name,
            kind: bpf_map_type::BPF_MAP_TYPE_HASH,
            key_bytes: 8,
            value_bytes,
            entries: u32::try_from(PORTS).unwrap_or(u32::MAX),
            // `BPF_F_NO_PREALLOC`
            flags: 1,
            inner: None,
        };
        let openers = map(&shape("NETWORK_OPENERS", 8))?;
        let listeners = syscall::create_map(&shape("LINK_LISTENERS", 4))?;
        Ok(Self { openers, listeners, filter: None, spaces: BTreeMap::new(), last: 0 })
    }

    /// Openings were noted here by an earlier agent: its number of the namespace is not given to another.
    pub(super) fn left(&mut self, key: u64) {
        self.last = self.last.max(number_of(key));
    }

    pub(super) fn openers(&self) -> BorrowedFd<'_> {
        self.openers.as_fd()
    }

    /// Loads the filter, if the kernel takes it; before the first interface.
    pub(super) fn load(&mut self, templates: &Templates, writer: Writer) -> io::Result<()> {
        const NAME: &str = "link_watch";
        if self.filter.is_none() {
            let (listeners, openers) = (self.listeners.as_fd(), self.openers.as_fd());
            let code = templates.filter(NAME, listeners, openers, writer).map_err(io::Error::other)?;
            self.filter = Some(syscall::load(BPF_PROG_TYPE_SOCKET_FILTER, NAME, &code, None)?);
        }
        Ok(())
    }

    /// Notes who opens an interface; where that is found, for [`Watches::forget`] too.
    pub(super) fn add(&mut self, netns: &NetNs, ifindex: u32) -> io::Result<u64> {
        if !self.spaces.contains_key(&netns.id()) {
            let number = self.last.checked_add(1).ok_or_else(|| io::Error::other("too many network namespaces"))?;
            self.last = number;
            self.listen(netns, number)?;
        }
        let Some(watch) = self.spaces.get_mut(&netns.id()) else { return Err(io::ErrorKind::NotFound.into()) };
        let key = u64::from(watch.number) << 32 | u64::from(ifindex);
        let added = syscall::insert(&self.openers, &key, &0_u64, 0);
        watch.interfaces += usize::from(added.is_ok());
        self.leave(netns.id());
        added.map(|()| key)
    }

    /// Goes on with what an earlier agent noted, under the same number of the namespace where that can be; where it is
    /// found from now on.
    pub(super) fn again(&mut self, netns: &NetNs, (ifindex, key): (u32, u64)) -> io::Result<u64> {
        /// `BPF_NOEXIST`
        const NEW: u64 = 1;
        if key != 0 && !self.spaces.contains_key(&netns.id()) {
            self.listen(netns, number_of(key))?;
        }
        match self.spaces.get_mut(&netns.id()).filter(|watch| key != 0 && watch.number == number_of(key)) {
            Some(watch) => {
                watch.interfaces += 1;
                // What is there says who opened it last.
                match syscall::insert(&self.openers, &key, &0_u64, NEW) {
                    Err(error) if error.raw_os_error() != Some(libc::EEXIST) => Err(error),
                    _there => Ok(key),
                }
            }
            None => self.add(netns, ifindex),
        }
    }

    fn listen(&mut self, netns: &NetNs, number: u32) -> io::Result<()> {
        let filter = self.filter.as_ref().ok_or_else(|| io::Error::other("the filter was not loaded"))?;
        let open = || {
            let kind = (SockType::Raw, SockFlag::SOCK_CLOEXEC);
            socket(AddressFamily::Netlink, kind.0, kind.1, SockProtocol::NetlinkRoute).map_err(io::Error::from)
        };
        let listener = netns.inside(open)??;
        let cookie = cookie(&listener)?;
        put_filter(&listener, filter.as_fd())?;
        syscall::insert(&self.listeners, &cookie, &number, 0)?;
        if let Err(error) = bind(listener.as_raw_fd(), &NetlinkAddr::new(0, GROUP_LINK)) {
            let _ = syscall::remove(&self.listeners, &cookie);
            return Err(error.into());
        }
        self.spaces.insert(netns.id(), Watch { _socket: listener, cookie, number, interfaces: 0 });
        Ok(())
    }

    /// An interface is counted no more; without a namespace, it is one that was left, and is in none that is listened in.
    pub(super) fn forget(&mut self, netns: Option<NetNsId>, key: u64) {
        // One that was never there is as good.
        let _ = syscall::remove(&self.openers, &key);
        let Some(netns) = netns else { return };
        if let Some(watch) = self.spaces.get_mut(&netns) {
            watch.interfaces = watch.interfaces.saturating_sub(1);
            self.leave(netns);
        }
    }

    /// Listens no more in a namespace without interfaces.
    fn leave(&mut self, netns: NetNsId) {
        if self.spaces.get(&netns).is_some_and(|watch| watch.interfaces == 0)
            && let Some(gone) = self.spaces.remove(&netns)
        {
            // One that was never there is as good.
            let _ = syscall::remove(&self.listeners, &gone.cookie);
        }
    }
}

/// The namespace's part of a place among the openers.
fn number_of(key: u64) -> u32 {
    u32::try_from(key >> 32).unwrap_or(u32::MAX)
}
