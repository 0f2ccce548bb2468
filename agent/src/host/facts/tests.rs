//! A made-up host, an empty one, and this one.

use std::fs;

use proptest::prelude::*;

use super::*;

fn host(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    root
}

#[test]
fn a_host_is_read_from_its_root() {
    let root = host(&[
        ("proc/sys/kernel/random/boot_id", "3d1219c7-c4c5-404a-aa1f-6d2a48adfda4\n"),
        ("proc/sys/kernel/pid_max", "4194304\n"),
        ("proc/sys/kernel/osrelease", "6.18.0\n"),
        ("sys/devices/system/cpu/online", "0-3,5,8-9\n"),
        ("proc/meminfo", "MemTotal:       1024 kB\nMemFree: 1 kB\n"),
        ("proc/self/status", "Name:\tx\nCapEff:\t000000c000201000\n"),
        ("proc/self/schedstat", "1 0 1\n"),
        ("etc/machine-id", "3d1219c7c4c5404aaa1f6d2a48adfda4\n"),
        ("dev/kvm", ""),
    ]);
    let facts = HostFacts::gather(root.path());
    assert_eq!((facts.online_cpus, facts.mem_total, facts.pid_max), (Some(7), Some(Bytes::mib(1)), Some(4_194_304)));
    assert_eq!((facts.kernel_release.as_deref(), facts.machine_id.len()), (Some("6.18.0"), 32));
    let held: Vec<_> = Capability::ALL.into_iter().filter(|capability| facts.has(*capability)).collect();
    assert_eq!(held, [Capability::NetAdmin, Capability::SysAdmin, Capability::Perfmon, Capability::Bpf]);
    assert!(facts.kvm.readable && facts.schedstat);
    assert!(!facts.btf.exists && facts.btf.error.is_some());
}

#[test]
fn what_cannot_be_read_is_absent_and_explained() {
    let facts = HostFacts::gather(host(&[]).path());
    assert_eq!((&facts.boot_id, facts.online_cpus, facts.mem_total, facts.tick_ns()), (&None, None, None, None));
    assert_eq!(facts.machine_id, "unknown");
    assert!(facts.errors.iter().any(|error| error.contains("boot_id")));
    assert!(!facts.schedstat);
}

#[test]
fn the_firmwares_id_stands_in_for_a_missing_machine_id() {
    let root = host(&[
        ("etc/machine-id", "uninitialized\n"),
        ("sys/class/dmi/id/product_uuid", "3D1219C7-C4C5-404A-AA1F-6D2A48ADFDA4\n"),
    ]);
    assert_eq!(machine_id(root.path()), "3d1219c7c4c5404aaa1f6d2a48adfda4");
}

#[test]
fn a_schedstat_of_zeros_measures_nothing() {
    assert!(!HostFacts::gather(host(&[("proc/self/schedstat", "0 0 0\n")]).path()).schedstat);
}

#[test]
fn this_host_tells_all() {
    let facts = HostFacts::gather(Path::new("/"));
    assert_eq!(facts.errors, Vec::<String>::new());
    assert_eq!(facts.boot_id.as_deref().map(str::len), Some(36));
    assert_eq!(facts.tick_ns(), Some(10_000_000));
    assert!(facts.online_cpus >= Some(1) && facts.init_pid_namespace.is_some());
}

proptest! {
    #[test]
    fn no_content_panics(text in "\\PC{0,60}", list in "[0-9,-]{0,40}", raw in prop::collection::vec(any::<u8>(), 0..99)) {
        let _ = (count_cpus(&text), count_cpus(&list), mem_total(&text), effective_capabilities(&text), auxiliary(&raw));
    }
}
