//! The parts of a fact that are no counters: instants, shape, coverage, evidence and whom the fact is about.

use serde::{Deserialize, Serialize};

use super::wire::{Dec, absent};

/// One instant on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stamp {
    /// Wall clock, nanoseconds since 1970-01-01 UTC (CLOCK_REALTIME).
    pub unix_ns: u64,
    /// Nanoseconds since this boot, sleep included (CLOCK_BOOTTIME).
    pub mono_ns: u64,
}

/// What a VM, host or disk is sized at. A part that is 0 is unknown or none and stays off the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Shape {
    /// vCPUs of a VM, CPUs of a host.
    #[serde(default, skip_serializing_if = "absent")]
    pub cpu: u32,
    /// Memory in bytes.
    #[serde(default, skip_serializing_if = "absent")]
    pub mem_bytes: u64,
    /// Disks in bytes.
    #[serde(default, skip_serializing_if = "absent")]
    pub storage_bytes: u64,
}

/// How much of a VM's age was watched; `observed_ns + unobserved_ns` is the age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "CoverageWire", into = "CoverageWire")]
pub struct Coverage {
    /// Nanoseconds with the kernel programs counting.
    pub observed_ns: u64,
    /// Nanoseconds without.
    pub unobserved_ns: u64,
    /// Wake-ups lost on the way from the kernel (latency, not usage).
    pub lost_events: u64,
}

#[derive(Serialize, Deserialize)]
struct CoverageWire {
    observed_ns: Dec<u64>,
    unobserved_ns: Dec<u64>,
    lost_events: u64,
}

impl From<CoverageWire> for Coverage {
    fn from(w: CoverageWire) -> Self {
        Self { observed_ns: w.observed_ns.0, unobserved_ns: w.unobserved_ns.0, lost_events: w.lost_events }
    }
}

impl From<Coverage> for CoverageWire {
    fn from(c: Coverage) -> Self {
        Self { observed_ns: Dec(c.observed_ns), unobserved_ns: Dec(c.unobserved_ns), lost_events: c.lost_events }
    }
}

/// One file or device that a stored thing consists of, so that a returning agent finds it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredFileWire", into = "StoredFileWire")]
pub struct StoredFile {
    /// `<fsid>:<inode>:<birth_ns>`.
    pub file: String,
    /// Where it was last seen.
    pub path: String,
    /// Its part of the thing's bytes; unset where that is not known.
    pub bytes: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct StoredFileWire {
    file: String,
    path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bytes: Option<Dec<u64>>,
}

impl From<StoredFileWire> for StoredFile {
    fn from(w: StoredFileWire) -> Self {
        Self { file: w.file, path: w.path, bytes: w.bytes.map(|bytes| bytes.0) }
    }
}

impl From<StoredFile> for StoredFileWire {
    fn from(f: StoredFile) -> Self {
        Self { file: f.file, path: f.path, bytes: f.bytes.map(Dec) }
    }
}

/// What was seen of a start or an end. Only what was seen is set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Evidence {
    /// Exit code of the VM process.
    pub exit_code: Option<i32>,
    /// Signal that ended it.
    pub signal: Option<i32>,
    /// Whether it left a core.
    pub core_dumped: Option<bool>,
    /// Whether the kernel's OOM killer chose it.
    pub oom: Option<bool>,
    /// Pid of the signal's sender, initial pid namespace (a decimal string on the line).
    pub killer_pid: Option<u32>,
    /// Its comm.
    pub killer_comm: Option<String>,
    /// Last `KVM_EXIT_*` that mattered.
    pub kvm_exit: Option<String>,
    /// First guest entry, unix nanoseconds.
    pub first_run_at: Option<u64>,
    /// Who annotated the reason.
    pub annotated_by: Option<String>,
}

/// How sure `emitted_at` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TimeQuality {
    /// Read from the kernel.
    #[default]
    Exact,
    /// Somewhere between the two instants (unix nanoseconds); `emitted_at` is the one that bills less.
    Bounded {
        /// Not before this, unix nanoseconds.
        not_before: u64,
        /// Not after this, unix nanoseconds.
        not_after: u64,
    },
}

/// Whom a fact is about; decides its `id` and its pairing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    /// One VM process: `<12 hex of boot_id>-<tgid>-<start_ns>`.
    Incarnation(String),
    /// One stored thing: a vm_id, or `<fsid>:<inode>:<birth_ns>`.
    Storage(String),
    /// A snapshot known by name alone.
    Snapshot(String),
    /// The ledger itself: agents, host, clock.
    Ledger,
}

impl Subject {
    /// The text that goes into the `id`; the ledger's own id where the subject is the ledger.
    #[must_use]
    pub fn text<'a>(&'a self, ledger_id: &'a str) -> &'a str {
        match self {
            Self::Incarnation(text) | Self::Storage(text) | Self::Snapshot(text) => text,
            Self::Ledger => ledger_id,
        }
    }
}

/// Names one line of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Its sequence number.
    pub seq: u64,
    /// Its id.
    pub id: String,
}
