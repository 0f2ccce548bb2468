//! What this agent can and cannot measure here, and why: `/v1/status`, `doctor` and `kvmeter_feature_available`.

use serde::Serialize;

use super::storage;
use crate::{
    account::host::{Host, InventoryState},
    bpf::{Obstacle, Pinning, State, Status as ProgramStatus, network::Hook},
    host::{Capability, HostFacts},
};

/// Why the kernel programs are not at work.
#[derive(Clone, Copy, Debug)]
pub struct Unavailable<'a> {
    /// The one sentence.
    pub why: &'a str,
    /// What kind of thing it is.
    pub obstacle: Obstacle,
    /// What became of each program.
    pub programs: &'a [ProgramStatus],
}

/// The feature that counts interfaces.
const NETWORK: &str = "network";

/// One thing that may or may not work.
#[derive(Clone, Debug, Serialize)]
pub struct Feature {
    /// Its name; the label `feature`.
    pub name: String,
    /// Whether it is at work.
    pub available: bool,
    /// What it gives.
    pub gives: String,
    /// Why it is not at work; empty if it is.
    pub why: String,
    /// What to do about it; empty if nothing.
    pub advice: String,
}

/// Everything about what can be measured.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Status {
    /// Version of the agent.
    pub version: String,
    /// Kernel release.
    pub kernel: String,
    /// Where CPU time comes from: `bpf` or `proc`.
    pub cpu_source: String,
    /// Each feature.
    pub features: Vec<Feature>,
}

fn feature(name: &str, available: bool, gives: &str, why: &str, advice: &str) -> Feature {
    let text = |t: &str| if available { String::new() } else { t.to_owned() };
    Feature { name: name.to_owned(), available, gives: gives.to_owned(), why: text(why), advice: text(advice) }
}

impl Status {
    /// From what became of the kernel side, the uevent socket, and the host.
    #[must_use]
    pub fn new(
        facts: &HostFacts,
        kernel: Result<&[ProgramStatus], Unavailable<'_>>,
        uevents: Result<(), &str>,
    ) -> Self {
        let (by_kernel, why, programs) = match &kernel {
            Ok(programs) => (true, "", *programs),
            Err(none) => (false, none.why, none.programs),
        };
        let obstacle = kernel.as_ref().err().map(|none| none.obstacle);
        let mut features = vec![feature(
            "cpu",
            by_kernel,
            "CPU and run-queue time counted in the kernel, exact to the nanosecond, VMs of a few milliseconds included",
            &format!("{why}; CPU time is read from /proc/PID/task/*/schedstat at every sample instead"),
            &advice(facts, obstacle),
        )];
        features.extend(programs.iter().map(|p| program(p, by_kernel)));
        features.push(feature(
            "uevents",
            uevents.is_ok(),
            "KVM's own word on every VM object made and destroyed",
            uevents.err().unwrap_or_default(),
            "allow netlink sockets (AF_NETLINK); without them the periodic scan of /proc finds such VMs later",
        ));
        features.extend(storage_and_sockets(facts));
        features.push(kvm(facts));
        let useless = obstacle == Some(Obstacle::TypeInformation);
        let btf_why =
            facts.btf.error.clone().unwrap_or_else(|| if useless { why.to_owned() } else { NOT_THERE.to_owned() });
        features.push(feature(
            "btf",
            facts.btf.readable && !useless,
            "kernel fields are found by name",
            &btf_why,
            BTF_ADVICE,
        ));
        features.push(feature(
            "init_pid_namespace",
            facts.init_pid_namespace.unwrap_or(false),
            "process ids are the host's own",
            "this process runs in a pid namespace of its own",
            "run the agent with the host's pid namespace (hostPID, --pid=host)",
        ));
        features.push(feature(
            "other_processes",
            facts.sees_other_processes(),
            "file descriptors and command lines of other users' processes",
            &format!("uid {} without CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH", facts.euid),
            "run as root, or with CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH",
        ));
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kernel: facts.kernel_release.clone().unwrap_or_default(),
            cpu_source: if by_kernel { "bpf" } else { "proc" }.to_owned(),
            features,
        }
    }

    /// The same with the programs, the inventory, the pools, and what reads interfaces, as they are now.
    #[must_use]
    pub fn as_of(&self, host: &Host) -> Self {
        let programs: &[ProgramStatus] = &host.programs;
        let mut now = self.clone();
        now.features.extend(host.inventory.as_ref().map(inventory));
        now.features.extend(storage::feature(&host.storage));
        if let (Some(why), Some(feature)) =
            (&host.network_stalled, now.features.iter_mut().find(|feature| feature.name == NETWORK))
        {
            (feature.available, feature.why) = (false, why.clone());
            "what was counted is absent until then; the log tells more".clone_into(&mut feature.advice);
        }
        for feature in &mut now.features {
            if let Some(known) = programs.iter().find(|p| p.name == feature.name) {
                *feature = program(known, true);
            }
        }
        now
    }
}

/// The operator's inventory.
#[must_use]
pub fn inventory(state: &InventoryState) -> Feature {
    let stays = match state.vms {
        Some(vms) => format!("; the one of {vms} VMs read at {} stays in force", state.read_at),
        None => String::new(),
    };
    feature(
        "inventory",
        state.error.is_empty(),
        &format!("tenants and labels of {} VMs, from {}", state.vms.unwrap_or(0), state.path),
        &format!("{}: {}{stays}", state.path, state.error),
        "mend the file: it is read again as soon as it changes (docs/identity.md shows its form)",
    )
}

