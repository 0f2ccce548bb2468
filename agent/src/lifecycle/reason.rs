//! From evidence of a process's end to cause and reason, by the table of the ledger's contract. Pure.
//!
//! Order: a signal that ended the process says more than what its guest did before; a guest that crashed says more
//! than the exit code its VMM then chose. Nothing is invented: no evidence, no reason.

use crate::{
    ledger::{Evidence, Reason},
    vm::{
        exit_reason,
        identity::{Argv, Hypervisor},
    },
};

/// What is told of an end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The finer word.
    pub cause: &'static str,
    /// The closed set's word; absent without evidence.
    pub reason: Option<Reason>,
    /// Why we say so.
    pub evidence: Evidence,
}

/// Signals by which somebody asks a process to end.
const ASKED: [i32; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];
const SIGNAL_BITS: u32 = 0x7f;
const CORE_BIT: u32 = 0x80;

/// Judges a wait status (as `wait4` shows it) and the last valid `KVM_EXIT_*` of any vCPU. `None` as status means
/// that nobody saw the end.
#[must_use]
pub fn verdict(status: Option<u32>, last_exit: Option<u32>) -> Verdict {
    let mut evidence = Evidence::default();
    let crash = matches!(last_exit, Some(exit_reason::SHUTDOWN | exit_reason::INTERNAL_ERROR));
    let asked_off = last_exit == Some(exit_reason::SYSTEM_EVENT);
    if crash || asked_off {
        evidence.kvm_exit = last_exit.map(exit_reason::kernel_name);
    }
    let Some(status) = status else {
        return Verdict { cause: "unknown", reason: None, evidence };
    };
    let signal = i32::try_from(status & SIGNAL_BITS).unwrap_or(0);
    if signal != 0 {
        evidence.signal = Some(signal);
        evidence.core_dumped = Some(status & CORE_BIT != 0);
        let reason = if ASKED.contains(&signal) { Reason::StopUser } else { Reason::StopCrash };
        return Verdict { cause: "signal", reason: Some(reason), evidence };
    }
    let code = i32::try_from((status >> 8) & 0xff).unwrap_or(0);
    evidence.exit_code = Some(code);
    let (cause, reason) = match (crash, asked_off, code) {
        (true, ..) => ("guest-crash", Reason::StopCrash),
        (_, true, _) => ("guest-shutdown", Reason::StopUser),
        (_, _, 0) => ("exit", Reason::StopUser),
        _ => ("exit", Reason::StopCrash),
    };
    Verdict { cause, reason: Some(reason), evidence }
}

/// Why a VM that was seen starting started: `boot` where its VMM's command line could have said otherwise and does not.
/// A VMM that takes a snapshot over its own API (Firecracker) or that nobody knows gives no evidence, so no reason.
#[must_use]
pub fn start_reason(hypervisor: Hypervisor, argv: &Argv) -> Option<Reason> {
    let restores: &[&[u8]] = match hypervisor {
        Hypervisor::Qemu => &[b"-incoming", b"--incoming", b"-loadvm", b"--loadvm"],
        Hypervisor::CloudHypervisor | Hypervisor::Crosvm => &[b"--restore"],
        Hypervisor::Kvmtool => &[],
        Hypervisor::Firecracker | Hypervisor::Unknown => return None,
    };
    let told = |arg: &Vec<u8>| restores.iter().any(|flag| arg.starts_with(flag));
    (!argv.truncated && !argv.args.iter().any(told)).then_some(Reason::Boot)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(status: u32, last_exit: Option<u32>) -> (&'static str, Option<Reason>) {
        let verdict = verdict(Some(status), last_exit);
        (verdict.cause, verdict.reason)
    }

    #[test]
    fn every_row_of_the_contracts_table_holds() {
        let mmio = Some(6);
        assert_eq!(told(0, mmio), ("exit", Some(Reason::StopUser)));
        assert_eq!(told(3 << 8, mmio), ("exit", Some(Reason::StopCrash)));
        for signal in [15, 2, 1] {
            assert_eq!(told(signal, mmio), ("signal", Some(Reason::StopUser)));
        }
        for signal in [9, 11, 6] {
            assert_eq!(told(signal, mmio), ("signal", Some(Reason::StopCrash)));
        }
        assert_eq!(told(0, Some(exit_reason::SHUTDOWN)), ("guest-crash", Some(Reason::StopCrash)));
        assert_eq!(told(3 << 8, Some(exit_reason::INTERNAL_ERROR)), ("guest-crash", Some(Reason::StopCrash)));
        assert_eq!(told(0, Some(exit_reason::SYSTEM_EVENT)), ("guest-shutdown", Some(Reason::StopUser)));
    }

    #[test]
    fn without_evidence_there_is_no_reason() {
        let verdict = verdict(None, None);
        assert_eq!((verdict.cause, verdict.reason), ("unknown", None));
        assert_eq!(verdict.evidence, Evidence::default());
    }

    #[test]
    fn a_core_dump_is_told() {
        assert_eq!(verdict(Some(0x80 | 11), None).evidence.core_dumped, Some(true));
    }

    #[test]
    fn a_boot_is_told_only_where_a_restore_would_have_shown() {
        let argv = |raw: &[u8]| Argv::parse(raw, false);
        assert_eq!(start_reason(Hypervisor::Qemu, &argv(b"qemu\0-m\x001G\0")), Some(Reason::Boot));
        assert_eq!(start_reason(Hypervisor::Qemu, &argv(b"qemu\0-incoming\0defer\0")), None);
        assert_eq!(start_reason(Hypervisor::Qemu, &Argv::parse(b"qemu\0-m", true)), None);
        assert_eq!(start_reason(Hypervisor::Unknown, &argv(b"vmm\0")), None);
    }
}
