//! From evidence of a process's end to cause and reason, by the table of the ledger's contract. Pure.
//!
//! Order: a signal that ended the process says more than what its guest did before; a guest that crashed says more
//! than the exit code its VMM then chose. Nothing is invented: no evidence, no reason.

use kvmeter_common::signal::{VmSignals, place_of};

use crate::{
    ledger::{Evidence, HIBERNATE, Reason},
    vm::{exit_reason, identity::label},
};

/// What is told of an end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The finer word.
    pub cause: &'static str,
    /// The closed set's word; absent without evidence.
    pub reason: Option<Reason>,
    /// What its state is kept in; empty if nobody said.
    pub snapshot_id: String,
    /// Why we say so.
    pub evidence: Evidence,
}

/// Signals by which somebody asks a process to end.
const ASKED: [i32; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];
const SIGNAL_BITS: u32 = 0x7f;
const CORE_BIT: u32 = 0x80;
/// The cause of an end that an operator's shutdown of the whole host brought about.
const HOST_DOWN: &str = "host-shutdown";

/// Why libvirt says it let a VM go, as far as that says more than how the process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutoff {
    /// It runs on another host now.
    Migrated,
    /// Its state was kept, to go on from.
    Saved,
    /// Its guest shut down.
    Shutdown,
    /// Its guest crashed.
    Crashed,
}

impl Shutoff {
    /// libvirt's word (`virDomainShutoffReason`).
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        match word {
            "migrated" => Some(Self::Migrated),
            "saved" => Some(Self::Saved),
            "shutdown" => Some(Self::Shutdown),
            "crashed" => Some(Self::Crashed),
            _ => None,
        }
    }

    const fn verdict(self) -> (&'static str, Reason) {
        match self {
            Self::Migrated => ("migrated", Reason::StopUser),
            Self::Saved => (HIBERNATE, Reason::StopUser),
            Self::Shutdown => ("guest-shutdown", Reason::StopUser),
            Self::Crashed => ("guest-crash", Reason::StopCrash),
        }
    }
}

/// What is known of an end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ending<'a> {
    /// The wait status as `wait4` shows it; `None` means that nobody saw the end.
    pub status: Option<u32>,
    /// The last valid `KVM_EXIT_*` of any vCPU.
    pub last_exit: Option<u32>,
    /// Signals that were sent to the process; `None` where the kernel programs do not tell.
    pub signals: Option<&'a VmSignals>,
    /// The host was going down at the time.
    pub host_down: bool,
    /// What libvirt says.
    pub shutoff: Option<Shutoff>,
}

/// Judges an end.
#[must_use]
pub fn verdict(ending: &Ending<'_>) -> Verdict {
    let mut evidence = Evidence::default();
    let crash = matches!(ending.last_exit, Some(exit_reason::SHUTDOWN | exit_reason::INTERNAL_ERROR));
    let asked_off = ending.last_exit == Some(exit_reason::SYSTEM_EVENT);
    if crash || asked_off {
        evidence.kvm_exit = ending.last_exit.map(exit_reason::kernel_name);
    }
    let Some(status) = ending.status else {
        return Verdict { cause: "unknown", reason: None, snapshot_id: String::new(), evidence };
    };
    let signal = i32::try_from(status & SIGNAL_BITS).unwrap_or(0);
    if signal != 0 {
        evidence.core_dumped = Some(status & CORE_BIT != 0);
        return by_signal(signal, ending, evidence);
    }
    let code = i32::try_from((status >> 8) & 0xff).unwrap_or(0);
    evidence.exit_code = Some(code);
    let (cause, reason) = match (crash, asked_off, code) {
        (true, ..) => ("guest-crash", Reason::StopCrash),
        (_, true, _) => ("guest-shutdown", Reason::StopUser),
        (_, _, 0) if let Some(shutoff) = ending.shutoff => shutoff.verdict(),
        (_, _, 0) if ending.host_down => (HOST_DOWN, Reason::StopUser),
        (_, _, 0) => ("exit", Reason::StopUser),
        _ => ("exit", Reason::StopCrash),
    };
    Verdict { cause, reason: Some(reason), snapshot_id: String::new(), evidence }
}

