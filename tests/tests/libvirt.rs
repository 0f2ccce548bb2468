//! Law: a VM is told under the identity and shape that the host's manager gives it, and each change of its shape once.
//! Shown with a real libvirtd, which keeps OpenStack's metadata, plugs in vCPUs and memory, and knows its VMs by process.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use kvmeter_tests::{
    agent::{Agent, Setup},
    libvirt::{Libvirt, domain, inside},
    skip::{host, skipped},
};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);
const UUID: &str = "6f1f0f6e-9d0c-4b8e-8f0a-2f5d1d7c9a22";
const SIZE: &str = "<uuid>6f1f0f6e-9d0c-4b8e-8f0a-2f5d1d7c9a22</uuid><title>front end</title><metadata>\
    <nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'><nova:name>demo</nova:name>\
    <nova:flavor name='m1.tiny'/><nova:owner><nova:user uuid='u-1'>joe</nova:user>\
    <nova:project uuid='p-1'>acme</nova:project></nova:owner></nova:instance></metadata>\
    <maxMemory slots='2' unit='MiB'>1024</maxMemory><memory unit='MiB'>64</memory><vcpu current='1'>4</vcpu>";
const MODULE: &str = "<memory model='dimm'><target><size unit='MiB'>128</size><node>0</node></target></memory>";

fn installed(test: &str) -> bool {
    let works = |program: &str| {
        let ran = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        ran.is_ok_and(|status| status.success())
    };
    let all = ["libvirtd", "virsh", "qemu-system-x86_64"].into_iter().all(works);
    if !all {
        skipped(test, "needs libvirtd, virsh and qemu-system-x86_64");
    }
    all
}

/// An agent that sees libvirt's files: they are in a mount namespace of their own.
fn agent_beside(libvirt: &Libvirt, setup: Setup) -> Result<Agent> {
    let mount = format!("--mount=/proc/{}/ns/mnt", libvirt.pid());
    Agent::with(Setup { wrapper: vec!["nsenter".into(), mount.into()], ..setup })
}

fn shapes(agent: &Agent) -> Result<Vec<Value>> {
    Ok(agent.lines("vm.compute.resize", UUID)?.into_iter().map(|line| line["shape"].clone()).collect())
}

fn wait_shapes(agent: &Agent, expected: &[Value]) -> Result<()> {
    let same = agent.wait_until("the new shape", PATIENCE, |agent| Ok(shapes(agent)?.len() >= expected.len()));
    same.with_context(|| format!("resizes so far: {:?}", shapes(agent)))?;
    assert_eq!(shapes(agent)?, expected);
    Ok(())
}

fn assert_owner(line: &Value) {
    assert_eq!((&line["name"], &line["uuid"], &line["tenant"]), (&json!("web-1"), &json!(UUID), &json!("p-1")));
    let labels = json!({
        "libvirt.title": "front end", "openstack.flavor": "m1.tiny", "openstack.name": "demo",
        "openstack.project": "acme", "openstack.user": "joe"
    });
    assert_eq!(line["labels"], labels);
}

