//! The table of kernel programs: what each hooks, which kernel fields it needs, what is lost without it.

/// How a program meets the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// A tracepoint with typed arguments.
    BtfTracepoint(&'static str),
    /// A tracepoint with raw arguments (KVM may be a module, whose types take CAP_SYS_ADMIN to read).
    RawTracepoint(&'static str),
    /// A tracepoint's record.
    Tracepoint(&'static str, &'static str),
    /// Run by the agent on each CPU.
    OnRequest,
    /// A walk over all tasks, run by the agent.
    TaskWalk,
    /// Sockets of a control group of version 2, `ingress` or `egress`; attached to each VM's own group.
    Cgroup(&'static str),
}

impl std::fmt::Display for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::BtfTracepoint(name) => write!(f, "tp_btf/{name}"),
            Self::RawTracepoint(name) => write!(f, "raw_tp/{name}"),
            Self::Tracepoint(system, name) => write!(f, "tracepoint/{system}/{name}"),
            Self::OnRequest => f.write_str("test_run"),
            Self::TaskWalk => f.write_str("iter/task"),
            Self::Cgroup(way) => write!(f, "cgroup_skb/{way}"),
        }
    }
}

/// One kernel program.
pub struct Program {
    /// Its name in the object, in metrics and in `doctor`.
    pub name: &'static str,
    /// Where it attaches.
    pub hook: Hook,
    /// Globals of [`super::offsets::FIELDS`] it cannot do without.
    pub fields: &'static [&'static str],
    /// Without it the kernel side cannot account CPU at all, and `/proc` does.
    pub essential: bool,
    /// What is lost without it.
    pub gives: &'static str,
}

/// Fields read when a VM or thread gets its slot, by its own hook or by the walk that adopts.
const BIRTH: &[&str] = &[
    "TASK_PID",
    "TASK_TGID",
    "TASK_RUNTIME",
    "TASK_RUN_DELAY",
    "TASK_STATE",
    "TASK_ON_CPU",
    "TASK_SIGNAL",
    "TASK_LEADER",
    "TASK_START",
    "TASK_MM",
    "TASK_COMM",
    "TASK_FLAGS",
    "TASK_GUEST_TIME",
    "TASK_THREAD_NODE",
    "SIGNAL_LIVE",
    "SIGNAL_THREADS",
    "SIGNAL_RUNTIME",
    "SIGNAL_SEQUENCE",
    "MM_ARG_START",
    "MM_ARG_END",
];

