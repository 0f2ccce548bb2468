//! An interface, whatever it is: made, found, changed, deleted; and what the kernel counted on it (`RTM_GETSTATS`).

use std::os::fd::{AsFd as _, AsRawFd as _};

use anyhow::{Context as _, Result};

use super::netns::Namespace;
use super::rtnetlink::{self, Body, CREATE, DELETE_LINK, GET_LINK, GET_STATS, NEW_LINK};

const IFF_UP: u32 = 1;
const IFF_ALLMULTI: u32 = 0x200;
const ADDRESS: u16 = 1;
const NAME: u16 = 3;
const MTU: u16 = 4;
const LOWER: u16 = 5;
const QUEUE_LENGTH: u16 = 13;
const OPERATIONAL_STATE: u16 = 16;
/// `IF_OPER_UP`
const OPERATIONAL: u8 = 6;
const LINKINFO: u16 = 18;
const NETNS_FD: u16 = 28;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const VETH_PEER: u16 = 1;
const MACVLAN_MODE: u16 = 1;
/// Those above one device hear each other.
const MACVLAN_BRIDGE: u32 = 4;
/// `IFLA_STATS_LINK_64`: the attribute's kind, and its bit in the filter.
const STATS_LINK_64: u16 = 1;
const LINK_HEADER: usize = 16;
const STATS_HEADER: usize = 12;

/// What the kernel counted on an interface since it was made: the first words of `struct rtnl_link_stats64`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Frames that the interface brought into the host.
    pub rx_packets: u64,
    /// Frames that the host sent through it.
    pub tx_packets: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Frames that were bad.
    pub rx_errors: u64,
    /// Frames that could not be sent.
    pub tx_errors: u64,
    /// Frames that the host dropped on their way in, some of which are in `rx_packets` too.
    pub rx_dropped: u64,
    /// Frames that were dropped on their way out.
    pub tx_dropped: u64,
    /// Multicast frames in.
    pub multicast: u64,
}

impl LinkStats {
    /// What came since an earlier reading.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            rx_packets: self.rx_packets - earlier.rx_packets,
            tx_packets: self.tx_packets - earlier.tx_packets,
            rx_bytes: self.rx_bytes - earlier.rx_bytes,
            tx_bytes: self.tx_bytes - earlier.tx_bytes,
            rx_errors: self.rx_errors - earlier.rx_errors,
            tx_errors: self.tx_errors - earlier.tx_errors,
            rx_dropped: self.rx_dropped - earlier.rx_dropped,
            tx_dropped: self.tx_dropped - earlier.tx_dropped,
            multicast: self.multicast - earlier.multicast,
        }
    }
}

/// One interface, by its namespace and index there.
#[derive(Debug, Clone)]
pub struct Link {
    namespace: Namespace,
    index: u32,
}

impl Link {
    /// The interface of this name.
    pub fn find(namespace: &Namespace, name: &str) -> Result<Self> {
        let wish = Body::link(0, 0, 0).with_text(NAME, name);
        let answer = namespace
            .inside(|| Ok(rtnetlink::ask(GET_LINK, 0, &wish)?))
            .with_context(|| format!("no interface {name}"))?;
        let index = rtnetlink::u32_at(&answer, 4).context("an answer without an index")?;
        Ok(Self { namespace: namespace.clone(), index })
    }

    /// A new pair of interfaces; what enters one leaves the other.
    pub fn veth(namespace: &Namespace, name: &str, peer: &str) -> Result<(Self, Self)> {
        let inner = Body::link(0, 0, 0).with_text(NAME, peer);
        let data = Body::default().with_nested(VETH_PEER, &inner);
        make(namespace, name, "veth", Body::link(0, 0, 0), &data)?;
        Ok((Self::find(namespace, name)?, Self::find(namespace, peer)?))
    }

    /// A new macvtap (mode bridge) above this interface, in the same namespace.
    pub fn macvtap(&self, name: &str) -> Result<Self> {
        let above = Body::link(0, 0, 0).with(LOWER, &self.index.to_ne_bytes());
        let data = Body::default().with(MACVLAN_MODE, &MACVLAN_BRIDGE.to_ne_bytes());
        make(&self.namespace, name, "macvtap", above, &data)?;
        Self::find(&self.namespace, name)
    }

    /// Its index in its namespace.
    #[must_use]
    pub const fn index(&self) -> u32 {
        self.index
    }

    /// Where it is.
    #[must_use]
    pub const fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Its name now.
    pub fn name(&self) -> Result<String> {
        let name = self.attribute(NAME)?;
        Ok(String::from_utf8(name)?.trim_end_matches('\0').to_owned())
    }

    /// Its Ethernet address.
    pub fn address(&self) -> Result<[u8; 6]> {
        self.attribute(ADDRESS)?.try_into().ok().context("not an Ethernet address")
    }

