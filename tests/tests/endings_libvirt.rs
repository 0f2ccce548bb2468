//! Law: why libvirt let a VM go is told where that says more than how its process ended. Shown with a real libvirtd, which
//! keeps a VM's state in a file and starts it from there.

use std::time::Duration;

use anyhow::Result;
use kvmeter_tests::{
    agent::{Agent, Setup},
    libvirt::{Libvirt, domain},
    skip::{host, installed, skipped},
};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);
const UUID: &str = "6f1f0f6e-9d0c-4b8e-8f0a-2f5d1d7c9a61";
const SIZE: &str = "<uuid>6f1f0f6e-9d0c-4b8e-8f0a-2f5d1d7c9a61</uuid><memory unit='MiB'>16</memory><vcpu>1</vcpu>";

/// The newest line of a kind, once there are so many.
fn newest(agent: &Agent, kind: &str, count: usize) -> Result<Value> {
    agent.wait_until(kind, PATIENCE, |a| Ok(a.lines(kind, UUID)?.len() >= count))?;
    Ok(agent.lines(kind, UUID)?[count - 1].clone())
}

#[test]
fn a_vm_that_libvirt_saves_hibernates_and_wakes_and_one_it_destroys_does_not() -> Result<()> {
    const TEST: &str = "a_vm_that_libvirt_saves_hibernates_and_wakes_and_one_it_destroys_does_not";
    if !["libvirtd", "virsh", "qemu-system-x86_64"].into_iter().all(installed) {
        skipped(TEST, "needs libvirtd, virsh and qemu-system-x86_64");
        return Ok(());
    }
    let Some(_host) = host(TEST) else { return Ok(()) };
    let mut libvirt = Libvirt::start()?;
    let mount = format!("--mount=/proc/{}/ns/mnt", libvirt.pid());
    let agent = Agent::with(Setup { wrapper: vec!["nsenter".into(), mount.into()], ..Setup::default() })?;
    libvirt.create_of("sleeper", &domain("sleeper", SIZE, "<memballoon model='none'/>", ""))?;
    assert_eq!(newest(&agent, "vm.compute.start", 1)?["reason"], "boot");
    let state = libvirt.file("state", "")?;
    libvirt.virsh(&["save", "sleeper", &state])?;
    let stop = newest(&agent, "vm.compute.stop", 1)?;
    assert_eq!((&stop["cause"], &stop["reason"]), (&"hibernate".into(), &"stop-user".into()), "{stop}");
    libvirt.virsh(&["restore", &state])?;
    assert_eq!(newest(&agent, "vm.compute.start", 2)?["reason"], "hibernate-wake");
    libvirt.virsh(&["destroy", "sleeper"])?;
    let stop = newest(&agent, "vm.compute.stop", 2)?;
    // An older word in the same log is of the life before.
    assert!(stop["cause"] == "exit" || stop["cause"] == "signal", "{stop}");
    if stop["cause"] == "signal" {
        assert_eq!(stop["evidence"]["killer_comm"], "libvirtd", "{stop}");
    }
    agent.verify()
}
