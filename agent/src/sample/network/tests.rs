//! The thread with the kernel programs on real taps. Any process that holds a tap serves as a VM.

mod gone;
mod handover;
mod kept;

use std::{collections::HashSet, fs, net::UdpSocket, path::Path, time::Instant};

use super::*;
use crate::{
    account::network::{Interface, InterfaceKind},
    bpf::network::NetworkPrograms,
    host::{
        ProcFs,
        link::{LinkRequests, LinkStats},
        tap::rig::{Holder, Rig},
    },
    units::Tgid,
};

const PATIENCE: Duration = Duration::from_secs(20);

fn names() -> ClassNames {
    let mut names = ClassNames::default();
    (names[0], names[1]) = (Some(Arc::from("external")), Some(Arc::from("non_ip")));
    names
}

fn network() -> Network<NetworkPrograms> {
    let programs = NetworkPrograms::load().expect("the programs load");
    Network::start(PathBuf::from("/"), programs, names()).expect("the thread starts")
}

fn key(holder: &Holder) -> VmKey {
    let stat = ProcFs::new(Path::new("/")).stat(Tgid(holder.tgid())).expect("it lives");
    VmKey { tgid: holder.tgid(), start_ticks: stat.start_ticks }
}

/// A namespace in which nothing is sent by itself.
fn quiet() -> Rig {
    let rig = Rig::new();
    let off = || fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    rig.netns().inside(off).expect("enter").expect("no IPv6");
    rig
}

fn frame(length: usize) -> Vec<u8> {
    let mut frame = vec![0; length];
    frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    frame[12..14].copy_from_slice(&0x88b5_u16.to_be_bytes());
    frame
}

fn stats(rig: &Rig, name: &str) -> LinkStats {
    let link = LinkRequests::open(rig.netns()).expect("open").named(name).expect("ask");
    link.expect("exists").stats.expect("counted")
}

/// Asks again until it holds; a time that is too short only makes it fail.
fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Samples once more.
fn sample(network: &Network<NetworkPrograms>) {
    let next = network.samples() + 1;
    network.sample();
    assert!(network.wait_sample(next, PATIENCE), "a sample is published");
}

fn interface(network: &Network<NetworkPrograms>, vm: VmKey, name: &str) -> Option<Interface> {
    let usage = network.usage(vm)?;
    usage.interfaces.iter().find(|one| &*one.name == name).cloned()
}

/// Until so many interfaces are counted.
fn counted(network: &Network<NetworkPrograms>, interfaces: usize) {
    until("all interfaces are counted", || {
        sample(network);
        network.tally().interfaces == interfaces
    });
}

/// Bytes and packets out of the guest and into it, of all classes.
fn sum(usage: &NetworkUsage) -> [u64; 4] {
    let classes = usage.interfaces.iter().flat_map(|one| one.classes.values());
    classes.fold([0; 4], |sum, one| {
        let more = [one.transmit_bytes, one.transmit_packets, one.receive_bytes, one.receive_packets];
        std::array::from_fn(|at| sum[at] + more[at])
    })
}

fn of_link(stats: LinkStats) -> [u64; 4] {
    [stats.rx_bytes, stats.rx_packets, stats.tx_bytes, stats.tx_packets + stats.tx_dropped]
}

/// A socket from which packets for `10.9.0.2` go out through the tap.
fn towards_guest(rig: &Rig, name: &str) -> UdpSocket {
    rig.ip(&["addr", "replace", "10.9.0.1/24", "dev", name]);
    rig.ip(&["neigh", "replace", "10.9.0.2", "lladdr", "02:00:00:00:00:01", "dev", name, "nud", "permanent"]);
    let socket = rig.netns().inside(|| UdpSocket::bind("10.9.0.1:0")).expect("enter").expect("bind");
    socket.connect("10.9.0.2:9").expect("route");
    socket
}

/// Sends frames and waits until the link has them all.
fn transmit(rig: &Rig, name: &str, holder: &mut Holder, frames: u64) {
    let before = stats(rig, name).rx_packets;
    for sent in 1..=frames {
        assert!(holder.send(&frame(100)));
        // One at a time: two that wait in the pipe would be read as one.
        until("the frame is in", || stats(rig, name).rx_packets == before + sent);
    }
}

/// Sends packets of 72 bytes to the guest and waits until it has them.
fn receive(rig: &Rig, name: &str, socket: &UdpSocket, packets: u64) {
    let before = stats(rig, name).tx_packets;
    (0..packets).for_each(|_| assert_eq!(socket.send(&[0; 30]).expect("send"), 30));
    until("the packets are out", || stats(rig, name).tx_packets == before + packets);
}

