//! The network namespaces that are listened in.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io,
    os::fd::{AsFd, BorrowedFd},
};

use crate::host::{
    NetNs, NetNsId,
    link::{Link, LinkChange, LinkOutcome, LinkRequests, LinkSocket, LinkStats},
};

/// Namespaces at a time: jailed VMs have one each.
const MAX_SPACES: usize = 16_384;
/// Datagrams of one namespace that are read in a turn, so that a storm in one cannot hold the others.
const MAX_READS: usize = 4_096;

struct Space {
    netns: NetNs,
    socket: LinkSocket,
    requests: LinkRequests,
}

/// All of them.
#[derive(Default)]
pub(super) struct Spaces {
    all: BTreeMap<NetNsId, Space>,
}

/// What was announced in one namespace.
pub(super) struct News {
    pub(super) netns: NetNsId,
    pub(super) changes: Vec<LinkChange>,
    /// Something was lost.
    pub(super) overflow: bool,
}

impl Spaces {
    /// Listens there from now on; true if it is new, so that what exists is yet to be listed.
    pub(super) fn watch(&mut self, netns: &NetNs) -> io::Result<bool> {
        if self.all.contains_key(&netns.id()) {
            return Ok(false);
        }
        if self.all.len() >= MAX_SPACES {
            return Err(io::Error::other("too many network namespaces"));
        }
        let (socket, requests) = (LinkSocket::open(netns)?, LinkRequests::open(netns)?);
        self.all.insert(netns.id(), Space { netns: netns.clone(), socket, requests });
        Ok(true)
    }

    /// Which they are.
    pub(super) fn ids(&self) -> impl Iterator<Item = NetNsId> {
        self.all.keys().copied()
    }

    /// Listens there no more, and no longer keeps it.
    pub(super) fn drop(&mut self, id: NetNsId) {
        self.all.remove(&id);
    }

    /// Everything that waits.
    pub(super) fn news(&mut self) -> Vec<News> {
        let read = |(id, space): (&NetNsId, &mut Space)| {
            let mut news = News { netns: *id, changes: Vec::new(), overflow: false };
            for _ in 0..MAX_READS {
                match space.socket.recv() {
                    Ok(LinkOutcome::Changes(changes)) => news.changes.extend(changes),
                    Ok(LinkOutcome::Overflow) => news.overflow = true,
                    Ok(LinkOutcome::Empty) | Err(_) => break,
                }
            }
            (news.overflow || !news.changes.is_empty()).then_some(news)
        };
        self.all.iter_mut().filter_map(read).collect()
    }

    pub(super) fn get(&self, id: NetNsId) -> Option<&NetNs> {
        self.all.get(&id).map(|space| &space.netns)
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.all.values().map(|space| space.socket.as_fd())
    }

    /// All links of a namespace.
    pub(super) fn links(&mut self, id: NetNsId) -> io::Result<Vec<Link>> {
        self.all.get_mut(&id).map_or_else(|| Ok(Vec::new()), |space| space.requests.links())
    }

    /// The counters of all links of a namespace.
    pub(super) fn stats(&mut self, id: NetNsId) -> io::Result<HashMap<u32, LinkStats>> {
        self.all.get_mut(&id).map_or_else(|| Ok(HashMap::new()), |space| space.requests.stats())
    }

    /// One link, by index if that is known, else by name.
    pub(super) fn link(&mut self, id: NetNsId, name: &str, ifindex: Option<u32>) -> io::Result<Option<Link>> {
        let Some(space) = self.all.get_mut(&id) else { return Ok(None) };
        match ifindex {
            Some(ifindex) => space.requests.indexed(ifindex),
            None => space.requests.named(name),
        }
    }
}

/// Links whose existence or name an announcement was about.
pub(super) type Touched = HashSet<(NetNsId, u32)>;
