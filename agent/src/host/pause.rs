//! Whether a VM is held: its process is stopped by a signal, or each of its vCPU threads sleeps outside `KVM_RUN`.
//!
//! A guest that is idle sleeps inside `KVM_RUN`; a VMM that pauses one keeps its vCPU threads waiting for something of
//! its own. Read from `stat` and `syscall` in `/proc` (proc_pid_syscall in fs/proc/base.c).

use super::process::{ProcError, ProcFs};
use crate::units::{Tgid, Tid};

/// `_IO(KVMIO, 0x80)`, include/uapi/linux/kvm.h.
const KVM_RUN: u64 = 0xae80;

/// Whether the process's vCPUs are held at this instant.
///
/// # Errors
/// [`ProcError`] when that cannot be seen.
pub fn is_held(procfs: &ProcFs, tgid: Tgid, vcpus: &[Tid]) -> Result<bool, ProcError> {
    if matches!(procfs.stat(tgid)?.state, 'T' | 't') {
        return Ok(true);
    }
    for vcpu in vcpus {
        if !sleeps_outside(&procfs.syscall(tgid, *vcpu)?) {
            return Ok(false);
        }
    }
    Ok(!vcpus.is_empty())
}

/// Whether a thread's `syscall` says that it sleeps in a system call that is not `KVM_RUN`: number in decimal, then
/// six arguments in hex. `running` and `-1` (not in a system call) say that it could go on.
fn sleeps_outside(text: &str) -> bool {
    let mut words = text.split_ascii_whitespace();
    let Some(number) = words.next().and_then(|word| word.parse::<libc::c_long>().ok()).filter(|number| *number >= 0)
    else {
        return false;
    };
    let request = words.nth(1).and_then(|word| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok());
    number != libc::SYS_ioctl || request != Some(KVM_RUN)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_a_thread_that_sleeps_outside_kvm_run_is_held() {
        let ioctl = libc::SYS_ioctl;
        for (text, held) in [
            ("running\n".to_owned(), false),
            ("-1 0x7ffd 0x7f00\n".to_owned(), false),
            (format!("{ioctl} 0x9 0xae80 0x0 0x0 0x0 0x0 0x7ffd 0x7f00\n"), false),
            (format!("{ioctl} 0x9 0xae03 0x0 0x0 0x0 0x0 0x7ffd 0x7f00\n"), true),
            (format!("{} 0x5 0x80 0x0 0x0 0x0 0x0 0x7ffd 0x7f00\n", libc::SYS_futex), true),
            (String::new(), false),
        ] {
            assert_eq!(sleeps_outside(&text), held, "{text:?}");
        }
    }

    #[test]
    fn a_process_that_waits_with_all_threads_named_is_held_and_one_without_is_not() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let procfs = ProcFs::new(std::path::Path::new("/"));
        let (tgid, tid) = (Tgid(child.id()), Tid(child.id()));
        let held = |vcpus: &[Tid]| is_held(&procfs, tgid, vcpus);
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !matches!(held(&[tid]), Ok(true)) {
            assert!(std::time::Instant::now() < end, "it sleeps in clock_nanosleep");
        }
        assert!(matches!(held(&[]), Ok(false)), "no vCPU is known");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(tid.get().cast_signed()), nix::sys::signal::Signal::SIGSTOP)
            .unwrap();
        while !matches!(held(&[]), Ok(true)) {
            assert!(std::time::Instant::now() < end, "it is stopped");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(held(&[tid]).is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,80}|[-0-9a-fx ]{0,40}") {
            let _ = sleeps_outside(&text);
        }
    }
}
