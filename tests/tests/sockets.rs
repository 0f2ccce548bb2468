//! Law: what was not measured is absent. The VMM's own sockets are counted where it has a control group of version 2 of
//! its own, to the byte of the packets' IP lengths, and never told as guest traffic.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use kvmeter_tests::{
    agent::{Agent, Setup},
    cgroup::Group,
    orders::OrderedVm,
    packets::{Packets, cgroup_programs},
    skip::{host, installed, skipped},
    vmm::spawn::TestVm,
};

const BYTES: &str = "kvmeter_vm_host_socket_bytes_total";
const PATIENCE: Duration = Duration::from_secs(60);
const SCAN: &str = "[discovery]\nscan_interval = \"1s\"\n";
/// IPv4 and UDP headers.
const HEADERS: u64 = 28;

fn group(test: &str, name: &str) -> Option<Group> {
    let group = Group::unified(name).filter(|_| installed("bpftool"));
    if group.is_none() {
        skipped(test, "needs bpftool and control groups of version 2 at /sys/fs/cgroup/unified");
    }
    group
}

fn start(id: &str, group: &Group) -> Result<OrderedVm> {
    OrderedVm::start(&["--id", id, "--cgroup", group.dir().to_str().context("no text")?])
}

/// Bytes received and sent; `None` where there is no series.
fn told(agent: &Agent, vm_id: &str) -> Result<Option<(u64, u64)>> {
    let scrape = agent.metrics()?;
    let of = |direction| scrape.bytes(BYTES, &[("vm_id", vm_id), ("direction", direction)]);
    Ok(of("receive").zip(of("transmit")))
}

fn wait_told(agent: &Agent, vm_id: &str, expected: (u64, u64)) -> Result<()> {
    let waited = agent.wait_until("the bytes", PATIENCE, |a| Ok(told(a, vm_id)? == Some(expected)));
    waited.with_context(|| format!("expected {expected:?}, told {:?}", told(agent, vm_id)))
}

/// Answers each datagram with one of `answer` bytes; its address. Ends after `count`.
fn udp_server(count: u32, answer: usize) -> Result<String> {
    let server = UdpSocket::bind("127.0.0.1:0")?;
    let address = server.local_addr()?.to_string();
    thread::spawn(move || -> Result<()> {
        for _ in 0..count {
            let (_, from) = server.recv_from(&mut [0; 65_536])?;
            server.send_to(&vec![3; answer], from)?;
        }
        Ok(())
    });
    Ok(address)
}

#[test]
fn a_vmms_datagrams_are_counted_to_the_byte_in_its_own_direction() -> Result<()> {
    const TEST: &str = "a_vmms_datagrams_are_counted_to_the_byte_in_its_own_direction";
    let Some(_host) = host(TEST) else { return Ok(()) };
    let (Some(one), Some(other)) = (group(TEST, "sockets"), group(TEST, "moved")) else { return Ok(()) };
    let agent = Agent::with(Setup::of(SCAN))?;
    let mut vm = start("talks", &one)?;
    agent.wait_vms(&["talks"])?;
    wait_told(&agent, "talks", (0, 0))?;
    vm.order(&format!("udp {} 100 1000", udp_server(100, 300)?))?;
    let first = (100 * (300 + HEADERS), 100 * (1000 + HEADERS));
    wait_told(&agent, "talks", first)?;
    // It is moved: what was counted stays, and what its new group's sockets do is added.
    other.add(vm.vm.pid())?;
    agent.wait_samples(2)?;
    agent.wait_until("the new group, and the old one to be let go", PATIENCE, |_| {
        Ok((cgroup_programs(other.dir())?, cgroup_programs(one.dir())?) == (2, 0))
    })?;
    vm.order(&format!("udp {} 10 500", udp_server(10, 50)?))?;
    let all = (first.0 + 10 * (50 + HEADERS), first.1 + 10 * (500 + HEADERS));
    wait_told(&agent, "talks", all)?;
    // Its last words count, and its series stay for a while.
    vm.send(&format!("udp {} 7 70\nexit 0\n", udp_server(7, 7)?))?;
    vm.vm.wait()?;
    agent.ended("talks")?;
    wait_told(&agent, "talks", (all.0 + 7 * (7 + HEADERS), all.1 + 7 * (70 + HEADERS)))?;
    agent.wait_until("nothing to be left on its group", PATIENCE, |_| Ok(cgroup_programs(other.dir())? == 0))
}

