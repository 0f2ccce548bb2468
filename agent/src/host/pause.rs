//! Whether a VM's process is stopped by a signal, from its state in `/proc`.
//!
//! vCPU threads that sleep outside `KVM_RUN` say nothing: a VMM that handles halts itself keeps those of an idle guest
//! there too, and such a VM is not paused.

use super::process::{ProcError, ProcFs};
use crate::units::Tgid;

/// Whether the process is stopped at this instant.
///
/// # Errors
/// [`ProcError`] when that cannot be seen.
pub fn is_stopped(procfs: &ProcFs, tgid: Tgid) -> Result<bool, ProcError> {
    Ok(matches!(procfs.stat(tgid)?.state, 'T' | 't'))
}

#[cfg(test)]
mod tests {
    use nix::{
        sys::signal::{Signal, kill},
        unistd::Pid,
    };

    use super::*;

    #[test]
    fn a_process_that_sleeps_is_not_stopped_and_one_that_was_sent_the_signal_is() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let (procfs, tgid) = (ProcFs::new(std::path::Path::new("/")), Tgid(child.id()));
        assert!(matches!(is_stopped(&procfs, tgid), Ok(false)));
        kill(Pid::from_raw(tgid.get().cast_signed()), Signal::SIGSTOP).unwrap();
        let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while !matches!(is_stopped(&procfs, tgid), Ok(true)) {
            assert!(std::time::Instant::now() < end, "it is stopped");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(is_stopped(&procfs, tgid).is_err());
    }
}
