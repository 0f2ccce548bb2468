//! The capabilities that decide what the agent can see.

use std::fmt;

/// A capability the agent may need (include/uapi/linux/capability.h); the value is its bit number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Capability {
    /// Read other users' files and directories.
    DacReadSearch = 2,
    /// Send signals to other users' processes.
    Kill = 5,
    /// Become another group.
    SetGid = 6,
    /// Become another user.
    SetUid = 7,
    /// Attach to network devices, larger socket buffers.
    NetAdmin = 12,
    /// Look into other users' processes.
    SysPtrace = 19,
    /// Everything the newer, narrower ones are not split off for.
    SysAdmin = 21,
    /// Attach to tracepoints (Linux 5.8).
    Perfmon = 38,
    /// Load BPF programs (Linux 5.8).
    Bpf = 39,
}

impl Capability {
    /// All of them, in the order of their bits.
    pub const ALL: [Self; 9] = [
        Self::DacReadSearch,
        Self::Kill,
        Self::SetGid,
        Self::SetUid,
        Self::NetAdmin,
        Self::SysPtrace,
        Self::SysAdmin,
        Self::Perfmon,
        Self::Bpf,
    ];

    /// Its bit in `CapEff`.
    #[must_use]
    pub const fn mask(self) -> u64 {
        1 << self as u32
    }

    /// Its name as in capabilities(7).
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DacReadSearch => "CAP_DAC_READ_SEARCH",
            Self::Kill => "CAP_KILL",
            Self::SetGid => "CAP_SETGID",
            Self::SetUid => "CAP_SETUID",
            Self::NetAdmin => "CAP_NET_ADMIN",
            Self::SysPtrace => "CAP_SYS_PTRACE",
            Self::SysAdmin => "CAP_SYS_ADMIN",
            Self::Perfmon => "CAP_PERFMON",
            Self::Bpf => "CAP_BPF",
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
