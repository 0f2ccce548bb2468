//! Cumulative counters of one VM's whole life. A counter that was not measured is `None` and absent on the line.
//! This module owns their names and order on the line; arithmetic on them belongs to `account`.

use serde::{Deserialize, Serialize};

use super::wire::Dec;
use crate::account::network::Traffic;

macro_rules! usage {
    ($($(#[$doc:meta])* $name:ident: $number:ty,)*) => {
        /// Usage over the process's whole life; every counter only grows. On the line: decimal strings.
        #[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
        #[serde(from = "UsageWire", into = "UsageWire")]
        pub struct Usage {
            $($(#[$doc])* pub $name: Option<$number>,)*
            /// Per interface, the guest's view; the caller keeps it at 16 and folds the rest into `other`.
            pub net: Vec<NetUsage>,
            /// Interfaces whose packets nobody counts here: told, because a missing entry could be an idle one.
            pub net_unobserved: Vec<NetUnobserved>,
        }

        #[derive(Serialize, Deserialize)]
        struct UsageWire {
            #[serde(default, skip_serializing_if = "Option::is_none")]
            cpu_ns: Option<Dec<u64>>,
            $(#[serde(default, skip_serializing_if = "Option::is_none")]
            $name: Option<Dec<$number>>,)*
            #[serde(default, skip_serializing_if = "Vec::is_empty")]
            net: Vec<NetUsage>,
            #[serde(default, skip_serializing_if = "Vec::is_empty")]
            net_unobserved: Vec<NetUnobserved>,
        }

        impl From<UsageWire> for Usage {
            fn from(w: UsageWire) -> Self {
                Self { $($name: w.$name.map(|d| d.0),)* net: w.net, net_unobserved: w.net_unobserved }
            }
        }

        impl From<Usage> for UsageWire {
            fn from(u: Usage) -> Self {
                Self { cpu_ns: u.cpu_ns().map(Dec), $($name: u.$name.map(Dec),)* net: u.net, net_unobserved: u.net_unobserved }
            }
        }

        impl Usage {
            /// Every counter by its name on the line, `cpu_ns` and interfaces left out.
            pub(super) fn counters(&self) -> Vec<(&'static str, Option<u128>)> {
                vec![$((stringify!($name), self.$name.map(u128::from)),)*]
            }
        }
    };
}

usage! {
    /// vCPU threads on a CPU, nanoseconds.
    cpu_vcpu_ns: u64,
    /// Other threads of the VMM, nanoseconds.
    cpu_vmm_ns: u64,
    /// I/O threads and workers, nanoseconds.
    cpu_io_ns: u64,
    /// vhost kernel threads, nanoseconds.
    cpu_vhost_ns: u64,
    /// In guest mode, nanoseconds.
    guest_ns: u64,
    /// Polling in KVM before a halt, nanoseconds.
    halt_poll_ns: u64,
    /// Runnable and waiting for a CPU, nanoseconds.
    run_delay_ns: u64,
    /// Integral of resident memory over time, byte-nanoseconds.
    mem_byte_ns: u128,
    /// Highest resident memory, bytes.
    mem_peak_bytes: u64,
    /// Read from block devices, bytes.
    disk_read_bytes: u64,
    /// Written to block devices, bytes.
    disk_written_bytes: u64,
}

impl Usage {
    /// Nanoseconds of CPU by all measured roles; absent unless both vCPU and VMM time are measured.
    #[must_use]
    pub fn cpu_ns(&self) -> Option<u64> {
        let base = self.cpu_vcpu_ns?.saturating_add(self.cpu_vmm_ns?);
        Some(base.saturating_add(self.cpu_io_ns.unwrap_or(0)).saturating_add(self.cpu_vhost_ns.unwrap_or(0)))
    }
}

/// An interface of the VM that cannot be counted where the agent runs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NetUnobserved {
    /// Interface name, or what the VMM calls it.
    pub interface: String,
    /// `vhost-user`, `vdpa`, `vfio`, or a kind that could not be counted here.
    pub kind: String,
}

/// Traffic of one interface, as the guest sees it (receive = into the guest).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "NetWire", into = "NetWire")]
pub struct NetUsage {
    /// Interface name, or `other`.
    pub interface: String,
    /// Traffic class.
    pub class: String,
    /// Bytes into the guest.
    pub receive_bytes: u64,
    /// Packets into the guest.
    pub receive_packets: u64,
    /// Bytes out of the guest.
    pub transmit_bytes: u64,
    /// Packets out of the guest.
    pub transmit_packets: u64,
}

impl NetUsage {
    /// One class of one interface.
    #[must_use]
    pub fn new(interface: &str, class: &str, traffic: &Traffic) -> Self {
        Self {
            interface: interface.to_owned(),
            class: class.to_owned(),
            receive_bytes: traffic.receive_bytes,
            receive_packets: traffic.receive_packets,
            transmit_bytes: traffic.transmit_bytes,
            transmit_packets: traffic.transmit_packets,
        }
    }

    /// Its numbers.
    #[must_use]
    pub const fn traffic(&self) -> Traffic {
        Traffic {
            receive_bytes: self.receive_bytes,
            receive_packets: self.receive_packets,
            transmit_bytes: self.transmit_bytes,
            transmit_packets: self.transmit_packets,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct NetWire {
    interface: String,
    class: String,
    receive_bytes: Dec<u64>,
    receive_packets: Dec<u64>,
    transmit_bytes: Dec<u64>,
    transmit_packets: Dec<u64>,
}

impl From<NetWire> for NetUsage {
    fn from(w: NetWire) -> Self {
        Self {
            interface: w.interface,
            class: w.class,
            receive_bytes: w.receive_bytes.0,
            receive_packets: w.receive_packets.0,
            transmit_bytes: w.transmit_bytes.0,
            transmit_packets: w.transmit_packets.0,
        }
    }
}

impl From<NetUsage> for NetWire {
    fn from(n: NetUsage) -> Self {
        Self {
            interface: n.interface,
            class: n.class,
            receive_bytes: Dec(n.receive_bytes),
            receive_packets: Dec(n.receive_packets),
            transmit_bytes: Dec(n.transmit_bytes),
            transmit_packets: Dec(n.transmit_packets),
        }
    }
}
