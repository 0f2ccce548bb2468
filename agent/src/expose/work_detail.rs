//! What a VM's threads did, each vCPU by itself, as the API tells it. Nanoseconds are decimal strings, as everywhere.

use super::answer::{Decimal, Entries, Nullable, answers};
use crate::{
    account::{Role, VmView, work},
    bpf::VcpuReading,
    vm::{exit_class, exit_reason},
};

answers! {
    /// What a VM's threads did; what was not measured is absent.
    struct Work {
        guest_ns: Option<Decimal> = "Time inside the guest.";
        halt_poll_ns: Option<Decimal> = "Time spent polling while halted, with success.";
        cpu_throttled_ns: Option<Decimal> = "Time its control groups were throttled.";
        cpu_throttled_why_not: Option<String> = "Why that is not known.";
        memory: Option<super::memory::Memory> = "Its memory.";
        vcpu_mode_ns: Option<Entries<Decimal>> = "Time of its vCPUs by what they did.";
        halted_ns: Option<Decimal> = "Time its vCPUs were halted.";
        halts: Option<u64> = "How often they were.";
        guest_entries: Option<u64> = "Entries into the guest.";
        exits: Option<Entries<u64>> = "Exits from the guest by reason.";
        userspace_exits: Option<Entries<u64>> = "Returns to the VMM by reason.";
        preempted_ns: Option<Entries<Decimal>> = "Time its threads waited, by who ran: a vm_id, host, other.";
        vcpus: Option<Vec<Vcpu>> = "Each vCPU.";
    }

    /// One vCPU.
    struct Vcpu {
        vcpu: Nullable<usize> = "Its number, in the order in which they were seen.";
        tid: u32 = "Its thread.";
        cpu_ns: Decimal = "Time on a CPU.";
        cpu_delay_ns: Decimal = "Time runnable but not running.";
        halts: u64 = "How often it was halted.";
        halted_ns: Decimal = "For how long.";
        mode_ns: Option<Entries<Decimal>> = "Time by what it did.";
        guest_entries: Option<u64> = "Entries into the guest.";
        exits: Option<Entries<u64>> = "Exits from the guest by reason.";
    }
}

fn times<'a>(pairs: impl IntoIterator<Item = (&'a str, u64)>) -> Entries<Decimal> {
    Entries(pairs.into_iter().map(|(key, ns)| (key.to_owned(), Decimal::from(ns))).collect())
}

fn counts(pairs: impl IntoIterator<Item = (&'static str, u64)>) -> Entries<u64> {
    Entries(pairs.into_iter().map(|(key, count)| (key.to_owned(), count)).collect())
}

/// All that is known of what a VM's threads did, and of its memory up to `sampled_ns`.
#[must_use]
pub fn of(vm: &VmView, sampled_ns: u64) -> Work {
    let work = vm.work.as_deref();
    let cpu = vm.cpu.unwrap_or_default();
    let halts = work.filter(|work| work.halts_told).map(|work| &work.vcpu);
    let entered = work.filter(|work| work.vcpu.entries > 0).map(|work| &work.vcpu);
    let numbered = |(place, vcpu): (usize, &VcpuReading)| one(vcpu, vm.vcpu_number(place, vcpu.tid));
    Work {
        guest_ns: vm.guest_ns.map(Decimal::from),
        halt_poll_ns: vm.halt_poll_ns.map(Decimal::from),
        cpu_throttled_ns: vm.throttled_ns.map(Decimal::from),
        cpu_throttled_why_not: vm.unthrottled.as_deref().map(str::to_owned),
        memory: vm.memory.as_deref().map(|memory| super::memory::answer(memory, sampled_ns)),
        vcpu_mode_ns: work.and_then(|work| work::modes(cpu.of(Role::Vcpu).runtime_ns, &work.vcpu)).map(times),
        halted_ns: halts.map(|times| times.halted_ns.into()),
        halts: halts.map(|times| times.halts),
        guest_entries: entered.map(|times| times.entries),
        exits: entered.map(|times| counts(exit_class::by_label(&times.exits))),
        userspace_exits: work.map(|work| counts(exit_reason::by_label(&work.userspace_exits))),
        preempted_ns: work
            .filter(|_| vm.cpu.is_some())
            .map(|work| times(work::waited_for(cpu.run_delay_ns(), work, &vm.offenders))),
        vcpus: work.map(|work| work.vcpus.iter().enumerate().map(numbered).collect()),
    }
}

fn one(vcpu: &VcpuReading, number: Option<usize>) -> Vcpu {
    let modes = work::modes(vcpu.time.runtime_ns, &vcpu.times);
    let known = modes.is_some();
    Vcpu {
        vcpu: Nullable(number),
        tid: vcpu.tid,
        cpu_ns: vcpu.time.runtime_ns.into(),
        cpu_delay_ns: vcpu.time.run_delay_ns.into(),
        halts: vcpu.times.halts,
        halted_ns: vcpu.times.halted_ns.into(),
        mode_ns: modes.map(times),
        guest_entries: known.then_some(vcpu.times.entries),
        exits: known.then(|| counts(exit_class::by_label(&vcpu.times.exits))),
    }
}
