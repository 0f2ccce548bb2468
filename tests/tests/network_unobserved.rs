//! Law: what the host's kernel cannot see of a guest's traffic is told as not observed, in every view; never as a zero.

use anyhow::{Context as _, Result};
use kvmeter_tests::{
    agent::Agent,
    loss::feature,
    net::{kind::kinds, netns::Namespace},
    skip::host,
    traffic::{BYTES, PACKETS, Told, Wired},
    vmm::{nic::client::NicVm, spawn::TestVm},
};
use std::time::Duration;

const INTERFACES: &str = "kvmeter_vm_network_interfaces";
const DROPPED: &str = "kvmeter_vm_network_dropped_packets_total";
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until this VM is told to have one interface of this kind that is not counted, and holds every view against it.
fn is_unobserved(agent: &Agent, id: &str, kind: &str, interface: &str) -> Result<()> {
    let labels = [("vm_id", id), ("kind", kind), ("observed", "false")];
    agent.wait_until("the interface", PATIENCE, |a| Ok(a.metrics()?.one(INTERFACES, &labels) == Some(1.0)))?;
    agent.wait_samples(1)?;
    let vm = agent.json(&format!("/v1/vms/{id}"))?;
    let list = vm["network"].as_array().context("no network")?;
    let one = list.iter().find(|one| one["interface"] == interface).with_context(|| format!("{list:?}"))?;
    assert_eq!((&one["kind"], &one["observed"], &one["held"]), (&kind.into(), &false.into(), &true.into()), "{one}");
    assert!(one["why_not"].as_str().is_some_and(|why| !why.is_empty()) && one.get("classes").is_none(), "{one}");
    let scrape = agent.metrics()?;
    for name in [BYTES, PACKETS, DROPPED] {
        let labels = [("vm_id", id), ("interface", interface)];
        assert_eq!(scrape.all(name, &labels).count(), 0, "{id}: {name} of what is not measured");
    }
    let doctor = serde_json::from_slice(&agent.command(&["doctor", "--json"])?.stdout)?;
    let row = feature(&doctor, "all_interfaces")?;
    let why = row["why"].as_str().context("no why")?;
    assert!(row["available"] == false && why.contains(&format!("{interface} of {id}")), "{row}");
    Ok(())
}

#[test]
fn a_vhost_user_interface_is_told_as_not_observed_and_a_tap_beside_it_is_counted() -> Result<()> {
    const TEST: &str = "a_vhost_user_interface_is_told_as_not_observed_and_a_tap_beside_it_is_counted";
    let Some(_host) = host(TEST) else { return Ok(()) };
    let agent = Agent::start()?;
    let _vm = TestVm::start(&["--id", "switched", "--words", "-netdev", "vhost-user,chardev=c,id=net0"])?;
    is_unobserved(&agent, "switched", "vhost-user", "net0")?;
    let mut tap = Wired::tap("beside", "")?;
    tap.counted(&agent)?;
    tap.vm.load(0, &kinds()[0].frame)?;
    tap.vm.send(0, 5)?;
    let told = Told::shown(&agent, "beside")?;
    assert_eq!((told.all(), told.all().transmit.packets), (tap.by_link()?, 5));
    Ok(())
}

#[test]
fn a_macvtap_in_another_namespace_than_its_vmm_is_told_as_not_observed() -> Result<()> {
    const TEST: &str = "a_macvtap_in_another_namespace_than_its_vmm_is_told_as_not_observed";
    let Some(_host) = host(TEST) else { return Ok(()) };
    let agent = Agent::start()?;
    // The VMM's own namespace has a macvtap with the same index: it is another one.
    let (here, there) = (Namespace::new()?, Namespace::new()?);
    let link = |namespace: &Namespace, name: &str| -> Result<_> {
        let (lower, _) = kvmeter_tests::net::link::Link::veth(namespace, "veth0", "veth1")?;
        let link = lower.macvtap(name)?;
        lower.set_up()?;
        link.set_up()?;
        Ok(link)
    };
    let (other, own) = (link(&here, "other0")?, link(&there, "macvtap0")?);
    assert_eq!(other.index(), own.index());
    let nic = format!("macvtap0,macvtap,netns={}", there.path().display());
    let mut vm = NicVm::start_in(&here, &nic, &["--id", "elsewhere"])?;
    is_unobserved(&agent, "elsewhere", "macvtap", "macvtap0")?;
    vm.load(0, &kinds()[0].frame)?;
    vm.send(0, 5)?;
    assert_eq!(Told::shown(&agent, "elsewhere")?, Told::default());
    Ok(())
}
