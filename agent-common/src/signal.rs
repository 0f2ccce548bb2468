//! Signals that can end a VM's process, and who sent them.

use crate::assert_layout;

/// Places of [`VmSignals::sent`]: what comes later must not push out what ended the process.
pub mod place {
    /// SIGKILL.
    pub const KILL: usize = 0;
    /// SIGTERM, SIGINT, SIGHUP, SIGQUIT.
    pub const ASKED: usize = 1;
    /// Any other.
    pub const OTHER: usize = 2;
    /// How many there are.
    pub const COUNT: usize = 3;
}

/// The place of a signal.
#[must_use]
pub const fn place_of(signal: u32) -> usize {
    match signal {
        9 => place::KILL,
        1 | 2 | 3 | 15 => place::ASKED,
        _ => place::OTHER,
    }
}

/// Signals whose default is not to end a process: SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGWINCH
/// (signal(7); the numbers are those of x86, arm64 and riscv).
const HARMLESS: u64 = 1 << 17 | 1 << 18 | 1 << 19 | 1 << 20 | 1 << 21 | 1 << 22 | 1 << 23 | 1 << 28;

/// Whether a signal can end a process.
#[must_use]
pub const fn can_end(signal: u32) -> bool {
    signal != 0 && signal <= 64 && (signal == 64 || HARMLESS & (1 << signal) == 0)
}

/// The newest signal of one place that was delivered to a VM's process.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Its number; 0 = none yet.
    pub signal: u32,
    /// The sending process; 0 = the kernel sent it by itself, or on behalf of nobody in particular.
    pub tgid: u32,
    /// That process's name.
    pub comm: [u8; 16],
}

assert_layout!(Sent, size 24, { signal: u32 => 0, tgid: u32 => 4, comm: [u8; 16] => 8 });

/// What was sent to a VM's process, by the VM's slot.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VmSignals {
    /// By [`place`].
    pub sent: [Sent; place::COUNT],
    /// Not 0 once the OOM killer has marked the process.
    pub oom: u64,
}

assert_layout!(VmSignals, size 80, { sent: [Sent; 3] => 0, oom: u64 => 72 });

const _: () = {
    assert!(can_end(9) && can_end(15) && can_end(10) && can_end(64), "these end a process");
    assert!(!can_end(0) && !can_end(17) && !can_end(28) && !can_end(65), "these do not");
};