    /// Sets it up, and silent: without IPv6 the kernel sends nothing through it by itself.
    pub fn set_up(&self) -> Result<()> {
        let name = self.name()?;
        self.namespace.inside(|| {
            let switch = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
            match std::fs::write(&switch, "1") {
                // A kernel without IPv6.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                other => other.with_context(|| format!("cannot write {switch}")),
            }
        })?;
        self.change(&Body::link(self.index, IFF_UP, IFF_UP), "set up")
    }

    /// Sets it down.
    pub fn set_down(&self) -> Result<()> {
        self.change(&Body::link(self.index, 0, IFF_UP), "set down")
    }

    /// Lets it hear every multicast frame; a macvtap drops those of groups that nobody joined.
    pub fn hear_all_multicast(&self) -> Result<()> {
        self.change(&Body::link(self.index, IFF_ALLMULTI, IFF_ALLMULTI), "set IFF_ALLMULTI of")
    }

    /// Sets the largest packet, in bytes without the Ethernet header.
    pub fn set_mtu(&self, bytes: u32) -> Result<()> {
        self.change(&self.body().with(MTU, &bytes.to_ne_bytes()), "set the MTU")
    }

    /// Sets how many frames may wait for the guest (`txqueuelen`), in each queue of a tap from now on.
    pub fn set_queue_length(&self, frames: u32) -> Result<()> {
        self.change(&self.body().with(QUEUE_LENGTH, &frames.to_ne_bytes()), "set the queue length of")
    }

    /// Sets the Ethernet address; a macvtap's guest is reached by it.
    pub fn set_address(&self, address: [u8; 6]) -> Result<()> {
        self.change(&self.body().with(ADDRESS, &address), "set the address")
    }

    /// Gives it another name.
    pub fn rename(&self, name: &str) -> Result<()> {
        self.change(&self.body().with_text(NAME, name), "rename")
    }

    /// Moves it; there it may have another index.
    pub fn move_to(self, namespace: &Namespace) -> Result<Self> {
        let name = self.name()?;
        let fd = namespace.as_fd().as_raw_fd();
        self.change(&self.body().with(NETNS_FD, &fd.to_ne_bytes()), "move")?;
        Self::find(namespace, &name)
    }

    /// Whether it sends: a moment after its carrier came (linkwatch); until then all that is sent to it is dropped.
    pub fn is_operational(&self) -> Result<bool> {
        Ok(self.attribute(OPERATIONAL_STATE)?.first() == Some(&OPERATIONAL))
    }

    /// Deletes it; a veth's peer goes with it.
    pub fn delete(&self) -> Result<()> {
        self.ask(DELETE_LINK, &self.body()).context("cannot delete an interface").map(drop)
    }

    /// Whether it is still there.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.ask(GET_LINK, &self.body()).is_ok()
    }

    /// The kernel's counters.
    pub fn stats(&self) -> Result<LinkStats> {
        let wish = Body::statistics(self.index, 1 << (STATS_LINK_64 - 1));
        let answer = self.ask(GET_STATS, &wish).context("RTM_GETSTATS")?;
        let bytes = rtnetlink::attribute(&answer, STATS_HEADER, STATS_LINK_64).context("no IFLA_STATS_LINK_64")?;
        let mut words = bytes.chunks_exact(8).filter_map(|word| Some(u64::from_ne_bytes(word.try_into().ok()?)));
        let mut next = || words.next().context("short statistics");
        Ok(LinkStats {
            rx_packets: next()?,
            tx_packets: next()?,
            rx_bytes: next()?,
            tx_bytes: next()?,
            rx_errors: next()?,
            tx_errors: next()?,
            rx_dropped: next()?,
            tx_dropped: next()?,
            multicast: next()?,
        })
    }

    fn body(&self) -> Body {
        Body::link(self.index, 0, 0)
    }

    fn attribute(&self, kind: u16) -> Result<Vec<u8>> {
        let answer = self.ask(GET_LINK, &self.body()).context("RTM_GETLINK")?;
        Ok(rtnetlink::attribute(&answer, LINK_HEADER, kind).context("no such attribute")?.to_vec())
    }

    fn ask(&self, kind: u16, body: &Body) -> Result<Vec<u8>> {
        self.namespace.inside(|| Ok(rtnetlink::ask(kind, 0, body)?))
    }

    fn change(&self, body: &Body, what: &str) -> Result<()> {
        self.ask(NEW_LINK, body).with_context(|| format!("cannot {what} interface {}", self.index)).map(drop)
    }
}

fn make(namespace: &Namespace, name: &str, kind: &str, body: Body, data: &Body) -> Result<()> {
    let info = Body::default().with_text(INFO_KIND, kind).with_nested(INFO_DATA, data);
    let body = body.with_text(NAME, name).with_nested(LINKINFO, &info);
    let made = namespace.inside(|| Ok(rtnetlink::ask(NEW_LINK, CREATE, &body)?));
    made.with_context(|| format!("cannot make {kind} {name}")).map(drop)
}
