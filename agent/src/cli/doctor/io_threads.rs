//! Whether the running VMs' I/O threads can be told from their VMMs' other threads.
//!
//! The kernel marks no thread as doing I/O, so names alone tell (`vm::thread`). QEMU gives its threads names only where
//! it is told to; without them every thread bears the leader's, and what its I/O threads use counts as the VMM's.

use std::collections::BTreeMap;

use kvmeter_common::{
    name::{family, words},
    thread::role,
};

use crate::{
    expose::status::Feature,
    host::{ProcFs, scan_kvm},
    units::Tgid,
    vm::{
        identity::{Argv, Hypervisor, identify},
        thread::{RULES, family_of},
    },
};

/// How many VMs are named one by one.
const SHOWN: usize = 3;

/// What the names of a VMM's threads allow to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    /// Which of them do I/O.
    Apart,
    /// Nothing: they bear no names of their own.
    Unnamed,
    /// Nothing: the process is not called as this VMM is, so its family's names are not looked for.
    Renamed,
    /// The main thread does the I/O, by the VMM's design.
    InMain,
    /// Nobody knows what this VMM calls its threads.
    NoRules,
}

/// Finds the running VMs and looks at the names of their threads; `sees_all` is whether we may look at every process.
pub(super) fn feature(procfs: &ProcFs, sees_all: bool) -> Feature {
    let scan = match scan_kvm(procfs, &|_| false) {
        Ok(scan) => scan,
        Err(error) => return row(&BTreeMap::new(), Some(&error.to_string())),
    };
    let mut vms: BTreeMap<Told, Vec<String>> = BTreeMap::new();
    for (tgid, _) in scan.found.iter().filter(|(_, fds)| fds.is_vm()) {
        if let Some((told, name)) = look(procfs, *tgid) {
            vms.entry(told).or_default().push(name);
        }
    }
    // Root too is refused a few, by a security module; they are no VMs that anything could be measured of.
    let denied = format!("the open files of {} processes cannot be seen, and any of them may be a VM", scan.denied);
    row(&vms, (scan.denied > 0 && !sees_all).then_some(&denied))
}

/// What can be told of one VM, and how it is named to people; `None` once it is gone.
fn look(procfs: &ProcFs, tgid: Tgid) -> Option<(Told, String)> {
    let line = procfs.cmdline(tgid).ok()?;
    let leader = procfs.comm(tgid).ok()?;
    let exe = procfs.exe_name(tgid).ok();
    let vm = identify(&Argv::parse(&line.raw, line.truncated), &leader, exe.as_deref());
    let others = procfs.thread_ids(tgid).ok()?.into_iter().filter(|tid| tid.get() != tgid.get());
    let others: Vec<_> = others.filter_map(|tid| procfs.thread_comm(tgid, tid).ok()).collect();
    let name = match (vm.hypervisor, vm.name.or(vm.vmm_id).or(vm.uuid)) {
        (Hypervisor::Unknown, _) => vm.vmm,
        (_, Some(name)) => format!("{name} (pid {tgid})"),
        (_, None) => format!("pid {tgid}"),
    };
    Some((tell(vm.hypervisor, &leader, &others), name))
}

/// What a VMM's thread names tell.
fn tell(hypervisor: Hypervisor, leader: &[u8], others: &[Vec<u8>]) -> Told {
    let family = family_of(hypervisor);
    match hypervisor {
        Hypervisor::Unknown => return Told::NoRules,
        Hypervisor::Firecracker => return Told::InMain,
        _ if !given(family::LEADER, leader).any(|gives| gives == family) => return Told::Renamed,
        Hypervisor::Qemu => {}
        // These name their threads unasked.
        Hypervisor::CloudHypervisor | Hypervisor::Crosvm | Hypervisor::Kvmtool => return Told::Apart,
    }
    let qemus_own = |name: &[u8]| {
        (name.starts_with(b"CPU ") && name.ends_with(b"/KVM")) || given(family, name).any(|gives| gives == role::IO)
    };
    // A library may start threads of its own, with names or without: one name of QEMU's own shows that it gives them.
    let unnamed = others.iter().any(|name| name == leader) && !others.iter().any(|name| qemus_own(name));
    if unnamed { Told::Unnamed } else { Told::Apart }
}

/// What the rules of a family give for a name.
fn given(family: u32, name: &[u8]) -> impl Iterator<Item = u32> {
    let mut bytes = [0; 16];
    // The last byte stays the zero that ends every kernel name.
    for (to, from) in bytes.iter_mut().take(15).zip(name) {
        *to = *from;
    }
    let name = words(bytes);
    RULES.iter().filter(move |rule| rule.family == family && rule.matches(name)).map(|rule| rule.gives)
}

