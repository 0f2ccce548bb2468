//! What this agent can and cannot measure here, and why: `/v1/status`, `doctor` and `kvmeter_feature_available`.

use serde::Serialize;

use crate::{
    bpf::{State, Status as ProgramStatus},
    host::HostFacts,
};

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
        kernel: Result<&[ProgramStatus], (&str, &[ProgramStatus])>,
        uevents: Result<(), &str>,
    ) -> Self {
        let (by_kernel, why, programs) = match kernel {
            Ok(programs) => (true, "", programs),
            Err((why, programs)) => (false, why, programs),
        };
        let mut features = vec![feature(
            "cpu",
            by_kernel,
            "CPU and run-queue time counted in the kernel, exact to the nanosecond, VMs of a few milliseconds included",
            &format!("{why}; CPU time is read from /proc/PID/task/*/schedstat at every sample instead"),
            &advice(facts),
        )];
        features.extend(programs.iter().map(|p| program(p, by_kernel)));
        features.push(feature(
            "uevents",
            uevents.is_ok(),
            "KVM's own word on every VM object made and destroyed",
            uevents.err().unwrap_or_default(),
            "allow netlink sockets (AF_NETLINK); without them the periodic scan of /proc finds such VMs later",
        ));
        features.push(host_feature(
            "kvm",
            &facts.kvm,
            "this host can run KVM VMs",
            "load the kvm module, or enable virtualisation in the firmware",
        ));
        features.push(host_feature(
            "btf",
            &facts.btf,
            "kernel fields are found by name",
            "use a kernel built with CONFIG_DEBUG_INFO_BTF=y",
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

    /// The same with the programs as they are now.
    #[must_use]
    pub fn with_programs(&self, programs: &[ProgramStatus]) -> Self {
        let mut now = self.clone();
        for feature in &mut now.features {
            if let Some(known) = programs.iter().find(|p| p.name == feature.name) {
                *feature = program(known, true);
            }
        }
        now
    }

    /// Whether a feature is at work.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.features.iter().any(|feature| feature.name == name && feature.available)
    }
}

fn program(program: &ProgramStatus, in_use: bool) -> Feature {
    let why = match &program.state {
        State::Attached if in_use => String::new(),
        State::Attached => "not used: a program that CPU accounting needs is missing".to_owned(),
        State::Refused(why) => format!("not loaded: {why}"),
        State::Failed(why) => format!("the kernel refused it: {why}"),
    };
    let available = in_use && program.state == State::Attached;
    let advice = if program.hook.starts_with("raw_tp/kvm") {
        format!("load the kvm module: hook {} is tried again when it is there", program.hook)
    } else {
        format!("hook {}", program.hook)
    };
    feature(program.name, available, program.gives, &why, &advice)
}

fn host_feature(name: &str, presence: &crate::host::facts::Presence, gives: &str, advice: &str) -> Feature {
    let why = presence.error.clone().unwrap_or_else(|| "it is not there".to_owned());
    feature(name, presence.exists && presence.readable, gives, &why, advice)
}

fn advice(facts: &HostFacts) -> String {
    use crate::host::Capability;
    if !facts.btf.readable {
        return "use a kernel built with CONFIG_DEBUG_INFO_BTF=y".to_owned();
    }
    let missing: Vec<_> = Capability::ALL
        .iter()
        .filter(|c| ["CAP_BPF", "CAP_PERFMON"].contains(&c.as_str()) && !facts.has(**c))
        .map(|c| c.as_str())
        .collect();
    match missing.as_slice() {
        [] => "see the line of the program that is missing".to_owned(),
        missing => format!("give the agent {} (or run it as root)", missing.join(" and ")),
    }
}
