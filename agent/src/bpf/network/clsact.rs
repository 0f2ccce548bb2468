//! The hooks of kernels before 6.6: filters of the clsact queueing discipline, by rtnetlink.
//!
//! Others' filters are never touched, and a clsact that others use stays. Our own are known by their name, which ends with
//! the number of the map they count to: so the next agent finds what one left, and goes on with it or takes it away.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _},
};

use super::netlink::{Message, Reply, Route};

/// Every name of a filter of ours begins with it.
const OURS: &str = "kvmeter:";
/// Where the clsact discipline hangs.
const CLSACT: u32 = 0xffff_fff1;
/// Its own handle.
const CLSACT_HANDLE: u32 = 0xffff_0000;
/// Its hooks: ingress, egress.
pub(super) const PARENTS: [u32; 2] = [0xffff_fff2, 0xffff_fff3];
/// `ETH_P_ALL`, as it stands in `tcm_info`.
const ALL_PROTOCOLS: u32 = 0x0003_u16.to_be() as u32;
/// Priorities tried, the first first: one that another kind of filter has cannot be shared.
const PRIORITIES: std::ops::RangeInclusive<u32> = 1..=32;

const NEW_QDISC: u16 = 36;
const DELETE_QDISC: u16 = 37;
const GET_QDISC: u16 = 38;
const NEW_FILTER: u16 = 44;
const DELETE_FILTER: u16 = 45;
const GET_FILTER: u16 = 46;

/// `TCA_KIND`, `TCA_OPTIONS`
const KIND: u16 = 1;
const OPTIONS: u16 = 2;
/// `TCA_BPF_FD`, `TCA_BPF_NAME`, `TCA_BPF_FLAGS`
const BPF_FD: u16 = 6;
const BPF_NAME: u16 = 7;
const BPF_FLAGS: u16 = 8;
/// `TCA_BPF_FLAG_ACT_DIRECT`: what the program returns is what is done.
const DIRECT: u32 = 1;

/// A filter that is there.
pub(super) struct Filter {
    priority: u32,
    protocol: u32,
    handle: u32,
    bpf: bool,
    ours: bool,
    /// The map that it counts to, if it is ours.
    page: Option<u32>,
}

/// Which filters are an interface's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// Given to no other interface by the same agent.
    pub handle: u32,
    /// The kernel's number of the map that they count to, which no other has as long as they do.
    pub page: u32,
}

impl Mark {
    fn is_of(self, filter: &Filter) -> bool {
        filter.ours && filter.handle == self.handle && filter.page == Some(self.page)
    }
}

/// What there is on a device of an earlier agent's.
pub(super) enum Found {
    Both(Filters),
    /// The device is there, and they are not.
    Taken,
    /// There is no such device.
    Gone,
}

/// Both filters of an interface.
#[derive(Clone, Debug)]
pub(super) struct Filters {
    ifindex: u32,
    mark: Mark,
    priorities: [u32; 2],
    /// We brought the discipline.
    brought: bool,
}

/// `struct tcmsg`
pub(super) fn message(kind: u16, flags: u16, ifindex: u32, parent: u32, handle: u32, info: u32) -> Message {
    let mut message = Message::new(kind, flags);
    message.word(0);
    for word in [ifindex, handle, parent, info] {
        message.word(word);
    }
    message
}

impl Filters {
    /// Puts both programs on a device in the calling thread's network namespace.
    pub(super) fn attach(programs: [impl AsFd; 2], names: [&str; 2], ifindex: u32, mark: Mark) -> io::Result<Self> {
        let mut route = Route::open()?;
        let mut qdisc = message(NEW_QDISC, Message::CREATE, ifindex, CLSACT, CLSACT_HANDLE, 0);
        qdisc.text(KIND, b"clsact");
        let brought = match route.ask(&qdisc) {
            Ok(()) => true,
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => false,
            Err(error) => return Err(error),
        };
        // The older kind has one hook and takes a filter for the other for it, too.
        if !brought && !is_clsact(&mut route, ifindex)? {
            return Err(io::Error::from_raw_os_error(libc::EEXIST));
        }
        let mut filters = Self { ifindex, mark, priorities: [0; 2], brought };
        for hook in 0..PARENTS.len() {
            if let Err(error) = filters.put(&mut route, hook, &programs[hook], names[hook], None) {
                // What is on already goes with the rest.
                let _ = filters.detach_with(&mut route);
                return Err(error);
            }
        }
        Ok(filters)
    }

