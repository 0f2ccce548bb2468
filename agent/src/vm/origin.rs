//! Where a VM's numbers come from.

use crate::sample::ProcCpu;

/// Where a VM's numbers come from.
pub enum Origin {
    /// The kernel programs: a slot of theirs.
    Slot(u32),
    /// `/proc`, read at every sample.
    Proc(ProcCpu),
    /// It has ended; nothing is read any more.
    Final,
}

impl Origin {
    /// The word for `/proc`.
    pub const PROC: &'static str = "proc";

    /// The word shown in status and API.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Slot(_) => "bpf",
            Self::Proc(_) => Self::PROC,
            Self::Final => "final",
        }
    }
}
