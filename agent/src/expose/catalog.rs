//! Every metric: name, type, unit, labels with their closed values, help. What is exposed is built from these rows and
//! `docs/metrics.md` is generated from them, so names cannot come apart.

use crate::{
    account::Role,
    vm::{exit_class, exit_reason},
};

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Only grows, until its VM's next life.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Cumulative buckets.
    Histogram,
}

impl Type {
    /// The word of the text format.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Full name.
    pub name: &'static str,
    /// What it is.
    pub kind: Type,
    /// Base unit, or what is counted.
    pub unit: &'static str,
    /// Label names, `vm_id` and `name` first on series of a VM.
    pub labels: &'static [&'static str],
    /// The help line.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($id:ident: $kind:ident $name:literal [$($label:literal),*] $unit:literal, $help:literal;)+) => {
        $(
            #[doc = $help]
            pub const $id: Metric =
                Metric { name: $name, kind: Type::$kind, unit: $unit, labels: &[$($label),*], help: $help };
        )+
        /// All of them, in the order of the documentation.
        pub const METRICS: &[Metric] = &[$($id),+];
    };
}

metrics! {
    VM_INFO: Gauge "kvmeter_vm_info" ["vm_id", "name", "uuid", "incarnation", "hypervisor", "cgroup", "tenant"] "1",
        "What describes a VM, to join with; always 1.";
    VM_CPU: Counter "kvmeter_vm_cpu_seconds_total" ["vm_id", "name", "role"] "seconds",
        "Time on a CPU, as the scheduler accounted it; the roles sum to the VM's whole.";
    VM_CPU_DELAY: Counter "kvmeter_vm_cpu_delay_seconds_total" ["vm_id", "name", "role"] "seconds",
        "Time runnable but not running: what the VM waited for a CPU.";
    VM_GUEST_CPU: Counter "kvmeter_vm_guest_cpu_seconds_total" ["vm_id", "name"] "seconds",
        "Time inside the guest, from entry to exit; part of role vcpu, never add it; absent where entries are not told.";
    VM_VCPU_MODE: Counter "kvmeter_vm_vcpu_mode_seconds_total" ["vm_id", "name", "mode"] "seconds",
        "Where the time of role vcpu went: guest, handling exits in the kernel, the VMM's user space, polling; other is the rest, and what was before the kernel programs.";
    VM_HALT_POLL: Counter "kvmeter_vm_halt_poll_seconds_total" ["vm_id", "name"] "seconds",
        "Time burnt polling for an interrupt while halted, with success; a failed poll is part of the halt.";
    VM_HALTED: Counter "kvmeter_vm_halted_seconds_total" ["vm_id", "name"] "seconds",
        "Time vCPUs were halted, polls included.";
    VM_THROTTLED: Counter "kvmeter_vm_cpu_throttled_seconds_total" ["vm_id", "name"] "seconds",
        "Time the VM's control group was throttled by its CPU quota, a part of its delay; absent where the group is not the VM's own.";
    VM_EXITS: Counter "kvmeter_vm_exits_total" ["vm_id", "name", "reason"] "exits",
        "Guest exits by reason, one vocabulary for all processors; absent where exits are not told.";
    VM_PREEMPTED: Counter "kvmeter_vm_preempted_seconds_total" ["vm_id", "name", "by"] "seconds",
        "The VM's delay by who ran instead: the first four other VMs, tasks of the host, and the rest; sums to the delay.";
    VM_EXIT_HANDLING: Histogram "kvmeter_vm_exit_handling_seconds" ["vm_id", "name"] "seconds",
        "From a guest exit to the next entry, halts apart; with metrics.histograms.";
    VM_RUN_DELAY: Histogram "kvmeter_vm_run_delay_seconds" ["vm_id", "name"] "seconds",
        "How long each wait in a run queue was; with metrics.histograms.";
    VCPU_CPU: Counter "kvmeter_vm_vcpu_cpu_seconds_total" ["vm_id", "name", "vcpu"] "seconds",
        "Time of one vCPU on a CPU; part of role vcpu; with metrics.per_vcpu.";
    VCPU_DELAY: Counter "kvmeter_vm_vcpu_delay_seconds_total" ["vm_id", "name", "vcpu"] "seconds",
        "Time one vCPU waited for a CPU; with metrics.per_vcpu.";
    VCPU_GUEST: Counter "kvmeter_vm_vcpu_guest_seconds_total" ["vm_id", "name", "vcpu"] "seconds",
        "Time of one vCPU inside the guest; with metrics.per_vcpu.";
    VM_USERSPACE_EXITS: Counter "kvmeter_vm_userspace_exits_total" ["vm_id", "name", "reason"] "exits",
        "Returns of KVM_RUN to the VMM; absent where the hook is.";
    VM_MEMORY_CONFIGURED: Gauge "kvmeter_vm_memory_configured_bytes" ["vm_id", "name"] "bytes",
        "Memory the VM was configured with; absent where its VMM does not tell.";
    VM_VCPUS: Gauge "kvmeter_vm_vcpus" ["vm_id", "name"] "vcpus",
        "Virtual CPUs, counted at KVM's file descriptors.";
    VM_START: Gauge "kvmeter_vm_start_time_seconds" ["vm_id", "name"] "seconds",
        "When the VM's process started, in Unix time.";
    VM_RUNNING: Gauge "kvmeter_vm_running" ["vm_id", "name"] "bool",
        "1 while the VM's process lives, 0 for a while after its end.";
    VMS: Gauge "kvmeter_vms" ["state"] "vms",
        "VMs shown now, by state.";
    VM_STARTS: Counter "kvmeter_vm_starts_total" ["hypervisor", "reason"] "vms",
        "VMs seen starting; those found running when the agent came are none.";
    VM_STOPS: Counter "kvmeter_vm_stops_total" ["hypervisor", "reason"] "vms",
        "VMs seen ending.";
    VM_BOOT: Histogram "kvmeter_vm_boot_seconds" [] "seconds",
        "Process start to first guest entry; to the first return from KVM_RUN where entries are not told.";
    EXIT_HANDLING: Histogram "kvmeter_exit_handling_seconds" [] "seconds",
        "From a guest exit to the next entry, halts apart, over all VMs.";
    RUN_DELAY: Histogram "kvmeter_run_delay_seconds" [] "seconds",
        "How long each wait of a VM's thread in a run queue was, over all VMs.";
    VM_ID_CONFLICTS: Counter "kvmeter_vm_id_conflicts_total" [] "vms",
        "VMs that took their fallback id because another living VM has theirs.";
    UNRUN_VMS: Counter "kvmeter_unrun_vms_total" [] "vms",
        "KVM VMs made and destroyed without a guest having run; they get no ledger line.";
    VMS_UNSHOWN: Counter "kvmeter_stopped_vms_dropped_total" [] "vms",
        "Stopped VMs dropped before their linger time because too many lingered.";
    BUILD_INFO: Gauge "kvmeter_build_info" ["version", "git_commit"] "1",
        "What this agent was built from; always 1.";
    FEATURE: Gauge "kvmeter_feature_available" ["feature"] "bool",
        "1 if a kernel program or source is at work, 0 if it cannot be; kvmeter doctor says why.";
    EVENTS_LOST: Counter "kvmeter_events_lost_total" ["stage"] "events",
        "What a bound or a full table cost, counted where it happened.";
    SAMPLE_ERRORS: Counter "kvmeter_sample_errors_total" ["source"] "errors",
        "Readings that failed; the previous value was kept.";
    SAMPLE_DURATION: Histogram "kvmeter_sample_duration_seconds" [] "seconds",
        "How long one sample of all VMs took.";
    CLOCK_STEPS: Counter "kvmeter_clock_steps_total" [] "steps",
        "Steps of the wall clock of 100 ms or more.";
    KVM_VMS: Gauge "kvmeter_kvm_vm_objects" ["source"] "vms",
        "KVM VM objects: as KVM counts them (uevent), and as descriptors found in /proc at the last full scan (held).";
    LEDGER_RECORDS: Counter "kvmeter_ledger_records_total" ["kind"] "records",
        "Ledger lines made durable by this agent.";
    LEDGER_FAILURES: Counter "kvmeter_ledger_write_failures_total" ["op"] "failures",
        "Failed attempts to write the ledger.";
    LEDGER_SEQUENCE: Gauge "kvmeter_ledger_sequence" [] "records",
        "Sequence number of the last durable ledger line.";
    LEDGER_SPOOLED: Gauge "kvmeter_ledger_spooled_records" [] "records",
        "Ledger lines that wait in memory.";
    LEDGER_FREE: Gauge "kvmeter_ledger_free_bytes" [] "bytes",
        "Space left for the agent where the ledger is kept.";
}

