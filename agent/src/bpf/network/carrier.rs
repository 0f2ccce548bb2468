//! How a program reads how often a device's carrier came and went. For a tap that changes whenever another opens it, so
//! that accounts begin with holders (`agent-ebpf`, `network/carrier`).
//!
//! The places are the kernel's own types'; which way is taken is found out by trying. Where none is, accounts begin with
//! writers, and when the agent hears of a handover.

use kvmeter_common::network::carrier;

use crate::bpf::{btf::Btf, object::KERNEL_BTF};

/// The way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Carrier {
    /// One of [`carrier`].
    pub way: u32,
    /// Bytes into `sk_buff`.
    pub device: u32,
    /// Bytes into `net_device`.
    pub ups: u32,
    /// Likewise.
    pub downs: u32,
    /// Number of the function that gives the kernel's own packet, and of that packet's type.
    pub cast: u32,
    /// Likewise.
    pub packet: u32,
}

impl Carrier {
    /// Ways that may go here, the cheaper first; the last always goes.
    pub(super) fn ways() -> Vec<Self> {
        let bytes = std::fs::read(KERNEL_BTF).unwrap_or_default();
        let mut ways = vec![Self::default()];
        let Ok(btf) = Btf::parse(&bytes) else { return ways };
        let device = btf.offset_sized("sk_buff", "dev", 8);
        let count = |name| btf.offset_sized("net_device", name, 4);
        let (Ok(device), Ok(ups), Ok(downs)) = (device, count("carrier_up_count"), count("carrier_down_count")) else {
            return ways;
        };
        let found = Self { way: carrier::PROBED, device, ups, downs, cast: 0, packet: 0 };
        if downs == ups + 4 {
            ways.insert(0, found);
        }
        if let (Some(cast), Some(packet)) = (btf.function("bpf_rdonly_cast"), btf.structure("sk_buff")) {
            ways.insert(0, Self { way: carrier::LOADED, cast, packet, ..found });
        }
        ways
    }

    /// Whether generations are told.
    pub(super) fn is_read(self) -> bool {
        self.way != carrier::UNREAD
    }
}
