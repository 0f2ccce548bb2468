//! The network namespaces that are listened in.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io,
    os::fd::{AsFd, BorrowedFd},
};

use crate::host::{
    NetNs, NetNsId,
    link::{Link, LinkChange, LinkOutcome, LinkRequests, LinkSocket, LinkStats, Queue},
};

/// Namespaces at a time: jailed VMs have one each.
const MAX_SPACES: usize = 16_384;
/// Datagrams of one namespace that are read in a turn, so that a storm in one cannot hold the others.
const MAX_READS: usize = 4_096;
/// From a socket that fails to the first try with another; each further one waits twice as long.
const REOPEN_NS: u64 = 1_000_000_000;
/// The longest such wait.
const REOPEN_MOST_NS: u64 = 64_000_000_000;

struct Space {
    netns: NetNs,
    socket: Listening,
    requests: LinkRequests,
    /// The wait before the next try with another socket.
    patience_ns: u64,
}

enum Listening {
    To(LinkSocket),
    /// The socket failed, and one that fails is always ready to be read: another is tried then.
    Again {
        at_ns: u64,
    },
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
    /// The socket failed, or another could not be had.
    pub(super) failure: Option<io::Error>,
}

impl Space {
    /// What waits here.
    fn news(&mut self, now_ns: u64) -> News {
        let mut news = News { netns: self.netns.id(), changes: Vec::new(), overflow: false, failure: None };
        if let Listening::Again { at_ns } = self.socket {
            if now_ns < at_ns {
                return news;
            }
            match LinkSocket::open(&self.netns) {
                Ok(socket) => {
                    self.socket = Listening::To(socket);
                    // Nobody heard what was announced meanwhile.
                    news.overflow = true;
                }
                Err(error) => self.fail(&mut news, error, now_ns),
            }
        }
        for _ in 0..MAX_READS {
            let Listening::To(socket) = &self.socket else { break };
            match socket.recv() {
                Ok(LinkOutcome::Changes(changes)) => {
                    news.changes.extend(changes);
                    self.patience_ns = REOPEN_NS;
                }
                Ok(LinkOutcome::Overflow) => news.overflow = true,
                Ok(LinkOutcome::Empty) => break,
                Err(error) => self.fail(&mut news, error, now_ns),
            }
        }
        news
    }

    fn fail(&mut self, news: &mut News, error: io::Error, now_ns: u64) {
        self.socket = Listening::Again { at_ns: now_ns.saturating_add(self.patience_ns) };
        self.patience_ns = self.patience_ns.saturating_mul(2).min(REOPEN_MOST_NS);
        news.failure = Some(error);
    }
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
        let (socket, requests) = (Listening::To(LinkSocket::open(netns)?), LinkRequests::open(netns)?);
        self.all.insert(netns.id(), Space { netns: netns.clone(), socket, requests, patience_ns: REOPEN_NS });
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
    pub(super) fn news(&mut self, now_ns: u64) -> Vec<News> {
        let all = self.all.values_mut().map(|space| space.news(now_ns));
        all.filter(|news| news.overflow || news.failure.is_some() || !news.changes.is_empty()).collect()
    }

    pub(super) fn get(&self, id: NetNsId) -> Option<&NetNs> {
        self.all.get(&id).map(|space| &space.netns)
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.all.values().filter_map(|space| match &space.socket {
            Listening::To(socket) => Some(socket.as_fd()),
            Listening::Again { .. } => None,
        })
    }

    /// When [`Spaces::news`] is to be asked though no socket says so.
    pub(super) fn due_ns(&self) -> Option<u64> {
        let again = |space: &Space| match space.socket {
            Listening::To(_) => None,
            Listening::Again { at_ns } => Some(at_ns),
        };
        self.all.values().filter_map(again).min()
    }

    /// All links of a namespace.
    pub(super) fn links(&mut self, id: NetNsId) -> io::Result<Vec<Link>> {
        self.all.get_mut(&id).map_or_else(|| Ok(Vec::new()), |space| space.requests.links())
    }

    /// The counters of all links of a namespace.
    pub(super) fn stats(&mut self, id: NetNsId) -> io::Result<HashMap<u32, LinkStats>> {
        self.all.get_mut(&id).map_or_else(|| Ok(HashMap::new()), |space| space.requests.stats())
    }

    /// The queueing disciplines of all links of a namespace.
    pub(super) fn queues(&mut self, id: NetNsId) -> io::Result<HashMap<u32, Queue>> {
        self.all.get_mut(&id).map_or_else(|| Ok(HashMap::new()), |space| space.requests.queues())
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

#[cfg(test)]
mod tests;
