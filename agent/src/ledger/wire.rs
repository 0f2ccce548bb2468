//! The keys of a line, their order and their JSON types: the one place where they are written down.
//! The first eight keys are those of the existing metering format and stay first.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::{self, Deserializer};
use serde::ser::{self, Serializer};
use serde::{Deserialize, Serialize};

use super::{Coverage, Evidence, Kind, Mark, Reason, Shape, StoredFile, Usage};

/// Whether a value is its type's empty one and so stays off the line.
pub(super) fn absent<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// An integer as a decimal string, so that no reader rounds it.
pub(super) struct Dec<T>(pub(super) T);

impl<T: fmt::Display> Serialize for Dec<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&self.0)
    }
}

impl<'de, T: FromStr> Deserialize<'de> for Dec<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'));
        let number = plain.then(|| text.parse().ok()).flatten();
        number.map(Dec).ok_or_else(|| de::Error::custom(format_args!("{text:?} is no decimal number in range")))
    }
}

/// An instant in unix nanoseconds as RFC 3339 with nine decimals and `Z`.
pub(super) struct When(pub(super) u64);

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_rfc3339_nanos(UNIX_EPOCH + Duration::from_nanos(self.0)).fmt(f)
    }
}

impl Serialize for When {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for When {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let since = |at: SystemTime| at.duration_since(UNIX_EPOCH).ok();
        let ns = humantime::parse_rfc3339(&text).ok().and_then(since).and_then(|d| u64::try_from(d.as_nanos()).ok());
        let exact = text.len() == "1970-01-01T00:00:00.000000000Z".len();
        let refused = || de::Error::custom(format_args!("{text:?} is no RFC 3339 instant with nine decimals and Z"));
        ns.filter(|_| exact).map(When).ok_or_else(refused)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Quality {
    Exact,
    Bounded,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Wire {
    pub(super) kind: Kind,
    #[serde(default, skip_serializing_if = "absent")]
    pub(super) vm_id: String,
    #[serde(default, skip_serializing_if = "absent")]
    pub(super) snapshot_id: String,
    #[serde(default, skip_serializing_if = "absent")]
    pub(super) source_snapshot_id: String,
    #[serde(default, skip_serializing_if = "absent")]
    pub(super) reason: Option<Reason>,
    #[serde(default, skip_serializing_if = "absent")]
    pub(super) hypervisor: String,
    pub(super) shape: Shape,
    pub(super) emitted_at: When,
    pub(super) v: u32,
    pub(super) ledger: String,
    pub(super) seq: u64,
    pub(super) id: String,
    pub(super) host: String,
    pub(super) boot_id: String,
    #[serde(default, skip_serializing_if = "absent")]
    pub(super) incarnation: String,
    #[serde(default, skip_serializing_if = "absent")]
    pub(super) storage_id: String,
    pub(super) recorded_at: When,
    pub(super) mono_ns: Dec<u64>,
    pub(super) time_quality: Quality,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) not_before: Option<When>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) not_after: Option<When>,
    #[serde(default, skip_serializing_if = "absent")]
    pub(super) cause: String,
    #[serde(default, skip_serializing_if = "absent")]
    pub(super) evidence: Evidence,
    #[serde(default, skip_serializing_if = "absent")]
    pub(super) name: String,
    #[serde(default, skip_serializing_if = "absent")]
    pub(super) uuid: String,
    #[serde(default, skip_serializing_if = "absent")]
    pub(super) tenant: String,
    #[serde(default, skip_serializing_if = "absent")]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "absent")]
    pub(super) usage: Option<Usage>,
    #[serde(default, skip_serializing_if = "absent")]
    pub(super) coverage: Option<Coverage>,
    /// Storage: the files it consists of.
    #[serde(default, skip_serializing_if = "absent")]
    pub(super) files: Vec<StoredFile>,
    #[serde(default, skip_serializing_if = "absent")]
    pub(super) corrects: String,
    #[serde(default, skip_serializing_if = "absent")]
    pub(super) resumed_after: Option<Mark>,
    #[serde(default, skip_serializing_if = "absent")]
    pub(super) clean: Option<bool>,
    /// `ledger.recovered`: how many bytes of torn tail were cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) cut_bytes: Option<Dec<u64>>,
    /// `clock.step`: what the wall clock would have shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) stepped_from: Option<When>,
    /// `host.suspend`: for how long; `agent.up`: since the boot, as far as told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) suspended_ns: Option<Dec<u64>>,
    /// Keys that were dropped or shortened so that the line stays within 16 KiB.
    #[serde(default, skip_serializing_if = "absent")]
    pub(super) trimmed: Vec<String>,
    pub(super) prev: String,
}

#[derive(Serialize, Deserialize)]
struct EvidenceWire {
    #[serde(default, skip_serializing_if = "absent")]
    exit_code: Option<i32>,
    #[serde(default, skip_serializing_if = "absent")]
    signal: Option<i32>,
    #[serde(default, skip_serializing_if = "absent")]
    core_dumped: Option<bool>,
    #[serde(default, skip_serializing_if = "absent")]
    oom: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    killer_pid: Option<Dec<u32>>,
    #[serde(default, skip_serializing_if = "absent")]
    killer_comm: Option<String>,
    #[serde(default, skip_serializing_if = "absent")]
    kvm_exit: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first_run_at: Option<When>,
    #[serde(default, skip_serializing_if = "absent")]
    annotated_by: Option<String>,
}

impl Serialize for Evidence {
    fn serialize<S: ser::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let e = self.clone();
        let wire = EvidenceWire {
            exit_code: e.exit_code,
            signal: e.signal,
            core_dumped: e.core_dumped,
            oom: e.oom,
            killer_pid: e.killer_pid.map(Dec),
            killer_comm: e.killer_comm,
            kvm_exit: e.kvm_exit,
            first_run_at: e.first_run_at.map(When),
            annotated_by: e.annotated_by,
        };
        wire.serialize(to)
    }
}

impl<'de> Deserialize<'de> for Evidence {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let w = EvidenceWire::deserialize(from)?;
        Ok(Self {
            exit_code: w.exit_code,
            signal: w.signal,
            core_dumped: w.core_dumped,
            oom: w.oom,
            killer_pid: w.killer_pid.map(|d| d.0),
            killer_comm: w.killer_comm,
            kvm_exit: w.kvm_exit,
            first_run_at: w.first_run_at.map(|t| t.0),
            annotated_by: w.annotated_by,
        })
    }
}