    fn put(
        &mut self,
        route: &mut Route,
        hook: usize,
        program: &impl AsFd,
        name: &str,
        replaced: Option<u32>,
    ) -> io::Result<()> {
        let there = list(route, self.ifindex, PARENTS[hook])?;
        let left = there.iter().filter(|filter| filter.ours && replaced.is_none());
        for filter in left {
            let info = filter.priority << 16 | filter.protocol;
            route.ask(&message(DELETE_FILTER, 0, self.ifindex, PARENTS[hook], filter.handle, info))?;
        }
        let open = |priority: &u32| {
            there
                .iter()
                .filter(|filter| filter.priority == *priority && !filter.ours)
                .all(|filter| filter.bpf && filter.protocol == ALL_PROTOCOLS && filter.handle != self.mark.handle)
        };
        let priority = match replaced {
            Some(priority) => priority,
            None => PRIORITIES.into_iter().find(open).ok_or_else(|| io::Error::from(io::ErrorKind::StorageFull))?,
        };
        let flags = if replaced.is_some() { Message::REPLACE } else { Message::CREATE };
        let info = priority << 16 | ALL_PROTOCOLS;
        let mut filter = message(NEW_FILTER, flags, self.ifindex, PARENTS[hook], self.mark.handle, info);
        let name = format!("{OURS}{name}:{}", self.mark.page);
        filter.text(KIND, b"bpf");
        filter.nest(OPTIONS, |options| {
            options.number(BPF_FD, program.as_fd().as_raw_fd().cast_unsigned());
            options.text(BPF_NAME, name.as_bytes());
            options.number(BPF_FLAGS, DIRECT);
        });
        route.ask(&filter)?;
        self.priorities[hook] = priority;
        Ok(())
    }

    /// Puts other programs in their place, between two packets.
    pub(super) fn replace(&mut self, programs: [impl AsFd; 2], names: [&str; 2]) -> io::Result<()> {
        let mut route = Route::open()?;
        for hook in 0..PARENTS.len() {
            let priority = self.priorities[hook];
            self.put(&mut route, hook, &programs[hook], names[hook], Some(priority))?;
        }
        Ok(())
    }

    /// What an earlier agent left on a device in the calling thread's network namespace.
    pub(super) fn find(ifindex: u32, mark: Mark, brought: bool) -> io::Result<Found> {
        let mut route = Route::open()?;
        let mut priorities = [0; 2];
        for (parent, priority) in PARENTS.into_iter().zip(&mut priorities) {
            let there = match list(&mut route, ifindex, parent) {
                // The device or its discipline is gone.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::EINVAL)) => Vec::new(),
                there => there?,
            };
            let Some(filter) = there.iter().find(|filter| mark.is_of(filter)) else {
                // A list of filters is empty where there is no device; the discipline's own question is refused.
                let refused = is_clsact(&mut route, ifindex).err().and_then(|error| error.raw_os_error());
                return Ok(if refused == Some(libc::ENODEV) { Found::Gone } else { Found::Taken });
            };
            *priority = filter.priority;
        }
        Ok(Found::Both(Self { ifindex, mark, priorities, brought }))
    }

    /// Whether both are still on the device.
    pub(super) fn are_attached(&self) -> io::Result<bool> {
        Ok(matches!(Self::find(self.ifindex, self.mark, self.brought)?, Found::Both(_)))
    }

    /// Whether the discipline came with them, and goes with them.
    pub(super) fn brought(&self) -> bool {
        self.brought
    }

    /// Takes both off, and the discipline if we brought it and nobody uses it.
    pub(super) fn detach(&self) -> io::Result<()> {
        self.detach_with(&mut Route::open()?)
    }

    fn detach_with(&self, route: &mut Route) -> io::Result<()> {
        let mut used = false;
        for parent in PARENTS {
            for filter in list(route, self.ifindex, parent)? {
                if self.mark.is_of(&filter) {
                    let info = filter.priority << 16 | filter.protocol;
                    route.ask(&message(DELETE_FILTER, 0, self.ifindex, parent, filter.handle, info))?;
                } else {
                    used = true;
                }
            }
        }
        if self.brought && !used {
            route.ask(&message(DELETE_QDISC, 0, self.ifindex, CLSACT, CLSACT_HANDLE, 0))?;
        }
        Ok(())
    }
}