/// A label's meaning and its closed set of values, if it has one.
#[must_use]
pub fn values(label: &str) -> String {
    match label {
        "role" => Role::ALL.map(Role::as_label).join(", "),
        "mode" => crate::account::work::MODES.join(", "),
        "by" => "vm_id of the first four others, host, other".to_owned(),
        "vcpu" => "0, 1, 2 … in the order in which the vCPUs were seen".to_owned(),
        "state" => "running, stopped".to_owned(),
        "op" => crate::ledger::Op::ALL.iter().map(|op| op.as_str()).collect::<Vec<_>>().join(", "),
        "kind" => crate::ledger::Kind::ALL.iter().map(|k| k.as_str()).collect::<Vec<_>>().join(", "),
        "stage" => {
            let stages = kvmeter_common::loss::STAGES.iter().copied();
            stages.chain(crate::engine::OWN_STAGES).collect::<Vec<_>>().join(", ")
        }
        "feature" => {
            let programs = crate::bpf::programs::PROGRAMS.iter().map(|p| p.name);
            programs.chain(["cpu", "uevents"]).collect::<Vec<_>>().join(", ")
        }
        "hypervisor" => "qemu, firecracker, cloud-hypervisor, crosvm, kvmtool, unknown".to_owned(),
        "vm_id" => "one a VM: its UUID, else name or VMM id, else <vmm>-<pid>-<hash>".to_owned(),
        "incarnation" => "one a life of a VM's process".to_owned(),
        "name" | "uuid" | "tenant" | "cgroup" => "free text, at most 128 bytes; empty if unknown".to_owned(),
        "version" | "git_commit" => "one each".to_owned(),
        _ => String::new(),
    }
}