#[test]
fn libvirts_word_on_tenant_and_shape_is_told_at_once_and_each_change_once() -> Result<()> {
    const TEST: &str = "libvirts_word_on_tenant_and_shape_is_told_at_once_and_each_change_once";
    if !installed(TEST) {
        return Ok(());
    }
    let Some(_host) = host(TEST) else { return Ok(()) };
    let mut libvirt = Libvirt::start()?;
    let agent = agent_beside(&libvirt, Setup::default())?;
    let numa = "<numa><cell id='0' cpus='0-3' memory='64' unit='MiB'/></numa>";
    libvirt.create_of("web-1", &domain("web-1", SIZE, "<memballoon model='none'/>", numa))?;
    agent.wait_vms(&[UUID])?;
    let start = agent.lines("vm.compute.start", UUID)?;
    assert_eq!(start.len(), 1);
    assert_owner(&start[0]);
    let mib = 1_u64 << 20;
    assert_eq!(start[0]["shape"], json!({ "cpu": 1, "mem_bytes": 64 * mib }));
    let vm = agent.json(&format!("/v1/vms/{UUID}"))?;
    assert_owner(&vm);
    assert_eq!(vm["pid"], libvirt.vm_pid("web-1")?);
    let metrics = agent.metrics()?;
    assert_eq!(metrics.one("kvmeter_vm_info", &[("vm_id", UUID), ("tenant", "p-1")]), Some(1.0));

    libvirt.virsh(&["setvcpus", "web-1", "3", "--live"])?;
    let grown = json!({ "cpu": 3, "mem_bytes": 64 * mib });
    wait_shapes(&agent, std::slice::from_ref(&grown))?;
    let module = libvirt.file("module.xml", MODULE)?;
    libvirt.virsh(&["attach-device", "web-1", &module, "--live"])?;
    let larger = json!({ "cpu": 3, "mem_bytes": 192 * mib });
    wait_shapes(&agent, &[grown.clone(), larger.clone()])?;
    assert_eq!(agent.metrics()?.one("kvmeter_vm_vcpus", &[("vm_id", UUID)]), Some(3.0));

    // An agent that comes back tells neither the owner nor a shape again.
    let (status, _, dir) = agent.stop()?;
    assert!(status.success());
    let agent = agent_beside(&libvirt, Setup { dir: Some(dir), ..Setup::default() })?;
    agent.wait_vms(&[UUID])?;
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(shapes(&agent)?, [grown, larger.clone()]);
    assert_eq!(agent.lines("vm.identity", UUID)?, Vec::<Value>::new());
    assert_owner(&agent.json(&format!("/v1/vms/{UUID}"))?);
    let looks =
        |outcome| Ok::<_, anyhow::Error>(agent.metrics()?.one("kvmeter_identity_cache_total", &[("outcome", outcome)]));
    agent.wait_until("a look that found nothing new", PATIENCE, |_| Ok(looks("hit")? >= Some(1.0)))?;
    assert!(looks("miss")? >= Some(1.0));
    libvirt.virsh(&["destroy", "web-1"])?;
    let stop = agent.stop_line(UUID)?;
    assert_owner(&stop);
    assert_eq!(stop["shape"], larger);
    agent.verify()
}

/// Ends a child when dropped.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn a_vmm_that_takes_anothers_name_and_uuid_gets_its_tenant_from_nobody() -> Result<()> {
    const TEST: &str = "a_vmm_that_takes_anothers_name_and_uuid_gets_its_tenant_from_nobody";
    if !installed(TEST) {
        return Ok(());
    }
    let Some(_host) = host(TEST) else { return Ok(()) };
    let mut libvirt = Libvirt::start()?;
    let agent = agent_beside(&libvirt, Setup::default())?;
    libvirt.create_of(
        "web-1",
        &domain("web-1", SIZE, "", "<numa><cell id='0' cpus='0-3' memory='64' unit='MiB'/></numa>"),
    )?;
    agent.wait_vms(&[UUID])?;
    let mut command = inside(libvirt.pid(), "qemu-system-x86_64");
    command.args(["-accel", "kvm", "-cpu", "qemu64,-cx16,-pni", "-name", "guest=web-1", "-uuid", UUID, "-m", "32"]);
    command.args(["-nographic", "-nodefaults", "-display", "none"]).stdout(Stdio::null());
    let copy = Ended(command.spawn().context("cannot start QEMU")?);
    let id = format!("qemu-{}-", copy.0.id());
    agent.wait_until("the copy", PATIENCE, |agent| {
        Ok(agent.metrics()?.all("kvmeter_vm_info", &[]).any(|vm| vm.labels["vm_id"].starts_with(&id)))
    })?;
    let list = agent.json("/v1/vms")?;
    let copied = list["vms"].as_array().context("a list")?.iter();
    let copied = copied.filter(|vm| vm["vm_id"].as_str().is_some_and(|own| own.starts_with(&id))).collect::<Vec<_>>();
    assert_eq!(copied.len(), 1);
    assert_eq!((&copied[0]["tenant"], &copied[0]["labels"]), (&json!(""), &json!({})));
    assert_eq!(copied[0]["shape"]["mem_bytes"], 32 << 20);
    agent.verify()
}