/// Takes away what an agent that was killed left in the calling thread's network namespace: filters by our name, nothing
/// else, and none of these. A discipline stays, because nobody knows who brought it. Returns how many filters that were.
pub(super) fn sweep(kept: &[Mark]) -> io::Result<u32> {
    let mut route = Route::open()?;
    let disciplines = route.dump(&message(GET_QDISC, Message::DUMP, 0, 0, 0, 0))?;
    let has_hooks = |reply: &&Reply| reply.attributes(20).get(KIND).is_some_and(|kind| kind.starts_with(b"clsact\0"));
    let mut swept = 0;
    for ifindex in disciplines.iter().filter(has_hooks).filter_map(|reply| reply.word(4)) {
        for parent in PARENTS {
            // A device may go meanwhile.
            let filters = list(&mut route, ifindex, parent).unwrap_or_default();
            let is_kept = |filter: &&Filter| kept.iter().any(|mark| mark.is_of(filter));
            for filter in filters.iter().filter(|filter| filter.ours && !is_kept(filter)) {
                let info = filter.priority << 16 | filter.protocol;
                let done = route.ask(&message(DELETE_FILTER, 0, ifindex, parent, filter.handle, info));
                swept += u32::from(done.is_ok());
            }
        }
    }
    Ok(swept)
}

pub(super) fn is_clsact(route: &mut Route, ifindex: u32) -> io::Result<bool> {
    let replies = route.dump(&message(GET_QDISC, Message::ECHO, ifindex, CLSACT, 0, 0))?;
    Ok(replies.iter().any(|reply| reply.attributes(20).get(KIND).is_some_and(|kind| kind.starts_with(b"clsact\0"))))
}

/// Puts a program on the ingress hook as somebody else would.
#[cfg(test)]
pub(super) fn put_foreign(ifindex: u32, program: impl AsFd) -> io::Result<()> {
    let mut route = Route::open()?;
    let mut qdisc = message(NEW_QDISC, Message::CREATE, ifindex, CLSACT, CLSACT_HANDLE, 0);
    qdisc.text(KIND, b"clsact");
    route.ask(&qdisc)?;
    put_foreign_filter(ifindex, program)
}

/// The same, where clsact is there.
#[cfg(test)]
pub(super) fn put_foreign_filter(ifindex: u32, program: impl AsFd) -> io::Result<()> {
    let mut route = Route::open()?;
    let mut filter = message(NEW_FILTER, Message::CREATE, ifindex, PARENTS[0], 77, 1 << 16 | ALL_PROTOCOLS);
    filter.text(KIND, b"bpf");
    filter.nest(OPTIONS, |options| {
        options.number(BPF_FD, program.as_fd().as_raw_fd().cast_unsigned());
        options.text(BPF_NAME, b"somebody-else");
        options.number(BPF_FLAGS, DIRECT);
    });
    route.ask(&filter)
}

/// The filters of a hook. Chains other than the first are others'.
pub(super) fn list(route: &mut Route, ifindex: u32, parent: u32) -> io::Result<Vec<Filter>> {
    let replies = route.dump(&message(GET_FILTER, Message::DUMP, ifindex, parent, 0, 0))?;
    Ok(replies.iter().filter_map(parse).filter(|filter| filter.handle != 0).collect())
}

fn parse(reply: &Reply) -> Option<Filter> {
    if reply.kind != NEW_FILTER {
        return None;
    }
    let handle = reply.word(8)?;
    let info = reply.word(16)?;
    let attributes = reply.attributes(20);
    let bpf = attributes.get(KIND).is_some_and(|kind| kind.starts_with(b"bpf\0"));
    let name = attributes.nested(OPTIONS).and_then(|options| options.get(BPF_NAME).map(<[u8]>::to_vec));
    let name = name.and_then(|name| String::from_utf8(name).ok()).filter(|_| bpf);
    let name = name.as_deref().map(|name| name.trim_end_matches('\0')).and_then(|name| name.strip_prefix(OURS));
    let page = name.and_then(|name| name.rsplit_once(':')).and_then(|(_, page)| page.parse().ok());
    Some(Filter { priority: info >> 16, protocol: info & 0xffff, handle, bpf, ours: name.is_some(), page })
}