#[test]
fn two_vms_with_the_same_interface_name_and_index_in_two_namespaces_are_kept_apart() {
    let (rigs, network) = ([quiet(), quiet()], network());
    let mut holders: Vec<Holder> = rigs.iter().map(|rig| Holder::of(rig.tap("same0", &[]))).collect();
    let indices: Vec<u32> = rigs
        .iter()
        .map(|rig| LinkRequests::open(rig.netns()).expect("open").named("same0").expect("ask").expect("is").ifindex)
        .collect();
    assert_eq!(indices[0], indices[1]);
    let vms: Vec<VmKey> = holders.iter().map(key).collect();
    rigs.iter().for_each(|rig| rig.ip(&["link", "set", "same0", "up"]));
    vms.iter().for_each(|vm| network.born(*vm));
    counted(&network, 2);
    for (at, (rig, holder)) in rigs.iter().zip(&mut holders).enumerate() {
        transmit(rig, "same0", holder, 5 + 10 * at as u64);
        let socket = towards_guest(rig, "same0");
        receive(rig, "same0", &socket, at as u64 + 1);
    }
    sample(&network);
    for (at, rig) in rigs.iter().enumerate() {
        let usage = network.usage(vms[at]).expect("known");
        assert_eq!(usage.interfaces.len(), 1);
        assert_eq!(sum(&usage), of_link(stats(rig, "same0")));
        let external = usage.interfaces[0].classes["external"];
        assert_eq!((external.receive_packets, external.receive_bytes), (at as u64 + 1, (at as u64 + 1) * 72));
        assert_eq!(usage.interfaces[0].classes["non_ip"].transmit_packets, 5 + 10 * at as u64);
    }
    // The end of one: its last figures are there, and the other's go on.
    let last = sum(&network.usage(vms[0]).expect("known"));
    drop(holders.remove(0));
    network.ended(vms[0]);
    let told = network.final_usage(vms[0], PATIENCE).expect("its last figures");
    assert_eq!(sum(&told), last);
    assert!(!told.interfaces[0].held);
    counted(&network, 1);
    until("its namespace is let go; the other's and the one the VMs live in stay", || {
        sample(&network);
        network.tally().namespaces == 2
    });
    holders.clear();
    network.ended(vms[1]);
    assert!(network.final_usage(vms[1], PATIENCE).is_some());
    until("namespaces without a VM are let go", || {
        sample(&network);
        network.tally().namespaces <= 1
    });
}

#[test]
fn what_passed_before_the_agent_came_is_unclassified_and_the_whole_is_the_link_s() {
    let (rig, network) = (quiet(), network());
    rig.persistent("late0");
    let mut holder = Holder::of(rig.tap("late0", &[]));
    rig.ip(&["link", "set", "late0", "up"]);
    transmit(&rig, "late0", &mut holder, 7);
    let socket = towards_guest(&rig, "late0");
    receive(&rig, "late0", &socket, 1);
    let vm = key(&holder);
    network.born(vm);
    counted(&network, 1);
    transmit(&rig, "late0", &mut holder, 3);
    receive(&rig, "late0", &socket, 1);
    sample(&network);
    let one = interface(&network, vm, "late0").expect("known");
    let before = one.classes["unclassified"];
    assert_eq!((before.transmit_packets, before.transmit_bytes), (7, stats(&rig, "late0").rx_bytes / 10 * 7));
    assert_eq!((before.receive_packets, before.receive_bytes), (1, 72));
    assert_eq!(sum(&network.usage(vm).expect("known")), of_link(stats(&rig, "late0")));
}

#[test]
fn a_stranger_s_tap_is_never_counted() {
    let (rig, network) = (quiet(), network());
    let (mine, strange) = (Holder::of(rig.tap("mine0", &[])), Holder::of(rig.tap("strange0", &[])));
    network.born(key(&mine));
    counted(&network, 1);
    network.reconcile(HashSet::new());
    sample(&network);
    assert_eq!(network.tally().interfaces, 1);
    assert_eq!(network.usage(key(&mine)).expect("known").interfaces.len(), 1);
    drop(strange);
}

#[test]
fn a_macvtap_is_counted_as_its_link_counts_from_the_other_side() {
    let (rig, network) = (quiet(), network());
    let file = rig.macvtap("mv0");
    rig.ip(&["link", "set", "mv0", "address", "02:00:00:00:00:01"]);
    let mut holder = rig.netns().inside(|| Holder::of(file)).expect("enter");
    let vm = key(&holder);
    network.born(vm);
    counted(&network, 1);
    let link = || stats(&rig, "mv0");
    for sent in 1..=4 {
        assert!(holder.send(&frame(100)));
        until("the frame is out", || link().tx_packets == sent);
    }
    let socket = towards_guest(&rig, "mv0p");
    for received in 1..=3 {
        assert_eq!(socket.send(&[0; 30]).expect("send"), 30);
        until("the packet is in", || link().rx_packets == received);
    }
    sample(&network);
    let one = interface(&network, vm, "mv0").expect("known");
    assert_eq!((one.kind, one.held), (InterfaceKind::Macvtap, true));
    let (now, told) = (link(), sum(&network.usage(vm).expect("known")));
    assert_eq!(told, [now.tx_bytes, now.tx_packets, now.rx_bytes, now.rx_packets]);
    assert_eq!(told[1..], [4, 3 * 72, 3]);
}
