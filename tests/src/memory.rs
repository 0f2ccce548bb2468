//! A VM whose memory a test decides on, and what `/proc` and the agent say of it.

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::{
    metrics::Metrics,
    vmm::{memory::Orders, spawn::TestVm},
};

/// Resident memory of a VM by type.
pub const RESIDENT: &str = "kvmeter_vm_memory_resident_bytes";
/// Its integral.
pub const INTEGRAL: &str = "kvmeter_vm_memory_byte_seconds_total";
/// 2²⁰ bytes.
pub const MIB: u64 = 1 << 20;
/// Nothing but what a test asks for: no proportional sizes, no scan that looks for groups again.
pub const QUIET: &str =
    "sample_interval = \"200ms\"\n[memory]\npss_interval = \"0s\"\n[discovery]\nscan_interval = \"1h\"\n";

/// A running VM that takes and frees memory when told to.
#[derive(Debug)]
pub struct MemoryVm {
    /// The VM.
    pub vm: TestVm,
    /// Tells it.
    pub orders: Orders,
    _dir: TempDir,
}

impl MemoryVm {
    /// Starts one with this id and these further options.
    pub fn start(id: &str, more: &[&str]) -> Result<Self> {
        let dir = TempDir::new()?;
        let path = dir.path().join("orders");
        let mut args = vec!["--id", id, "--memory-orders", path.to_str().context("no text")?];
        args.extend(more);
        let vm = TestVm::start(&args)?;
        Ok(Self { vm, orders: Orders::connect(&path)?, _dir: dir })
    }

    /// A line of `status`, bytes.
    pub fn status(&self, key: &str) -> Result<u64> {
        kilobytes(&format!("/proc/{}/status", self.vm.pid()), key)
    }

    /// Resident memory of all types, bytes.
    pub fn used(&self) -> Result<u64> {
        ["RssAnon", "RssFile", "RssShmem"].iter().map(|key| self.status(key)).sum()
    }
}

/// A line of a file in `/proc` that is in kB; bytes.
pub fn kilobytes(path: &str, key: &str) -> Result<u64> {
    let text = std::fs::read_to_string(path)?;
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let value = value.with_context(|| format!("{path} has no {key}"))?;
    Ok(value.trim().strip_suffix(" kB").context("no kB")?.trim().parse::<u64>()? * 1024)
}

/// A size or a count that the agent tells of a VM.
pub fn told(scrape: &Metrics, name: &str, id: &str, kind: Option<&str>) -> Result<u64> {
    let mut labels = vec![("vm_id", id)];
    labels.extend(kind.map(|kind| ("type", kind)));
    let value = scrape.one(name, &labels).with_context(|| format!("no {name} {labels:?}"))?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a whole number of bytes")]
    Ok(value as u64)
}