/// Values of `reason`, which differ by metric.
#[must_use]
pub fn reasons(metric: &Metric) -> String {
    match metric.name {
        "kvmeter_vm_exits_total" => exit_class::labels().collect::<Vec<_>>().join(", "),
        "kvmeter_vm_userspace_exits_total" => exit_reason::labels().collect::<Vec<_>>().join(", "),
        _ => {
            let all = crate::ledger::Reason::ALL.iter().map(|r| r.as_str());
            all.chain(["unknown"]).collect::<Vec<_>>().join(", ")
        }
    }
}

/// Values of `source`, which differ by metric.
#[must_use]
pub fn sources(metric: &Metric) -> String {
    match metric.name {
        "kvmeter_kvm_vm_objects" => "uevent, held".to_owned(),
        _ => crate::engine::SOURCES.join(", "),
    }
}

/// The catalogue as Markdown, which is `docs/metrics.md`.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from(
        "# Metrics\n\nGenerated by `cargo xtask docs` from the catalogue in `agent/src/expose/catalog.rs`; do not edit.\n\n\
         | metric | type | unit | labels | |\n|---|---|---|---|---|\n",
    );
    for metric in METRICS {
        let labels = metric.labels.iter().map(|l| format!("`{l}`")).collect::<Vec<_>>().join(" ");
        text += &format!(
            "| `{}` | {} | {} | {labels} | {} |\n",
            metric.name,
            metric.kind.as_str(),
            metric.unit,
            metric.help
        );
    }
    text += "\n## Labels\n\n| label | on | values |\n|---|---|---|\n";
    let mut seen: Vec<(String, String)> = Vec::new();
    for metric in METRICS {
        for label in metric.labels {
            let (on, values) = match *label {
                "reason" => (format!("`{}`", metric.name), reasons(metric)),
                "source" => (format!("`{}`", metric.name), sources(metric)),
                _ => ("all".to_owned(), values(label)),
            };
            if !seen.contains(&((*label).to_owned(), on.clone())) {
                text += &format!("| `{label}` | {on} | {values} |\n");
                seen.push(((*label).to_owned(), on));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_and_every_label_of_it_occurs_once_and_is_one_prometheus_takes() {
        let word = |text: &str| {
            text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
                && text.starts_with(|c: char| c.is_ascii_lowercase())
        };
        for (at, metric) in METRICS.iter().enumerate() {
            assert!(METRICS[at + 1..].iter().all(|other| other.name != metric.name), "{}", metric.name);
            assert!(word(metric.name) && metric.labels.iter().all(|label| word(label)), "{}", metric.name);
            let labels: std::collections::BTreeSet<_> = metric.labels.iter().collect();
            assert_eq!(labels.len(), metric.labels.len(), "{}", metric.name);
        }
    }

    #[test]
    fn names_follow_the_fields_conventions() {
        for metric in METRICS {
            assert!(metric.name.starts_with("kvmeter_"), "{}", metric.name);
            assert_eq!(metric.kind == Type::Counter, metric.name.ends_with("_total"), "{}", metric.name);
            assert!(metric.help.ends_with('.'), "{}", metric.name);
        }
    }

    #[test]
    fn no_label_holds_a_pid_path_timestamp_or_free_text() {
        let free = ["name", "tenant", "cgroup", "uuid", "vm_id", "incarnation", "version", "git_commit"];
        for metric in METRICS {
            for label in metric.labels {
                assert!(!["pid", "tgid", "path", "time", "error"].contains(label));
                let closed = free.contains(label) || ["reason", "source"].contains(label) || !values(label).is_empty();
                assert!(closed, "{}: {label} has no set of values", metric.name);
            }
        }
    }
}
