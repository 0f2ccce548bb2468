//! How a VMM ends: the ways a test can ask for, and doing them.

use std::str::FromStr;

use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::unistd::Pid;

/// How the VMM ends when its lifetime is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The process exits with this code while its vCPUs run.
    Exit(u8),
    /// The VMM makes a true bad access: SIGSEGV from the kernel.
    Crash,
    /// The VMM aborts: SIGABRT.
    Abort,
    /// The VMM kills itself with SIGKILL.
    Sigkill,
    /// vCPU 0 of the first VM triple-faults: KVM_EXIT_SHUTDOWN.
    TripleFault,
    /// vCPU 0 of the first VM halts: KVM_EXIT_HLT.
    Halt,
    /// vCPU 0 of the first VM asks its hypervisor for a reset: KVM_EXIT_SYSTEM_EVENT. Needs a KVM with Hyper-V's
    /// registers (CONFIG_KVM_HYPERV), the one way to it on x86.
    SystemEvent,
    /// vCPU 0 of the first VM goes on where there is no memory, which KVM cannot emulate: KVM_EXIT_INTERNAL_ERROR.
    InternalError,
}

impl End {
    /// Whether it is the guest that ends, so that a vCPU must run for it.
    #[must_use]
    pub fn is_guests(self) -> bool {
        matches!(self, Self::TripleFault | Self::Halt | Self::SystemEvent | Self::InternalError)
    }
}

impl FromStr for End {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "exit0" => Ok(Self::Exit(0)),
            "crash" => Ok(Self::Crash),
            "abort" => Ok(Self::Abort),
            "sigkill" => Ok(Self::Sigkill),
            "triple-fault" => Ok(Self::TripleFault),
            "halt" => Ok(Self::Halt),
            "system-event" => Ok(Self::SystemEvent),
            "internal-error" => Ok(Self::InternalError),
            _ => {
                text.strip_prefix("exit=").and_then(|code| code.parse().ok()).map(Self::Exit).ok_or_else(|| {
                    "use exit0, exit=N (N is 0 to 255), crash, abort, sigkill, triple-fault, halt, system-event or internal-error".into()
                })
            }
        }
    }
}

/// Has signals end the process that end any other program. Under nohup(1) a hang-up is ignored, by children too, and so are
/// the terminal's in what a shell has in the background: a test that ends a VM so would wait for ever.
///
/// # Errors
/// When the kernel refuses.
pub fn die_of_signals() -> nix::Result<()> {
    for ends in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM] {
        // SAFETY: no handler is put in or taken out, the default action is no code of ours.
        unsafe { signal(ends, SigHandler::SigDfl) }?;
    }
    Ok(())
}

/// Ends the process at once, all threads with it, without unwinding or exit handlers.
pub fn leave(code: u8) -> ! {
    // SAFETY: `_exit` touches no memory of the program; nothing of this VMM needs to be flushed or dropped.
    unsafe { libc::_exit(code.into()) }
}

/// Does an end that is the host process's own; returns for those that are the guest's.
pub fn perform(end: End) {
    match end {
        End::Exit(code) => leave(code),
        End::Crash => crash(),
        End::Abort => {
            no_core();
            std::process::abort();
        }
        End::Sigkill => {
            let killed = kill(Pid::this(), Signal::SIGKILL);
            eprintln!("kvmeter-testvm: cannot kill itself: {killed:?}");
        }
        End::TripleFault | End::Halt | End::SystemEvent | End::InternalError => {}
    }
}

/// A write that the kernel refuses: a fault with a kernel `si_code`, unlike `raise`.
fn crash() {
    no_core();
    // SAFETY: a fresh mapping that nothing else knows of.
    let page = unsafe {
        libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
    };
    // SAFETY: not sound on purpose: the page must not be written, and the process ends here by SIGSEGV.
    unsafe { page.cast::<u8>().write_volatile(1) };
}

fn no_core() {
    if nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0).is_err() {
        // Then a core file may be left behind; the end is the same.
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_has_a_name() {
        assert_eq!("exit0".parse(), Ok(End::Exit(0)));
        assert_eq!("exit=255".parse(), Ok(End::Exit(255)));
        assert_eq!("triple-fault".parse(), Ok(End::TripleFault));
    }

    #[test]
    fn a_bad_way_is_refused_with_the_good_ones() {
        for bad in ["", "exit", "exit=256", "exit=-1", "EXIT0"] {
            let error = bad.parse::<End>().unwrap_err();
            assert!(error.contains("triple-fault"), "{bad}: {error}");
        }
    }
}
