//! What counters of one life can be: they only grow, and no CPU runs longer than time passed.

use super::super::{Kind, Line, NetUsage, Subject, TimeQuality, Usage};

/// CPU time is counted on the scheduler's clock and age on CLOCK_BOOTTIME, which NTP may slew by 500 ppm.
const SLEW_PARTS: u128 = 2000;
/// A reading of counters and the reading of the clock lie at most a tick (HZ=100) apart.
const TICK_NS: u128 = 10_000_000;

/// What a life has shown so far.
#[derive(Debug)]
pub(super) struct Meter {
    start_mono_ns: Option<u64>,
    vcpus: u32,
    usage: Usage,
}

impl Meter {
    pub(super) fn new(start: &Line) -> Self {
        let exact = start.fact.time_quality == TimeQuality::Exact;
        Self { start_mono_ns: exact.then_some(start.fact.mono_ns), vcpus: 0, usage: Usage::default() }
    }

    /// Takes the counters of the next line of this life.
    pub(super) fn accept(&mut self, line: &Line, host_cpus: u32, faults: &mut Vec<String>) {
        self.vcpus = self.vcpus.max(line.fact.shape.cpu);
        let Some(usage) = &line.fact.usage else { return };
        for ((name, before), (_, now)) in self.usage.counters().into_iter().zip(usage.counters()) {
            check_growth(name, before, now, faults);
        }
        for net in &usage.net {
            let same = |n: &&NetUsage| n.interface == net.interface && n.class == net.class;
            if let Some(before) = self.usage.net.iter().find(same) {
                check_net(before, net, faults);
            }
        }
        if let Some(age) = self.age_ns(line).map(|age| age.saturating_add(until_written(line))) {
            check_time("cpu_vcpu_ns", usage.cpu_vcpu_ns, self.vcpus, "vCPUs", age, faults);
            check_time("cpu_ns", usage.cpu_ns(), host_cpus, "host CPUs", age, faults);
        }
        self.keep(usage);
    }

    /// A start line's instant is the process's start, so only its coverage tells how long its counters ran.
    fn age_ns(&self, line: &Line) -> Option<u64> {
        let covered = line.fact.coverage.map(|c| c.observed_ns.saturating_add(c.unobserved_ns));
        match self.start_mono_ns {
            Some(start) if line.fact.kind != Kind::VmComputeStart => Some(line.fact.mono_ns.saturating_sub(start)),
            _ => covered,
        }
    }

    /// A counter that is missing on one line still binds the next.
    fn keep(&mut self, usage: &Usage) {
        let (old, new) = (std::mem::take(&mut self.usage), usage.clone());
        self.usage = Usage {
            cpu_vcpu_ns: new.cpu_vcpu_ns.or(old.cpu_vcpu_ns),
            cpu_vmm_ns: new.cpu_vmm_ns.or(old.cpu_vmm_ns),
            cpu_io_ns: new.cpu_io_ns.or(old.cpu_io_ns),
            cpu_vhost_ns: new.cpu_vhost_ns.or(old.cpu_vhost_ns),
            guest_ns: new.guest_ns.or(old.guest_ns),
            halt_poll_ns: new.halt_poll_ns.or(old.halt_poll_ns),
            run_delay_ns: new.run_delay_ns.or(old.run_delay_ns),
            mem_byte_ns: new.mem_byte_ns.or(old.mem_byte_ns),
            mem_peak_bytes: new.mem_peak_bytes.or(old.mem_peak_bytes),
            disk_read_bytes: new.disk_read_bytes.or(old.disk_read_bytes),
            disk_written_bytes: new.disk_written_bytes.or(old.disk_written_bytes),
            net: keep_net(old.net, new.net),
            net_unobserved: new.net_unobserved,
        };
    }
}

/// From a line's instant until it was written, nanoseconds: its counters were final then, and not before. What the kernel does
/// to end a process is charged to it behind the instant of its exit (`do_exit` has its files, and so the KVM VM, let go after
/// `sched_process_exit`): 0.3 to 1.2 ms for VMs without memory on 6.18, and more where a host's CPUs are taken away meanwhile.
fn until_written(line: &Line) -> u64 {
    line.recorded_at.saturating_sub(line.fact.emitted_at)
}

/// Who a line is about, if it is a VM process.
pub(super) fn incarnation(line: &Line) -> Option<&str> {
    match &line.fact.subject {
        Subject::Incarnation(text) => Some(text),
        _ => None,
    }
}

fn check_growth(name: &str, before: Option<u128>, now: Option<u128>, faults: &mut Vec<String>) {
    if let (Some(before), Some(now)) = (before, now)
        && now < before
    {
        faults.push(format!("`{name}` fell from {before} to {now}"));
    }
}

/// The newest numbers of every interface and class there ever were.
fn keep_net(mut old: Vec<NetUsage>, new: Vec<NetUsage>) -> Vec<NetUsage> {
    old.retain(|o| !new.iter().any(|n| n.interface == o.interface && n.class == o.class));
    old.extend(new);
    old
}

fn check_net(before: &NetUsage, now: &NetUsage, faults: &mut Vec<String>) {
    for (name, old, new) in [
        ("receive_bytes", before.receive_bytes, now.receive_bytes),
        ("receive_packets", before.receive_packets, now.receive_packets),
        ("transmit_bytes", before.transmit_bytes, now.transmit_bytes),
        ("transmit_packets", before.transmit_packets, now.transmit_packets),
    ] {
        let name = format!("net {:?} {name}", now.interface);
        check_growth(&name, Some(old.into()), Some(new.into()), faults);
    }
}

fn check_time(name: &str, used: Option<u64>, cpus: u32, what: &str, age_ns: u64, faults: &mut Vec<String>) {
    let Some(used) = used.filter(|_| cpus > 0) else { return };
    let age = u128::from(age_ns);
    if u128::from(used) > u128::from(cpus) * (age + age / SLEW_PARTS + TICK_NS) {
        faults.push(format!("`{name}` is {used}, more than {cpus} {what} can use in {age_ns} ns"));
    }
}
