//! Where a VM's CPU time went, and what it waited for.

use super::{Metric, Type};

metrics! {
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
    VM_ID_CONFLICTS: Counter "kvmeter_vm_id_conflicts_total" [] "vms",
        "VMs that took their fallback id because another living VM has theirs.";
}
