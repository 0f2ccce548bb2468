//! The host, the agent and its ledger.

use super::{Metric, Type};

metrics! {
    VMS: Gauge "kvmeter_vms" ["state"] "vms",
        "VMs shown now, by state; paused: the VMM's process is stopped by a signal.";
    VMS_CREATED: Counter "kvmeter_vms_created_total" [] "vms",
        "VMs whose start line this agent has made durable, those it found running included.";
    VMS_DESTROYED: Counter "kvmeter_vms_destroyed_total" [] "vms",
        "VMs whose stop line this agent has made durable.";
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
    UNRUN_VMS: Counter "kvmeter_unrun_vms_total" [] "vms",
        "KVM VMs made and destroyed without a guest having run; they get no ledger line.";
    VMS_UNSHOWN: Counter "kvmeter_stopped_vms_dropped_total" [] "vms",
        "Stopped VMs dropped before their linger time because too many lingered.";
    BUILD_INFO: Gauge "kvmeter_build_info" ["version", "git_commit"] "1",
        "What this agent was built from; always 1.";
    FEATURE: Gauge "kvmeter_feature_available" ["feature"] "bool",
        "1 if a kernel program or source is at work, 0 if it cannot be; kvmeter doctor says why.";
    PROGRAM_RUNS: Counter "kvmeter_program_runs_total" ["program"] "runs",
        "How often a kernel program ran; absent unless kernel.bpf_stats_enabled is on.";
    PROGRAM_RUN_TIME: Counter "kvmeter_program_run_seconds_total" ["program"] "seconds",
        "How long a kernel program ran; absent unless kernel.bpf_stats_enabled is on.";
    PROGRAM_MISSES: Counter "kvmeter_program_misses_total" ["program"] "runs",
        "Runs the kernel skipped because the program was under way on that CPU (from 7.0 on it can be preempted there): \
         what it counts lacks them. CPU time and traffic cannot be lost so. Absent before kernel 5.12.";
    EVENTS_LOST: Counter "kvmeter_events_lost_total" ["stage"] "events",
        "What a bound or a full table cost, counted where it happened.";
    SAMPLE_ERRORS: Counter "kvmeter_sample_errors_total" ["source"] "errors",
        "Readings that failed; the previous value was kept.";
    SAMPLE_DURATION: Histogram "kvmeter_sample_duration_seconds" [] "seconds",
        "How long one sample of all VMs took.";
    SCRAPE_DURATION: Gauge "kvmeter_scrape_duration_seconds" [] "seconds",
        "How long the text of the scrape before this one took to be written, without compressing and sending it; absent in the first.";
    CLOCK_STEPS: Counter "kvmeter_clock_steps_total" [] "steps",
        "Steps of the wall clock of 100 ms or more.";
    HOOK_RUNS: Counter "kvmeter_hook_runs_total" ["outcome"] "runs",
        "Runs of hooks, each try counted, by how they ended.";
    HOOK_DURATION: Histogram "kvmeter_hook_duration_seconds" ["outcome"] "seconds",
        "How long each run of a hook took.";
    IDENTITY_CACHE: Counter "kvmeter_identity_cache_total" ["outcome"] "lookups",
        "Look-ups of who a VM is that were answered from memory (hit), and that were not (miss).";
    HISTORY_EVICTED: Counter "kvmeter_history_evicted_total" [] "samples",
        "Samples let go before their time, for the bound of memory.";
    WATCH_DROPPED: Counter "kvmeter_watch_dropped_total" [] "events",
        "Samples and ledger lines that readers of streams were too slow for; each was told how many.";
    HTTP_CONNECTIONS: Gauge "kvmeter_http_connections" ["listener"] "connections",
        "HTTP connections that hold a place, by where they came in: tcp, unix. Streams of events hold none.";
    HTTP_CUT: Counter "kvmeter_http_connections_cut_total" ["listener", "reason"] "connections",
        "HTTP connections ended by the agent: crowded (gave way to a newcomer while it kept the agent waiting), slow_request, slow_answer.";
    HISTORY_SAVE_FAILURES: Counter "kvmeter_history_save_failures_total" [] "saves",
        "Saves of the history to disk that failed, for want of space too; it goes on in memory.";
    HISTORY_DAMAGED: Counter "kvmeter_history_damaged_total" [] "parts",
        "Parts of the history's files that were not as they had been written when this agent started, and were left out.";
    HISTORY_FILES: Gauge "kvmeter_history_disk_bytes" [] "bytes",
        "Bytes of the history's files.";
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
    LEDGER_SPACE_LOW: Gauge "kvmeter_ledger_space_low" [] "",
        "1 while less space is left there than ledger.min_free: to be alarmed by, before lines have to wait in memory.";
}
