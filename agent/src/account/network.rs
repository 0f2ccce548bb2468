//! What passed through a VM's network interfaces, as the guest sees it: receive is into the guest.

use std::{collections::BTreeMap, sync::Arc};

/// Traffic of one class on one interface. Every number only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes into the guest.
    pub receive_bytes: u64,
    /// Packets into the guest.
    pub receive_packets: u64,
    /// Bytes out of the guest.
    pub transmit_bytes: u64,
    /// Packets out of the guest.
    pub transmit_packets: u64,
}

/// How a VM is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InterfaceKind {
    /// A tap, of one queue or several.
    Tap,
    /// A macvtap or ipvtap, whose hooks run the other way round.
    Macvtap,
    /// A user-space switch holds the other end: the kernel sees no packet.
    VhostUser,
    /// vhost-vdpa: the device moves the packets.
    Vdpa,
    /// A network device, or a virtual function of one (SR-IOV), passed through by vfio.
    Vfio,
}

impl InterfaceKind {
    /// All kinds.
    pub const ALL: [Self; 5] = [Self::Tap, Self::Macvtap, Self::VhostUser, Self::Vdpa, Self::Vfio];

    /// The word of label `kind`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tap => "tap",
            Self::Macvtap => "macvtap",
            Self::VhostUser => "vhost-user",
            Self::Vdpa => "vdpa",
            Self::Vfio => "vfio",
        }
    }
}

/// One interface of a VM, also after it is gone: its totals stay until its VM goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name on the host; several of one name are told together.
    pub name: Arc<str>,
    /// How the VM is connected.
    pub kind: InterfaceKind,
    /// Why its packets are not counted; `None` where they are. Never a zero instead.
    pub unobserved: Option<Arc<str>>,
    /// The VM holds it now.
    pub held: bool,
    /// By class; empty where not observed.
    pub classes: BTreeMap<Arc<str>, Traffic>,
    /// Packets for the guest that the link dropped because the guest took none, part of `receive_packets`.
    pub receive_dropped: Option<u64>,
    /// Packets of the guest that the link dropped.
    pub transmit_dropped: Option<u64>,
}

/// All interfaces of a VM, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkUsage {
    /// In order of their names.
    pub interfaces: Vec<Interface>,
}