/// The end of a process by a signal, with who sent it, if somebody did.
fn by_signal(signal: i32, ending: &Ending<'_>, mut evidence: Evidence) -> Verdict {
    evidence.signal = Some(signal);
    let number = signal.unsigned_abs();
    let sent = ending.signals.map(|signals| signals.sent[place_of(number)]).filter(|sent| sent.signal == number);
    if let Some(sent) = sent.filter(|sent| sent.tgid != 0) {
        evidence.killer_pid = Some(sent.tgid);
        let comm: Vec<u8> = sent.comm.into_iter().take_while(|b| *b != 0).collect();
        evidence.killer_comm = Some(label(&comm)).filter(|comm| !comm.is_empty());
    }
    let by_kernel = sent.is_some_and(|sent| sent.tgid == 0);
    let (cause, reason) = if signal == libc::SIGKILL && by_kernel && ending.signals.is_some_and(|s| s.oom != 0) {
        evidence.oom = Some(true);
        ("oom", Reason::StopCrash)
    } else if let Some(shutoff) = ending.shutoff.filter(|_| ASKED.contains(&signal) || signal == libc::SIGKILL) {
        shutoff.verdict()
    } else if ending.host_down && (ASKED.contains(&signal) || signal == libc::SIGKILL) {
        (HOST_DOWN, Reason::StopUser)
    } else if ASKED.contains(&signal) {
        ("signal", Reason::StopUser)
    } else {
        ("signal", Reason::StopCrash)
    };
    Verdict { cause, reason: Some(reason), snapshot_id: String::new(), evidence }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(status: u32, last_exit: Option<u32>) -> (&'static str, Option<Reason>) {
        let verdict = verdict(&Ending { status: Some(status), last_exit, ..Ending::default() });
        (verdict.cause, verdict.reason)
    }

    fn sent(signal: u32, tgid: u32, comm: &[u8], oom: bool) -> VmSignals {
        let mut signals = VmSignals { oom: oom.into(), ..VmSignals::default() };
        let sent = &mut signals.sent[place_of(signal)];
        (sent.signal, sent.tgid) = (signal, tgid);
        sent.comm[..comm.len()].copy_from_slice(comm);
        signals
    }

    fn killed(status: u32, signals: &VmSignals, host_down: bool) -> Verdict {
        verdict(&Ending { status: Some(status), signals: Some(signals), host_down, ..Ending::default() })
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
        let verdict = verdict(&Ending { host_down: true, ..Ending::default() });
        assert_eq!((verdict.cause, verdict.reason), ("unknown", None));
        assert_eq!(verdict.evidence, Evidence::default());
    }

    #[test]
    fn a_core_dump_is_told() {
        let ending = Ending { status: Some(0x80 | 11), ..Ending::default() };
        assert_eq!(verdict(&ending).evidence.core_dumped, Some(true));
    }

    #[test]
    fn the_sender_is_told_only_of_the_signal_that_ended_it() {
        let by = killed(9, &sent(9, 77, b"libvirtd", false), false);
        assert_eq!((by.cause, by.reason), ("signal", Some(Reason::StopCrash)));
        assert_eq!((by.evidence.killer_pid, by.evidence.killer_comm.as_deref()), (Some(77), Some("libvirtd")));
        for signals in [sent(15, 77, b"x", false), sent(9, 0, b"", false)] {
            let by = killed(9, &signals, false);
            assert_eq!((by.evidence.killer_pid, by.evidence.killer_comm), (None, None));
        }
        let hostile = killed(15, &sent(15, 1, b"a\n\xff", false), false);
        assert_eq!(hostile.evidence.killer_comm.as_deref(), Some("a\u{fffd}\u{fffd}"));
    }

    #[test]
    fn an_oom_kill_is_a_mark_and_a_kill_of_the_kernels_own() {
        let by = killed(9, &sent(9, 0, b"", true), true);
        assert_eq!((by.cause, by.reason, by.evidence.oom), ("oom", Some(Reason::StopCrash), Some(true)));
        for signals in [sent(9, 77, b"x", true), sent(9, 0, b"", false), sent(15, 0, b"", true)] {
            assert_ne!(killed(9, &signals, false).cause, "oom", "{signals:?}");
        }
        assert_eq!(killed(15, &sent(15, 0, b"", true), false).cause, "signal");
    }

    #[test]
    fn libvirts_word_says_more_than_an_end_that_was_asked_for_and_less_than_a_fault() {
        let of =
            |status, shutoff| verdict(&Ending { status: Some(status), shutoff: Some(shutoff), ..Ending::default() });
        for (shutoff, cause, reason) in [
            (Shutoff::Migrated, "migrated", Reason::StopUser),
            (Shutoff::Saved, "hibernate", Reason::StopUser),
            (Shutoff::Shutdown, "guest-shutdown", Reason::StopUser),
            (Shutoff::Crashed, "guest-crash", Reason::StopCrash),
        ] {
            for status in [0, 15, 9] {
                let by = of(status, shutoff);
                assert_eq!((by.cause, by.reason), (cause, Some(reason)), "{shutoff:?} {status}");
            }
            assert_eq!(of(11, shutoff).cause, "signal");
            assert_eq!(of(3 << 8, shutoff).cause, "exit");
        }
    }

    #[test]
    fn a_host_going_down_explains_what_was_asked_for_and_no_fault() {
        let signals = VmSignals::default();
        for status in [0, 15, 2, 1, 9] {
            let by = killed(status, &signals, true);
            assert_eq!((by.cause, by.reason), ("host-shutdown", Some(Reason::StopUser)), "{status}");
        }
        for status in [11, 6, 3 << 8] {
            assert_eq!(killed(status, &signals, true).reason, Some(Reason::StopCrash), "{status}");
        }
        let last_exit = Some(exit_reason::SHUTDOWN);
        let crash = verdict(&Ending { status: Some(0), last_exit, host_down: true, ..Ending::default() });
        assert_eq!(crash.cause, "guest-crash");
    }
}
