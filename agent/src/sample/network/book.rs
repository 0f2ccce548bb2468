//! What an agent leaves of the model for the one after it, beside the counters themselves: whose each account is, how much
//! of it was given away, and to whom.
//!
//! With the counters as they are then, any later moment can be worked out from it. So it is written when something is
//! *decided*, not when something is counted.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    model::{ClassNames, Told, VmKey},
    programs::Held,
};
use crate::{
    account::network::{InterfaceKind, Traffic},
    host::NetNsId,
};

/// All of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Book {
    /// Which [code](crate::bpf::network::NetworkPrograms::code) counts.
    pub code: String,
    /// Names of classes by their numbers.
    pub names: Vec<Option<String>>,
    pub(super) ports: Vec<KeptPort>,
    pub(super) vms: Vec<KeptVm>,
    pub(super) pending: Vec<KeptPending>,
}

/// Whose an account is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum KeptOwner {
    Vm(VmKey),
    Nobody,
    Writer(u32),
}

/// An interface.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct KeptPort {
    /// Its number among the programs.
    pub(super) number: u32,
    pub(super) netns: NetNsId,
    pub(super) ifindex: u32,
    pub(super) label: KeptLabel,
    pub(super) holders: Vec<VmKey>,
    pub(super) follows: Option<Held>,
    pub(super) counted: Traffic,
    /// Whose what passed before is, the link's counters when it took the link, what was told of it, and drops by then.
    pub(super) before: (Option<VmKey>, Traffic, Traffic, Option<(u64, u64)>),
    pub(super) accounts: Vec<KeptAccount>,
    pub(super) settled: Vec<u64>,
}

/// An account as it was last read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct KeptAccount {
    pub(super) serial: u64,
    pub(super) writer: u32,
    pub(super) owner: KeptOwner,
    pub(super) by_writer: bool,
    pub(super) first_seen_ns: u64,
    /// Class, bytes and packets of what is not 0, out of the guest and into it.
    pub(super) flows: [Vec<(usize, u64, u64)>; 2],
}

/// Name and kind.
pub(super) type KeptLabel = (String, InterfaceKind);

/// A VM.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct KeptVm {
    pub(super) vm: VmKey,
    pub(super) base: Vec<(String, String, Traffic)>,
    pub(super) workers: Vec<u32>,
    pub(super) moved: Vec<(KeptLabel, Option<Traffic>)>,
    pub(super) tallies: Vec<KeptTally>,
}

/// What a VM was given of one interface, or of former ones.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct KeptTally {
    /// Its place among the ports.
    pub(super) port: Option<usize>,
    pub(super) label: KeptLabel,
    pub(super) classes: Vec<(String, Traffic)>,
    /// Dropped on the way in and out.
    pub(super) dropped: (Option<u64>, Option<u64>),
}

/// What an undecided writer wrote.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct KeptPending {
    /// The place of its interface among the ports; unset once that is gone.
    pub(super) port: Option<usize>,
    /// Where that was.
    #[serde(default)]
    pub(super) link: Option<(NetNsId, u32)>,
    pub(super) writer: u32,
    pub(super) label: KeptLabel,
    pub(super) first_seen_ns: u64,
    pub(super) classes: Vec<(String, Traffic)>,
}

impl Book {
    /// One in which nothing is decided yet.
    #[must_use]
    pub fn first(code: &str, names: &ClassNames) -> Self {
        let names = names.iter().map(|name| name.as_deref().map(str::to_owned)).collect();
        Self { code: code.to_owned(), names, ..Self::default() }
    }

    /// From the words of an earlier agent.
    ///
    /// # Errors
    /// When it is not one.
    pub fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// In words for a later agent.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        // Integers, texts and lists: it cannot fail, and what cannot be read is left alone.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Interfaces by their numbers, with the accounts that were given back.
    pub(super) fn settled(&self) -> Vec<(u32, Vec<u64>)> {
        self.ports.iter().map(|port| (port.number, port.settled.clone())).collect()
    }

    /// What was told of each VM before any of this was counted.
    #[must_use]
    pub fn bases(&self) -> BTreeMap<VmKey, Vec<Told>> {
        let told = |(interface, class, traffic): &(String, String, Traffic)| {
            (Arc::from(interface.as_str()), Arc::from(class.as_str()), *traffic)
        };
        self.vms.iter().map(|kept| (kept.vm, kept.base.iter().map(told).collect())).collect()
    }
}
