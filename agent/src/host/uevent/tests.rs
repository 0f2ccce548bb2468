//! Messages as kernels send them, and garbage; with `/dev/kvm` at hand, a real one.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

const CREATE: &[u8] = b"change@/devices/virtual/misc/kvm\0ACTION=change\0DEVPATH=/devices/virtual/misc/kvm\0\
    SUBSYSTEM=misc\0CREATED=7\0COUNT=2\0EVENT=create\0PID=4242\0STATS_PATH=/kvm/4242-9\0\
    MAJOR=10\0MINOR=232\0DEVNAME=kvm\0SEQNUM=1234\0";

#[test]
fn a_created_vm_is_announced_with_its_thread_and_totals() {
    let event = parse(CREATE).unwrap();
    assert_eq!((event.change, event.pid, event.created_total, event.count), (KvmChange::Create, 4242, 7, 2));
    assert_eq!(event.stats_path.as_deref(), Some("/kvm/4242-9"));
}

#[test]
fn other_devices_and_other_events_are_not_ours() {
    let replaced = |from: &str, to: &str| String::from_utf8(CREATE.to_vec()).unwrap().replace(from, to).into_bytes();
    assert_eq!(parse(&replaced("DEVNAME=kvm", "DEVNAME=tun")), None);
    assert_eq!(parse(&replaced("EVENT=create", "EVENT=other")), None);
    assert_eq!(parse(&replaced("PID=4242", "PID=x")), None);
    assert_eq!(parse(&replaced("EVENT=create", "EVENT=destroy")).unwrap().change, KvmChange::Destroy);
    assert_eq!(parse(&replaced("STATS_PATH=/kvm/4242-9\0", "")).unwrap().stats_path, None);
}

proptest! {
    #[test]
    fn no_message_panics(raw in prop::collection::vec(any::<u8>(), 0..400), at in 0usize..220) {
        let _ = parse(&raw);
        let mut broken = CREATE.to_vec();
        broken.splice(at.min(CREATE.len())..at.min(CREATE.len()), raw);
        let _ = parse(&broken);
    }
}

/// Creates and destroys one KVM VM in another process; `false` where there is no KVM to do it with.
fn make_a_vm() -> bool {
    // KVM_CREATE_VM is _IO(0xAE, 1).
    let script = "import fcntl, os; os.close(fcntl.ioctl(os.open('/dev/kvm', os.O_RDWR), 0xAE01, 0))";
    std::process::Command::new("python3").args(["-c", script]).output().is_ok_and(|out| out.status.success())
}

#[test]
fn a_real_vm_is_announced_where_there_is_kvm() {
    let socket = UeventSocket::open().unwrap();
    if !make_a_vm() {
        eprintln!("skipped: no /dev/kvm or no python3");
        return;
    }
    let end = Instant::now() + Duration::from_secs(60);
    let mut changes = Vec::new();
    while changes.len() < 2 && Instant::now() < end {
        match socket.recv().unwrap() {
            UeventOutcome::Event(event) => {
                assert!(event.pid > 0 && event.created_total > 0);
                changes.push(event.change);
            }
            _ => std::thread::sleep(Duration::from_millis(5)),
        }
    }
    assert!(changes.contains(&KvmChange::Create), "{changes:?}");
}
