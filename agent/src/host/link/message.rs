//! rtnetlink on the wire (rtnetlink(7), `include/uapi/linux/{netlink,rtnetlink,if_link}.h`): built and read, no I/O.
//!
//! Every length comes from outside and is checked; a message that does not fit is `None`.

use super::{Link, LinkChange, LinkStats, Queue};
use crate::account::network::InterfaceKind;

/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Length of `struct ifinfomsg`.
const INFO: usize = 16;
/// Length of `struct tcmsg`.
const QUEUE: usize = 20;
/// `TC_H_ROOT`: the discipline that stands at the device itself; its numbers have in them those of all below.
const ROOT: u32 = u32::MAX;
/// Length of `struct if_stats_msg`.
const STATS: usize = 12;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWQDISC: u16 = 36;
const RTM_GETQDISC: u16 = 38;
const RTM_NEWSTATS: u16 = 92;
const RTM_GETSTATS: u16 = 94;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
/// A dump that ran beside a change and may lack something.
const NLM_F_DUMP_INTR: u16 = 0x10;

const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_STATS64: u16 = 23;
const IFLA_CARRIER: u16 = 33;
const IFLA_CARRIER_CHANGES: u16 = 35;
const IFLA_NEW_NETNSID: u16 = 45;
const IFLA_CARRIER_UP_COUNT: u16 = 47;
const TCA_STATS2: u16 = 7;
const TCA_STATS_QUEUE: u16 = 3;
/// In RTM_NEWSTATS, the attributes have numbers of their own.
const IFLA_STATS_LINK_64: u16 = 1;
/// The bits above are flags (NLA_F_NESTED, NLA_F_NET_BYTEORDER).
const TYPE_MASK: u16 = 0x3fff;

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ask<'a> {
    /// All links.
    Links,
    /// One link.
    Named(&'a str),
    /// One link.
    Indexed(u32),
    /// The counters of all links.
    Stats,
    /// The queueing disciplines of all links.
    Queues,
}

/// One message of an answer or an announcement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    Link(LinkChange),
    Stats(u32, LinkStats),
    Queue(u32, Queue),
    /// The end of a dump, or the acknowledgement of a request: 0, or a negative errno.
    End(i32),
    Other,
}

/// A message and what its header says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) sequence: u32,
    /// The dump it belongs to was disturbed.
    pub(super) interrupted: bool,
    pub(super) message: Message,
}

