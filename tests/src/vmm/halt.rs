//! Halting in the kernel: how a guest that may not execute `hlt` (it runs at CPL 3) halts all the same.
//!
//! The VMM declares the vCPU halted and enters KVM_RUN, where the kernel polls and then blocks as it does after `hlt`; a
//! signal to the thread ends that, and the kernel fires `kvm_vcpu_wakeup`. The signal comes from a timer of the thread's
//! own, again and again until cleared: one that comes before KVM_RUN is entered wakes nobody.

use std::time::Duration;

use anyhow::{Context, Result};
use kvm_bindings::kvm_mp_state;
use kvm_ioctls::VcpuFd;
use nix::sys::signal::{SaFlags, SigAction, SigEvent, SigHandler, SigSet, SigevNotify, Signal, sigaction};
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;

/// How soon a signal that came too early is repeated.
const AGAIN: Duration = Duration::from_millis(1);
/// A timer of 0 would be disarmed.
const SOONEST: Duration = Duration::from_nanos(1);

/// Sets the vCPU's `KVM_MP_STATE_…`.
pub fn set_state(vcpu: &VcpuFd, state: u32) -> Result<()> {
    vcpu.set_mp_state(kvm_mp_state { mp_state: state })
        .with_context(|| format!("--halts: KVM_SET_MP_STATE {state} failed"))
}

/// Wakes the thread that made it out of KVM_RUN.
#[derive(Debug)]
pub struct Alarm(Timer);

impl Alarm {
    /// One for the calling thread, not set.
    pub fn new() -> Result<Self> {
        let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::SA_RESTART, SigSet::empty());
        // SAFETY: the handler does nothing, so there is nothing it could do at a wrong moment.
        unsafe { sigaction(Signal::SIGUSR1, &action) }.context("--halts: no handler for SIGUSR1")?;
        let thread_id = nix::unistd::gettid().as_raw();
        let event = SigEvent::new(SigevNotify::SigevThreadId { signal: Signal::SIGUSR1, thread_id, si_value: 0 });
        Timer::new(ClockId::CLOCK_MONOTONIC, event).context("--halts: no timer").map(Self)
    }

    /// Wakes after this time, and goes on.
    pub fn set(&mut self, after: Duration) -> Result<()> {
        let when = Expiration::IntervalDelayed(after.max(SOONEST).into(), AGAIN.into());
        self.0.set(when, TimerSetTimeFlags::empty()).context("--halts: cannot set the timer")
    }

    /// Wakes no more.
    pub fn clear(&mut self) -> Result<()> {
        let never = Expiration::OneShot(Duration::ZERO.into());
        self.0.set(never, TimerSetTimeFlags::empty()).context("--halts: cannot clear the timer")
    }
}

extern "C" fn nothing(_signal: libc::c_int) {}
