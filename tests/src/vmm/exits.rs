//! What the VMM itself saw: returns of KVM_RUN by reason, the truth that `--count` writes for tests to compare with.
//!
//! The file is replaced as a whole, so a reader never sees half of it.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};

/// Why KVM_RUN returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// KVM_EXIT_MMIO.
    Mmio,
    /// KVM_EXIT_HLT.
    Halt,
    /// KVM_EXIT_SHUTDOWN.
    Shutdown,
    /// KVM_EXIT_SYSTEM_EVENT.
    SystemEvent,
    /// KVM_EXIT_INTERNAL_ERROR.
    InternalError,
    /// The call was interrupted (errno EINTR); the kernel's exit reason is then not valid.
    Interrupted,
    /// Anything else, which this VMM does not expect.
    Other,
}

impl Exit {
    const ALL: [Self; 7] = [
        Self::Mmio,
        Self::Halt,
        Self::Shutdown,
        Self::SystemEvent,
        Self::InternalError,
        Self::Interrupted,
        Self::Other,
    ];

    /// The name in the `--count` file and in messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mmio => "mmio",
            Self::Halt => "hlt",
            Self::Shutdown => "shutdown",
            Self::SystemEvent => "system_event",
            Self::InternalError => "internal_error",
            Self::Interrupted => "intr",
            Self::Other => "other",
        }
    }
}

/// Counts of a whole process.
#[derive(Debug, Default)]
pub struct Exits([AtomicU64; Exit::ALL.len()]);

impl Exits {
    /// Counts one.
    pub fn add(&self, exit: Exit) {
        self.0[exit as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// The counts as one JSON object: `{"pid":…,"exits":{"mmio":…,…}}`.
    #[must_use]
    pub fn json(&self) -> String {
        let exits: serde_json::Map<_, _> = Exit::ALL
            .into_iter()
            .map(|exit| (exit.name().to_owned(), self.0[exit as usize].load(Ordering::Relaxed).into()))
            .collect();
        serde_json::json!({ "pid": std::process::id(), "exits": exits }).to_string()
    }

    /// Replaces the file.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut fresh = path.as_os_str().to_owned();
        fresh.push(".new");
        std::fs::write(&fresh, self.json() + "\n")
            .and_then(|()| std::fs::rename(&fresh, path))
            .with_context(|| format!("--count: cannot write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_exit_has_its_own_count() {
        let exits = Exits::default();
        Exit::ALL.into_iter().for_each(|exit| exits.add(exit));
        exits.add(Exit::Mmio);
        assert!(exits.json().ends_with(
            r#""exits":{"mmio":2,"hlt":1,"shutdown":1,"system_event":1,"internal_error":1,"intr":1,"other":1}}"#
        ));
    }
}