#[test]
fn a_vmms_connection_is_counted_as_the_packets_that_were_captured() -> Result<()> {
    const TEST: &str = "a_vmms_connection_is_counted_as_the_packets_that_were_captured";
    let Some(_host) = host(TEST) else { return Ok(()) };
    let Some(group) = group(TEST, "tcp") else { return Ok(()) };
    let agent = Agent::with(Setup::of(SCAN))?;
    // Programs of others on the same group still run, here those of a second agent.
    let beside = Agent::with(Setup::of(SCAN))?;
    let mut vm = start("streams", &group)?;
    agent.wait_vms(&["streams"])?;
    wait_told(&agent, "streams", (0, 0))?;
    wait_told(&beside, "streams", (0, 0))?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let (count, bytes) = (500, 40_000);
    let packets = Packets::on_loopback(address.port())?;
    // The other end closes first: then all packets of the connection belong to the VMM's whole socket.
    let server = thread::spawn(move || -> Result<()> {
        let (mut stream, _) = listener.accept()?;
        let mut buffer = vec![0; bytes];
        for _ in 0..count {
            stream.read_exact(&mut buffer)?;
            stream.write_all(&[1])?;
        }
        Ok(())
    });
    vm.order(&format!("tcp {address} {count} {bytes}"))?;
    server.join().map_err(|_| anyhow::anyhow!("the server panicked"))??;
    agent.wait_samples(2)?;
    let (to_server, from_server) = packets.done()?;
    assert!(to_server > (count * bytes) as u64 && from_server > 0, "{to_server} {from_server}");
    wait_told(&agent, "streams", (from_server, to_server))?;
    wait_told(&beside, "streams", (from_server, to_server))?;
    let scrape = agent.metrics()?;
    let guest = scrape.all("kvmeter_vm_network_bytes_total", &[("vm_id", "streams")]).count();
    assert_eq!(guest, 0, "its own sockets are no traffic of the guest");
    // With the agent everything goes away.
    assert_eq!(cgroup_programs(group.dir())?, 4);
    agent.stop()?;
    beside.wait_until("half of them to go", PATIENCE, |_| Ok(cgroup_programs(group.dir())? == 2))?;
    beside.stop()?;
    let end = Instant::now() + PATIENCE;
    while cgroup_programs(group.dir())? > 0 {
        ensure!(Instant::now() < end, "programs are left");
    }
    Ok(())
}

#[test]
fn a_vm_without_a_group_of_its_own_shows_nothing_and_the_api_says_why() -> Result<()> {
    const TEST: &str = "a_vm_without_a_group_of_its_own_shows_nothing_and_the_api_says_why";
    let Some(_host) = host(TEST) else { return Ok(()) };
    let Some(shared) = group(TEST, "shared") else { return Ok(()) };
    let agent = Agent::with(Setup::of(SCAN))?;
    let root = TestVm::start(&["--id", "root"])?;
    let mut two = [start("one", &shared)?, start("two", &shared)?];
    agent.wait_vms(&["root", "one", "two"])?;
    two[0].order(&format!("udp {} 10 100", udp_server(10, 10)?))?;
    agent.wait_samples(2)?;
    // The first may have been alone in the group for a moment; what it told then stands, and no more is added.
    for (id, why) in [("root", "root control group"), ("two", "also holds process")] {
        agent.wait_until(why, PATIENCE, |agent| {
            let api = agent.json(&format!("/v1/vms/{id}"))?;
            Ok(api["host_socket_why_not"].as_str().is_some_and(|text| text.contains(why)))
        })?;
        assert_eq!(told(&agent, id)?, None, "{id}: not measured is absent");
    }
    drop(root);
    Ok(())
}
