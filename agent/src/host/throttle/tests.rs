use super::*;
use crate::host::ProcError;
use proptest::prelude::*;

mod real;

const VM: Tgid = Tgid(100);

/// A host with control groups in a temporary directory.
struct Host {
    root: tempfile::TempDir,
    mount: PathBuf,
    version: u32,
}

impl Host {
    fn v1() -> Self {
        Self::new("sys/fs/cgroup/cpu,cpuacct", 1)
    }

    fn v2() -> Self {
        let host = Self::new("sys/fs/cgroup", 2);
        fs::write(host.mount.join("cgroup.controllers"), "cpuset cpu io\n").unwrap();
        host
    }

    fn new(mount: &str, version: u32) -> Self {
        let root = tempfile::tempdir().unwrap();
        let mount = root.path().join(mount);
        fs::create_dir_all(&mount).unwrap();
        fs::write(mount.join("cgroup.procs"), "1\n2\n").unwrap();
        Self { root, mount, version }
    }

    fn thread(&self, tgid: u32, tid: u32, group: &str) {
        let dir = self.root.path().join(format!("proc/{tgid}/task/{tid}"));
        fs::create_dir_all(&dir).unwrap();
        let cpu = if self.version == 1 { format!("3:cpu,cpuacct:{group}\n0::/") } else { format!("0::{group}") };
        fs::write(dir.join("cgroup"), format!("7:pids:/other\n{cpu}\n")).unwrap();
    }

    fn group(&self, path: &str, processes: &str, counted: u64) {
        let dir = self.mount.join(path);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("cgroup.procs"), processes).unwrap();
        self.count(path, counted);
    }

    fn count(&self, path: &str, counted: u64) {
        let key = if self.version == 1 { "throttled_time" } else { "throttled_usec" };
        fs::write(self.mount.join(path).join(STAT), format!("nr_periods 9\nnr_throttled 4\n{key} {counted}\n"))
            .unwrap();
    }

    fn find(&self) -> Result<ThrottleSource, WhyNot> {
        ThrottleSource::find(&GroupSearch::new(self.root.path()), VM)
    }

    fn follow(&self, source: &mut ThrottleSource) -> Result<bool, WhyNot> {
        source.follow(&GroupSearch::new(self.root.path()), VM)
    }

    fn read(&self) -> u64 {
        self.find().unwrap().read().unwrap()
    }
}

#[test]
fn a_group_of_the_vms_own_is_read_in_nanoseconds_and_kept_open() {
    for (host, counted) in [(Host::v1(), 5_000), (Host::v2(), 5)] {
        host.thread(100, 100, "/vms/a");
        host.group("vms/a", "100\n", counted);
        let mut source = host.find().unwrap();
        assert_eq!(source.read().unwrap(), 5_000);
        host.count("vms/a", counted * 2);
        assert_eq!(source.read().unwrap(), 10_000);
    }
}

#[test]
fn libvirts_groups_are_all_the_vms_own_in_both_versions() {
    for (host, unit_ns) in [(Host::v1(), 1), (Host::v2(), 1000)] {
        let scope = "machine.slice/machine-qemu-1.scope";
        for (tid, part) in [(100, "emulator"), (101, "vcpu0"), (102, "iothread1")] {
            host.thread(100, tid, &format!("/{scope}/libvirt/{part}"));
            host.group(&format!("{scope}/libvirt/{part}"), "100\n", u64::from(tid));
        }
        host.group("machine.slice", "", 1_000_000);
        host.group(scope, "", 1);
        host.group(&format!("{scope}/libvirt"), "", 2);
        assert_eq!(host.read(), (100 + 101 + 102 + 1 + 2) * unit_ns, "the scope's, but not the slice's");
    }
}

#[test]
fn throttling_of_a_shared_group_is_nobodys() {
    let host = Host::v1();
    host.thread(100, 100, "/vms/a");
    host.group("vms/a", "100\n200\n", 1);
    let why = host.find().unwrap_err();
    assert!(matches!(why, WhyNot::Shared { other: 200, .. }), "{why}");
    assert!(why.to_string().contains("vms/a also holds process 200"), "{why}");
    host.group("vms/a", "100\n", 1);
    host.group("vms/a/below", "0\n", 1);
    assert!(matches!(host.find(), Err(WhyNot::Shared { other: 0, .. })), "also by one below");
}

#[test]
fn a_unit_with_strangers_leaves_the_vm_its_group_below() {
    let host = Host::v1();
    let group = "system.slice/libvirtd.service/qemu-1";
    host.thread(100, 100, &format!("/{group}"));
    host.group("system.slice/libvirtd.service", "7\n", 10);
    host.group(group, "100\n", 3);
    assert_eq!(host.read(), 3);
}

