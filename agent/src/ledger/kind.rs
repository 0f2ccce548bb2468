//! The two closed sets of a line: what happened ([`Kind`]) and why a life began or ended ([`Reason`]).
//! Their strings are a contract with downstream loaders and never change.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

/// Text that is none of the ledger's kinds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no kind of ledger line")]
pub struct ParseKindError(pub String);

/// Text that is none of the ledger's reasons.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no reason of a ledger line")]
pub struct ParseReasonError(pub String);

macro_rules! closed_set {
    ($(#[$doc:meta])* $name:ident, $error:ident { $($(#[$item_doc:meta])* $item:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$item_doc])* $item,)* }

        impl $name {
            /// Every member, in the contract's order.
            pub const ALL: &'static [Self] = &[$(Self::$item,)*];

            /// The string on the line.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$item => $text,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = $error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text { $($text => Ok(Self::$item),)* _ => Err($error(text.to_owned())) }
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                String::deserialize(from)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

closed_set! {
    /// What a line says happened.
    Kind, ParseKindError {
        /// A VM process began to be billed.
        VmComputeStart = "vm.compute.start",
        /// Its end.
        VmComputeStop = "vm.compute.stop",
        /// A VM's disks began to be billed.
        VmStorageStart = "vm.storage.start",
        /// Their end.
        VmStorageStop = "vm.storage.stop",
        /// A pool image or snapshot began to be billed.
        SnapStorageStart = "snap.storage.start",
        /// Its end.
        SnapStorageStop = "snap.storage.stop",
        /// Heartbeat: cumulative usage of a running VM.
        VmComputeUsage = "vm.compute.usage",
        /// vCPUs or memory changed.
        VmComputeResize = "vm.compute.resize",
        /// The sum of a VM's disks changed.
        VmStorageResize = "vm.storage.resize",
        /// A pool image or snapshot changed its size.
        SnapStorageResize = "snap.storage.resize",
        /// Name, uuid, tenant or labels learned after the start.
        VmIdentity = "vm.identity",
        /// The host slept.
        HostSuspend = "host.suspend",
        /// An agent began to write.
        AgentUp = "agent.up",
        /// An agent stopped in order.
        AgentDown = "agent.down",
        /// A time nobody watched.
        AgentGap = "agent.gap",
        /// A torn tail was cut back.
        LedgerRecovered = "ledger.recovered",
        /// The wall clock jumped.
        ClockStep = "clock.step",
        /// Replaces an earlier line.
        Correction = "correction",
    }
}

closed_set! {
    /// Why a life began or ended; absent where there is no evidence.
    Reason, ParseReasonError {
        /// Started from nothing.
        Boot = "boot",
        /// Started again.
        Restart = "restart",
        /// Started as a copy of another VM.
        Clone = "clone",
        /// Started from a snapshot.
        Restore = "restore",
        /// Woke from hibernation.
        HibernateWake = "hibernate-wake",
        /// Ended on request.
        StopUser = "stop-user",
        /// Ended without a request.
        StopCrash = "stop-crash",
        /// The VM was removed.
        VmRm = "vm-rm",
        /// The snapshot was removed.
        SnapRm = "snap-rm",
    }
}

impl Kind {
    /// How many kinds there are.
    pub const COUNT: usize = Self::ALL.len();

    /// Whether the line is about one VM process, so that its subject is an incarnation.
    #[must_use]
    pub const fn is_compute(self) -> bool {
        matches!(
            self,
            Self::VmComputeStart
                | Self::VmComputeStop
                | Self::VmComputeUsage
                | Self::VmComputeResize
                | Self::VmIdentity
        )
    }

    /// Whether the line is about one stored thing, so that its subject is a storage or snapshot id.
    #[must_use]
    pub const fn is_storage(self) -> bool {
        matches!(
            self,
            Self::VmStorageStart
                | Self::VmStorageStop
                | Self::VmStorageResize
                | Self::SnapStorageStart
                | Self::SnapStorageStop
                | Self::SnapStorageResize
        )
    }

    /// Whether the line may wait for the next group and may be dropped (and counted) when the spool is full.
    #[must_use]
    pub const fn is_heartbeat(self) -> bool {
        matches!(self, Self::VmComputeUsage)
    }
}