/// The row: what it gives, what is in the way, and what to do.
fn row(vms: &BTreeMap<Told, Vec<String>>, unseen: Option<&str>) -> Feature {
    let of = |told| vms.get(&told).map(Vec::as_slice).unwrap_or_default();
    let mut gives =
        "CPU time of VMMs' I/O threads by itself (role io), told by the threads' names; I/O that a VMM does \
                     in its main thread, as Firecracker does, is vmm"
            .to_owned();
    if let count @ 1.. = of(Told::InMain).len() {
        gives += &format!(" (here {})", vms_of(count));
    }
    let mut strangers = of(Told::NoRules).to_vec();
    strangers.sort_unstable();
    strangers.dedup();
    if let count @ 1.. = of(Told::NoRules).len() {
        let known = format!("; nobody knows the names of {} ({})", vms_of(count), some(&strangers));
        gives += &format!("{known}: all but vCPUs and the kernel's own workers is vmm there");
    }
    let (mut why, mut advice) = (Vec::new(), Vec::new());
    if let unnamed @ [_, ..] = of(Told::Unnamed) {
        let told = "QEMU gives its threads no names, so its I/O threads count as vmm";
        why.push(format!("in {} ({}) {told}", vms_of(unnamed.len()), some(unnamed)));
        advice.push("start QEMU with -name …,debug-threads=on (libvirt does)");
    }
    if let renamed @ [_, ..] = of(Told::Renamed) {
        let told = "the process has another name than its VMM, so its I/O threads count as vmm";
        why.push(format!("in {} ({}) {told}", vms_of(renamed.len()), some(renamed)));
        advice.push("start the VMM under its own name (QEMU: without -name …,process=…)");
    }
    if let Some(unseen) = unseen {
        why.push(unseen.to_owned());
        advice.push("run as root, or with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH");
    }
    Feature {
        name: "io_threads".to_owned(),
        available: why.is_empty(),
        gives,
        why: why.join("; "),
        advice: advice.join("; "),
    }
}

fn vms_of(count: usize) -> String {
    if count == 1 { "1 VM".to_owned() } else { format!("{count} VMs") }
}

/// The first few, and how many more there are.
fn some(names: &[String]) -> String {
    let shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(hypervisor: Hypervisor, leader: &str, others: &[&str]) -> Told {
        let others: Vec<_> = others.iter().map(|name| name.as_bytes().to_vec()).collect();
        tell(hypervisor, leader.as_bytes(), &others)
    }

    #[test]
    fn a_qemu_is_blamed_only_where_its_threads_bear_the_leaders_name() {
        const QEMU: &str = "qemu-system-x86";
        let qemu = |others: &[&str]| told(Hypervisor::Qemu, QEMU, others);
        assert_eq!(qemu(&[QEMU, QEMU, "kvm-nx-lpage-re", "vhost-4711", "iou-wrk-4711"]), Told::Unnamed);
        assert_eq!(qemu(&[QEMU, "SPICE Worker"]), Told::Unnamed, "a library's name is not QEMU's");
        assert_eq!(qemu(&["call_rcu", "CPU 0/KVM", "IO mon_iothread"]), Told::Apart);
        assert_eq!(qemu(&["call_rcu", "CPU 0/KVM", QEMU]), Told::Apart, "a library's thread without a name");
        assert_eq!(qemu(&[]), Told::Apart);
    }

    #[test]
    fn a_vmm_is_known_by_its_process_name_or_not_at_all() {
        assert_eq!(told(Hypervisor::Qemu, "kvm", &["CPU 0/KVM"]), Told::Apart);
        assert_eq!(told(Hypervisor::Qemu, "web-1", &["CPU 0/KVM", "IO iothread0"]), Told::Renamed);
        assert_eq!(told(Hypervisor::CloudHypervisor, "cloud-hyperviso", &["_disk0_q0"]), Told::Apart);
    }

    #[test]
    fn a_vmm_without_io_threads_or_without_rules_is_not_blamed() {
        assert_eq!(told(Hypervisor::Firecracker, "firecracker", &["fc_vcpu 0"]), Told::InMain);
        assert_eq!(told(Hypervisor::Unknown, "vmm", &["vmm", "vmm"]), Told::NoRules);
        let vms = BTreeMap::from([(Told::InMain, vec!["a".to_owned()]), (Told::NoRules, vec!["x".to_owned(); 2])]);
        let row = row(&vms, None);
        assert!(row.available && row.gives.contains("(here 1 VM)") && row.gives.contains("2 VMs (x)"), "{}", row.gives);
    }

    #[test]
    fn three_vms_are_named_and_the_rest_counted() {
        let vms = BTreeMap::from([(Told::Unnamed, ["a", "b", "c", "d", "e"].map(str::to_owned).to_vec())]);
        let row = row(&vms, None);
        assert!(!row.available && row.why.contains("5 VMs (a, b, c and 2 more)"), "{}", row.why);
        assert!(row.advice.contains("debug-threads=on"), "{}", row.advice);
    }

    #[test]
    fn what_could_not_be_looked_at_is_not_called_told() {
        let row = row(&BTreeMap::new(), Some("no /proc"));
        assert!(!row.available && row.why == "no /proc" && row.advice.contains("root"));
    }
}