#[test]
fn vhost_workers_of_the_vm_are_no_strangers_and_impostors_are() {
    let host = Host::v1();
    host.thread(100, 100, "/a");
    host.thread(100, 101, "/a");
    host.group("a", "100\n300\n", 7);
    let worker = host.root.path().join("proc/300");
    fs::create_dir_all(&worker).unwrap();
    fs::write(worker.join("comm"), "vhost-101\n").unwrap();
    fs::write(worker.join("cmdline"), "").unwrap();
    assert_eq!(host.read(), 7);
    fs::write(worker.join("cmdline"), "/bin/vhost-101\0").unwrap();
    assert!(matches!(host.find(), Err(WhyNot::Shared { other: 300, .. })));
    fs::write(worker.join("cmdline"), "").unwrap();
    fs::write(worker.join("comm"), "vhost-999\n").unwrap();
    assert!(matches!(host.find(), Err(WhyNot::Shared { other: 300, .. })), "another VM's");
}

#[test]
fn what_cannot_be_measured_is_told_with_its_reason() {
    let host = Host::v1();
    assert!(host.find().unwrap_err().is_gone(), "no such process");
    host.thread(100, 100, "/");
    assert!(matches!(host.find(), Err(WhyNot::Root)));
    host.thread(100, 100, "/../else");
    assert!(matches!(host.find(), Err(WhyNot::Hidden { .. })));
    host.thread(100, 100, "/a");
    assert!(matches!(host.find(), Err(WhyNot::Unreadable { .. })), "the group was removed");
    host.group("a", "100\n", 0);
    fs::write(host.mount.join("a").join(STAT), "usage_usec 5\n").unwrap();
    assert!(matches!(host.find(), Err(WhyNot::Uncounted { .. })));
    let host = Host::v2();
    host.thread(100, 100, "/a");
    host.group("a", "100\n", 1);
    fs::write(host.mount.join("cgroup.controllers"), "memory cpuset\n").unwrap();
    assert!(matches!(host.find(), Err(WhyNot::NoController(Some("cpu")))));
}

#[test]
fn a_counter_does_not_fall_whatever_the_process_does() {
    let host = Host::v1();
    host.thread(100, 100, "/a");
    host.group("a", "100\n", 50);
    let mut source = host.find().unwrap();
    assert_eq!(source.read().unwrap(), 50);
    assert!(!host.follow(&mut source).unwrap(), "nothing changed");

    host.group("a/vcpu1", "", 5);
    assert!(host.follow(&mut source).unwrap());
    assert_eq!(source.read().unwrap(), 55, "a new group below the same top counts in full");

    host.thread(100, 100, "/b");
    host.group("b", "100\n", 1_000);
    assert!(host.follow(&mut source).unwrap());
    assert_eq!(source.read().unwrap(), 55, "what was counted elsewhere before the VM came is not its own");
    host.count("b", 1_007);
    assert_eq!(source.read().unwrap(), 62);

    host.group("b", "100\n200\n", 1_010);
    assert!(host.follow(&mut source).is_err());
    host.count("b", 2_000);
    assert_eq!(source.read().unwrap(), 65, "a shared group adds nothing");
    host.group("b", "100\n", 3_000);
    assert!(host.follow(&mut source).unwrap());
    host.count("b", 3_001);
    assert_eq!(source.read().unwrap(), 66);

    host.count("b", 0);
    assert_eq!(source.read().unwrap(), 66, "a counter that fell");
    fs::remove_dir_all(host.root.path().join("proc/100")).unwrap();
    assert!(host.follow(&mut source).unwrap_err().is_gone());
    host.count("b", 3_005);
    assert_eq!(source.read().unwrap(), 70, "the last reading is after the end");
}

#[test]
fn a_process_that_cannot_be_read_is_told_as_such() {
    let denied = ProcError::Denied { path: "/proc/7".into() };
    assert_eq!(WhyNot::from(denied).to_string(), "permission to read /proc/7 is denied");
}

#[test]
fn only_whole_lines_with_numbers_count() {
    assert_eq!(parse(b"nr_periods 1\nthrottled_time 12\nburst_time 3\n"), Some(12));
    assert_eq!(parse(b"usage_usec 9\nthrottled_usec 12\n"), Some(12_000));
    let longest = format!("throttled_usec {}\n", u64::MAX);
    for text in [&b"throttled_time 12"[..], b"", b"\n", b"throttled_time\n", b"throttled_time -1\n", longest.as_bytes()]
    {
        assert_eq!(parse(text), None, "{}", String::from_utf8_lossy(text));
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&text);
    }

    #[test]
    fn a_counter_among_garbage_is_read_or_refused_but_never_another(
        value in any::<u64>(), before in "[a-z_]{0,8} [0-9]{0,4}\n", after in "\\PC{0,20}", cut in 0usize..60,
    ) {
        let text = format!("{before}throttled_time {value}\n{after}");
        prop_assert_eq!(parse(text.as_bytes()), Some(value));
        let told = parse(&text.as_bytes()[..cut.min(text.len())]);
        prop_assert!(told.is_none() || told == Some(value));
        let micros = format!("throttled_usec {value}\n");
        prop_assert_eq!(parse(micros.as_bytes()), value.checked_mul(1000));
    }
}