/// The bytes of a request.
pub(super) fn request(ask: Ask<'_>, sequence: u32) -> Vec<u8> {
    let (kind, flags) = match ask {
        Ask::Links => (RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP),
        Ask::Named(_) | Ask::Indexed(_) => (RTM_GETLINK, NLM_F_REQUEST),
        Ask::Stats => (RTM_GETSTATS, NLM_F_REQUEST | NLM_F_DUMP),
        Ask::Queues => (RTM_GETQDISC, NLM_F_REQUEST | NLM_F_DUMP),
    };
    let mut body = Vec::new();
    if matches!(ask, Ask::Stats) {
        body.resize(8, 0);
        // `filter_mask`: a bit per attribute, the first is number 1.
        body.extend(1_u32.to_ne_bytes());
    } else {
        body.resize(if matches!(ask, Ask::Queues) { QUEUE } else { INFO }, 0);
    }
    match ask {
        Ask::Indexed(ifindex) => body[4..8].copy_from_slice(&ifindex.to_ne_bytes()),
        Ask::Named(name) => attribute(&mut body, IFLA_IFNAME, name.as_bytes()),
        Ask::Links | Ask::Stats | Ask::Queues => {}
    }
    let mut message = Vec::with_capacity(HEADER + body.len());
    message.extend(u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    message.extend(0_u32.to_ne_bytes());
    message.extend(body);
    message
}

/// A text attribute, with its NUL and padding; `text` is an interface name, 15 bytes at most.
fn attribute(body: &mut Vec<u8>, kind: u16, text: &[u8]) {
    let length = 4 + text.len() + 1;
    body.extend(u16::try_from(length).unwrap_or(u16::MAX).to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(text);
    body.resize(body.len() + 1 + (4 - length % 4) % 4, 0);
}

/// The messages of one datagram; what does not fit ends the reading.
pub(super) fn parts(mut data: &[u8]) -> Vec<Part> {
    let mut found = Vec::new();
    while let Some(length) = u32_at(data, 0).and_then(|length| usize::try_from(length).ok()) {
        let Some(body) = data.get(HEADER..length) else { break };
        let (kind, flags) = (u16_at(data, 4).unwrap_or(0), u16_at(data, 6).unwrap_or(0));
        found.push(Part {
            sequence: u32_at(data, 8).unwrap_or(0),
            interrupted: flags & NLM_F_DUMP_INTR != 0,
            message: read(kind, body).unwrap_or(Message::Other),
        });
        data = data.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

fn read(kind: u16, body: &[u8]) -> Option<Message> {
    match kind {
        RTM_NEWLINK => Some(Message::Link(LinkChange::New(link(body)?))),
        RTM_DELLINK => {
            let moved = attributes(body.get(INFO..)?).any(|(kind, _)| kind == IFLA_NEW_NETNSID);
            Some(Message::Link(LinkChange::Gone { link: link(body)?, moved }))
        }
        RTM_NEWSTATS => {
            let mut all = attributes(body.get(STATS..)?);
            let (_, value) = all.find(|(kind, _)| *kind == IFLA_STATS_LINK_64)?;
            Some(Message::Stats(u32_at(body, 4)?, stats(value)?))
        }
        RTM_NEWQDISC => {
            let (ifindex, handle, parent) = (u32_at(body, 4)?, u32_at(body, 8)?, u32_at(body, 12)?);
            let (_, stats) = attributes(body.get(QUEUE..)?).find(|(kind, _)| *kind == TCA_STATS2)?;
            let (_, queue) = attributes(stats).find(|(kind, _)| *kind == TCA_STATS_QUEUE)?;
            let queue = Queue { handle, drops: u32_at(queue, 8)? };
            (parent == ROOT).then_some(Message::Queue(ifindex, queue))
        }
        NLMSG_ERROR | NLMSG_DONE => Some(Message::End(i32::from_ne_bytes(array(body, 0).unwrap_or_default()))),
        _ => None,
    }
}

fn link(body: &[u8]) -> Option<Link> {
    let mut link = Link {
        ifindex: u32_at(body, 4)?,
        name: String::new(),
        kind: None,
        carrier: false,
        carrier_ups: None,
        carrier_changes: None,
        stats: None,
    };
    // AF_UNSPEC: the bridge announces its ports in the same group, in its own family and without what we need.
    if *body.first()? != 0 {
        return None;
    }
    for (kind, value) in attributes(body.get(INFO..)?) {
        match kind {
            IFLA_IFNAME => link.name = text(value),
            IFLA_LINKINFO => {
                let mut all = attributes(value);
                link.kind = all.find(|(kind, _)| *kind == IFLA_INFO_KIND).and_then(|(_, kind)| role(&text(kind)));
            }
            IFLA_STATS64 => link.stats = stats(value),
            IFLA_CARRIER => link.carrier = value.first() == Some(&1),
            IFLA_CARRIER_CHANGES => link.carrier_changes = u32_at(value, 0),
            IFLA_CARRIER_UP_COUNT => link.carrier_ups = u32_at(value, 0),
            _ => {}
        }
    }
    Some(link)
}

/// The kinds by the names of their `rtnl_link_ops`.
fn role(kind: &str) -> Option<InterfaceKind> {
    match kind {
        "tun" => Some(InterfaceKind::Tap),
        "macvtap" | "ipvtap" => Some(InterfaceKind::Macvtap),
        _ => None,
    }
}

/// `struct rtnl_link_stats64` begins with these eight.
fn stats(value: &[u8]) -> Option<LinkStats> {
    let at = |place: usize| array(value, place * 8).map(u64::from_ne_bytes);
    Some(LinkStats {
        rx_packets: at(0)?,
        tx_packets: at(1)?,
        rx_bytes: at(2)?,
        tx_bytes: at(3)?,
        rx_dropped: at(6)?,
        tx_dropped: at(7)?,
    })
}

fn attributes(mut data: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(data, 0)?);
        let kind = u16_at(data, 2)? & TYPE_MASK;
        let value = data.get(4..length)?;
        data = data.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

fn u16_at(data: &[u8], at: usize) -> Option<u16> {
    array(data, at).map(u16::from_ne_bytes)
}

fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    array(data, at).map(u32::from_ne_bytes)
}

fn array<const N: usize>(data: &[u8], at: usize) -> Option<[u8; N]> {
    data.get(at..at.checked_add(N)?)?.try_into().ok()
}