/// Every program, in the order of loading: what ends a thread before what begins one.
pub const PROGRAMS: &[Program] = &[
    Program {
        name: "sched_switch",
        hook: Hook::BtfTracepoint("sched_switch"),
        fields: &["TASK_PID", "TASK_RUNTIME", "TASK_RUN_DELAY", "TASK_STATE", "TASK_START"],
        essential: true,
        gives: "on-CPU and run-queue time of every thread, exact at each switch",
    },
    Program {
        name: "sched_process_exit",
        hook: Hook::BtfTracepoint("sched_process_exit"),
        fields: &[
            "TASK_PID",
            "TASK_MM",
            "TASK_TGID",
            "TASK_SIGNAL",
            "TASK_LEADER",
            "TASK_EXIT_CODE",
            "TASK_RUNTIME",
            "TASK_RUN_DELAY",
            "TASK_START",
            "SIGNAL_LIVE",
            "SIGNAL_FLAGS",
            "SIGNAL_EXIT_CODE",
        ],
        essential: true,
        gives: "when and how a VM's process ended",
    },
    Program {
        name: "task_newtask",
        hook: Hook::BtfTracepoint("task_newtask"),
        fields: &["TASK_PID", "TASK_TGID", "TASK_RUNTIME", "TASK_RUN_DELAY", "TASK_STATE", "TASK_ON_CPU"],
        essential: true,
        gives: "threads that live shorter than a sample",
    },
    Program {
        name: "refresh",
        hook: Hook::OnRequest,
        fields: &["TASK_RUNTIME", "TASK_RUN_DELAY", "TASK_GUEST_TIME"],
        essential: true,
        gives: "fresh numbers of vCPUs that never sleep",
    },
    Program {
        name: "walk_tasks",
        hook: Hook::TaskWalk,
        fields: BIRTH,
        essential: true,
        gives: "VMs that ran before the agent did",
    },
    Program {
        name: "task_rename",
        hook: Hook::BtfTracepoint("task_rename"),
        fields: BIRTH,
        essential: false,
        gives: "threads that do I/O, and kernel threads that work for a VM, told apart by their names at once",
    },
    Program {
        name: "signal_generate",
        hook: Hook::BtfTracepoint("signal_generate"),
        fields: &["TASK_PID", "TASK_TGID", "TASK_STATE", "TASK_LEADER", "TASK_COMM", "SIGINFO_CODE"],
        essential: false,
        gives: "who sent the signal that ended a VM",
    },
    Program {
        name: "mark_victim",
        hook: Hook::BtfTracepoint("mark_victim"),
        fields: &["TASK_PID", "TASK_TGID", "TASK_STATE"],
        essential: false,
        gives: "kills by the OOM killer told from others, together with signal_generate",
    },
    Program {
        name: "host_socket_receive",
        hook: Hook::Cgroup("ingress"),
        fields: &[],
        essential: false,
        gives: "bytes that the VMM's own sockets receive, where a VM has a cgroup v2 of its own",
    },
    Program {
        name: "host_socket_transmit",
        hook: Hook::Cgroup("egress"),
        fields: &[],
        essential: false,
        gives: "bytes that the VMM's own sockets send, where a VM has a cgroup v2 of its own",
    },
    Program {
        name: "kvm_exit",
        hook: Hook::RawTracepoint("kvm_exit"),
        fields: &[],
        essential: false,
        gives: "time inside the guest, and how long exits are handled",
    },
    Program {
        name: "kvm_exit_reason",
        hook: Hook::Tracepoint("kvm", "kvm_exit"),
        fields: &["KVM_EXIT_REASON", "KVM_EXIT_ISA"],
        essential: false,
        gives: "exits by reason",
    },
    Program {
        name: "kvm_vcpu_wakeup",
        hook: Hook::RawTracepoint("kvm_vcpu_wakeup"),
        fields: &[],
        essential: false,
        gives: "halted time and successful halt polls",
    },
    Program {
        name: "kvm_entry",
        hook: Hook::RawTracepoint("kvm_entry"),
        fields: BIRTH,
        essential: false,
        gives: "time inside the guest, the first guest entry (boot time); a vCPU that never leaves KVM_RUN is seen at once",
    },
    Program {
        name: "kvm_userspace_exit",
        hook: Hook::RawTracepoint("kvm_userspace_exit"),
        fields: BIRTH,
        essential: false,
        gives: "VMs of any VMM at their first exit, exits to user space by reason, why a guest stopped",
    },
    Program {
        name: "rss_stat",
        hook: Hook::BtfTracepoint("rss_stat"),
        fields: &["MM_OWNER", "TASK_PID"],
        essential: false,
        gives: "which VMs' memory has moved, so that idle VMs are not read; without it each VM is read at every sample",
    },
    Program {
        name: "kvm_page_fault",
        hook: Hook::RawTracepoint("kvm_page_fault"),
        fields: &[],
        essential: false,
        gives: "faults of the guests that KVM handled",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_a_program_needs_is_a_known_one() {
        for program in PROGRAMS {
            for field in program.fields {
                let of_type = super::super::offsets::FIELDS.iter().any(|f| f.global == *field);
                let of_record = super::super::records::FIELDS.iter().any(|f| f.global == *field);
                assert!(of_type || of_record, "{}: {field}", program.name);
            }
        }
    }
}