fn program(program: &ProgramStatus, in_use: bool) -> Feature {
    let why = match &program.state {
        State::Attached if in_use => String::new(),
        State::Attached => "not used: a program that CPU accounting needs is missing".to_owned(),
        State::Refused(why) => format!("not loaded: {why}"),
        State::Failed(why) => format!("the kernel refused it: {why}"),
        State::Silent(why) => why.clone(),
    };
    let available = in_use && program.state == State::Attached;
    let advice = if matches!(program.state, State::Silent(_)) {
        "nothing: what it gives is absent, all else is measured".to_owned()
    } else if program.hook.starts_with("raw_tp/kvm") {
        format!("load the kvm module: hook {} is tried again when it is there", program.hook)
    } else {
        format!("hook {}", program.hook)
    };
    feature(program.name, available, program.gives, &why, &advice)
}

/// Whether counting goes on without an agent; `date` makes an instant of CLOCK_BOOTTIME readable.
#[must_use]
pub fn pins(pinning: &Pinning, date: impl Fn(u64) -> String) -> Feature {
    let gives = match pinning {
        Pinning::Pinned { dir, since_ns, without } => {
            let without: Vec<_> = without.iter().map(|(program, why)| format!("{program} ({why})")).collect();
            let all = if without.is_empty() { String::new() } else { format!("; not pinned: {}", without.join(", ")) };
            format!("{COUNTED_ON}; since {} in {}{all}", date(*since_ns), dir.display())
        }
        _ => COUNTED_ON.to_owned(),
    };
    let why = match pinning {
        Pinning::Pinned { .. } => "",
        Pinning::Unwanted => "bpf.pin_dir is \"off\", or the ledger is no file",
        Pinning::Refused(why) => why,
    };
    let works = matches!(pinning, Pinning::Pinned { .. });
    feature(
        PINS,
        works,
        &gives,
        &format!("{why}; VMs that end while no agent runs end at their last usage line"),
        PIN_ADVICE,
    )
}

/// What counts VMs' interfaces, or why nothing does.
#[must_use]
pub fn network(hook: Result<Hook, &str>) -> Feature {
    let by = match hook {
        Ok(Hook::Tcx) => "tcx",
        _ => "a filter of clsact",
    };
    feature(
        NETWORK,
        hook.is_ok(),
        &format!("bytes and packets of each VM's taps and macvtaps by class, by {by}"),
        hook.err().unwrap_or_default(),
        "needs CAP_NET_ADMIN, CAP_BPF and CAP_SYS_ADMIN (other namespaces), and tcx (Linux 6.6) or cls_bpf with clsact",
    )
}

/// What a VMM does itself, beside its guest.
fn storage_and_sockets(facts: &HostFacts) -> [Feature; 2] {
    [
        feature(
            "disk",
            facts.task_io && facts.has(Capability::SysPtrace),
            "bytes that VMs read from and wrote to storage",
            if facts.task_io { "without CAP_SYS_PTRACE" } else { "the kernel has no /proc/PID/io" },
            "run as root or with CAP_SYS_PTRACE, on a kernel with CONFIG_TASK_IO_ACCOUNTING=y",
        ),
        feature(
            "host_sockets",
            facts.cgroup2 && facts.has(Capability::NetAdmin),
            "bytes of the VMMs' own sockets, of each VM that has a cgroup v2 of its own (the API says of each why not)",
            if facts.cgroup2 {
                "without CAP_NET_ADMIN"
            } else {
                "no hierarchy of control groups of version 2 is mounted"
            },
            "mount cgroup2, run the agent with CAP_NET_ADMIN, and give each VM a scope or group of its own",
        ),
    ]
}

fn kvm(facts: &HostFacts) -> Feature {
    let presence = &facts.kvm;
    let why = presence.error.clone().unwrap_or_else(|| NOT_THERE.to_owned());
    let advice = if presence.exists {
        "give the agent's user access to /dev/kvm if it is to start VMs; measuring them does not need it"
    } else {
        "load the kvm module, or enable virtualisation in the firmware"
    };
    feature("kvm", presence.exists && presence.readable, "this host can run KVM VMs", &why, advice)
}

fn advice(facts: &HostFacts, obstacle: Option<Obstacle>) -> String {
    match obstacle {
        Some(Obstacle::Off) => return "set bpf.enabled = \"auto\"".to_owned(),
        Some(Obstacle::TypeInformation) => return BTF_ADVICE.to_owned(),
        Some(Obstacle::Refused) | None => {}
    }
    let needed = [Capability::Bpf, Capability::Perfmon];
    let missing: Vec<_> = needed.iter().filter(|c| !facts.has(**c)).map(|c| c.as_str()).collect();
    match missing.as_slice() {
        [] => "see the lines of the programs".to_owned(),
        missing => format!("give the agent {} (or run it as root)", missing.join(" and ")),
    }
}

/// The feature that counts on without an agent.
pub const PINS: &str = "pins";
const COUNTED_ON: &str = "CPU, exits, starts, ends and traffic are counted on in the kernel while no agent runs";
const PIN_ADVICE: &str = "mount a bpffs (mount -t bpf bpf /sys/fs/bpf) and let the agent write to bpf.pin_dir in it";
const NOT_THERE: &str = "it is not there";
const BTF_ADVICE: &str =
    "use a kernel built with CONFIG_DEBUG_INFO_BTF=y, and let the agent read /sys/kernel/btf/vmlinux";
