//! A VM's network in metrics and JSON.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    answer::{At, Decimal, Nullable, answers},
    catalog::{self, Metric},
    family::{Column, Family, MetricFamily},
    vm::Fill,
};
use crate::account::{
    Snapshot, VmView,
    network::{Interface, InterfaceKind, Traffic},
};

/// The families, with what a VM adds to each.
pub const ROWS: [(&Metric, Fill); 4] = [
    (&catalog::VM_NETWORK_BYTES, bytes),
    (&catalog::VM_NETWORK_PACKETS, packets),
    (&catalog::VM_NETWORK_DROPPED, dropped),
    (&catalog::VM_NETWORK_INTERFACES, interfaces),
];

/// Interfaces that are listed as not counted.
const UNOBSERVED: usize = 100;
const RECEIVE: &str = "receive";
const TRANSMIT: &str = "transmit";
/// The words of label `direction`.
pub const DIRECTIONS: [&str; 2] = [RECEIVE, TRANSMIT];

fn all(vm: &VmView) -> impl Iterator<Item = &Interface> {
    vm.network.iter().flat_map(|usage| &usage.interfaces)
}

fn bytes(family: &mut Column, vm: &VmView, _: &Snapshot) {
    each_class(family, vm, |traffic| [traffic.receive_bytes, traffic.transmit_bytes]);
}

fn packets(family: &mut Column, vm: &VmView, _: &Snapshot) {
    each_class(family, vm, |traffic| [traffic.receive_packets, traffic.transmit_packets]);
}

fn each_class(family: &mut Column, vm: &VmView, of: fn(&Traffic) -> [u64; 2]) {
    for interface in all(vm) {
        for (class, traffic) in &interface.classes {
            for (direction, value) in DIRECTIONS.into_iter().zip(of(traffic)) {
                family.push_of(&[&interface.name, direction, class], value);
            }
        }
    }
}

fn dropped(family: &mut Column, vm: &VmView, _: &Snapshot) {
    for interface in all(vm) {
        let both = [(RECEIVE, interface.receive_dropped), (TRANSMIT, interface.transmit_dropped)];
        for (direction, packets) in both.into_iter().filter_map(|(direction, packets)| Some((direction, packets?))) {
            family.push_of(&[&interface.name, direction], packets);
        }
    }
}

fn interfaces(family: &mut Column, vm: &VmView, _: &Snapshot) {
    if vm.end.is_some() {
        return;
    }
    let mut held: BTreeMap<(InterfaceKind, bool), u64> = BTreeMap::new();
    for interface in all(vm).filter(|interface| interface.held) {
        *held.entry((interface.kind, interface.unobserved.is_none())).or_default() += 1;
    }
    for ((kind, observed), count) in held {
        family.push_of(&[kind.as_str(), if observed { "true" } else { "false" }], count);
    }
}

answers! {
    /// One interface of a VM, as the guest sees it.
    struct NetworkInterface {
        interface: String = "Its name.";
        kind: &'static str = "What it is.";
        observed: bool = "Whether its traffic is counted.";
        held: bool = "Whether the VM holds it now.";
        why_not: Option<String> = "Why its traffic is not counted.";
        receive_dropped_packets: Option<Decimal> = "Packets to the guest that were dropped.";
        transmit_dropped_packets: Option<Decimal> = "Packets of the guest that were dropped.";
        classes: Option<Vec<ClassTraffic>> = "Its traffic by class.";
    }

    /// Traffic of a class.
    struct ClassTraffic {
        class: String = "The class of the far end: a configured one, external, non_ip, unclassified.";
        receive_bytes: Decimal = "Bytes into the guest.";
        receive_packets: Decimal = "Packets into the guest.";
        transmit_bytes: Decimal = "Bytes out of the guest.";
        transmit_packets: Decimal = "Packets out of the guest.";
    }

    /// What is known of interfaces of no VM, and which ones of VMs are not counted.
    struct NetworkStatus {
        read_at: At = "As of when the figures of interfaces are.";
        interfaces: usize = "Interfaces that are counted.";
        namespaces: usize = "Network namespaces that are looked at.";
        unobserved: Vec<Unobserved> = "Interfaces of VMs that are not counted, the first 100.";
        unowned_receive_bytes: Decimal = "Bytes to guests on interfaces of no VM.";
        unowned_transmit_bytes: Decimal = "Bytes from them.";
        unknown_before: u64 = "Interfaces whose traffic of before is not known.";
    }

    /// An interface that is not counted.
    struct Unobserved {
        vm_id: String = "Whose it is.";
        interface: String = "Its name.";
        kind: &'static str = "What it is.";
        why_not: Nullable<String> = "Why.";
    }
}

/// A VM's interfaces for the API; absent where nothing is known of them.
#[must_use]
pub fn detail(vm: &VmView) -> Option<Vec<NetworkInterface>> {
    let usage = vm.network.as_ref()?;
    Some(usage.interfaces.iter().map(one).collect())
}

/// What is known of interfaces, for `/v1/status`; nothing where none are counted.
#[must_use]
pub fn status(snapshot: &Snapshot) -> Option<NetworkStatus> {
    let tally = snapshot.host.network.as_ref()?;
    let held = |vm: &Arc<VmView>| vm.end.is_none().then(|| vm.network.clone()).flatten();
    let each = snapshot.vms.iter().filter_map(|vm| Some((&vm.fixed.vm_id, held(vm)?)));
    let unobserved = each.flat_map(|(vm_id, usage)| {
        let not = usage.interfaces.iter().filter(|interface| interface.held && interface.unobserved.is_some());
        let told = |i: &Interface| Unobserved {
            vm_id: vm_id.clone(),
            interface: i.name.to_string(),
            kind: i.kind.as_str(),
            why_not: Nullable(i.unobserved.as_deref().map(str::to_owned)),
        };
        not.map(told).collect::<Vec<_>>()
    });
    let unowned = tally.unowned.traffic;
    Some(NetworkStatus {
        read_at: At::unix(snapshot.taken.unix_of(snapshot.host.network_read_ns)),
        interfaces: tally.interfaces,
        namespaces: tally.namespaces,
        unobserved: unobserved.take(UNOBSERVED).collect(),
        unowned_receive_bytes: unowned.receive_bytes.into(),
        unowned_transmit_bytes: unowned.transmit_bytes.into(),
        unknown_before: tally.unowned.unknown_before,
    })
}

/// Traffic of no VM on interfaces that are counted, in metrics.
#[must_use]
pub fn unowned(snapshot: &Snapshot) -> [MetricFamily; 2] {
    let traffic = snapshot.host.network.map(|tally| tally.unowned.traffic);
    let family = |metric: &'static Metric, of: fn(&Traffic) -> [u64; 2]| {
        let mut family = Family::new(metric);
        for (direction, value) in traffic.iter().flat_map(|traffic| DIRECTIONS.into_iter().zip(of(traffic))) {
            family.push(&[direction], value as f64);
        }
        family.done()
    };
    [
        family(&catalog::NETWORK_UNOWNED_BYTES, |t| [t.receive_bytes, t.transmit_bytes]),
        family(&catalog::NETWORK_UNOWNED_PACKETS, |t| [t.receive_packets, t.transmit_packets]),
    ]
}

fn one(interface: &Interface) -> NetworkInterface {
    let class = |(class, t): (&Arc<str>, &Traffic)| ClassTraffic {
        class: class.to_string(),
        receive_bytes: t.receive_bytes.into(),
        receive_packets: t.receive_packets.into(),
        transmit_bytes: t.transmit_bytes.into(),
        transmit_packets: t.transmit_packets.into(),
    };
    NetworkInterface {
        interface: interface.name.to_string(),
        kind: interface.kind.as_str(),
        observed: interface.unobserved.is_none(),
        held: interface.held,
        why_not: interface.unobserved.as_deref().map(str::to_owned),
        receive_dropped_packets: interface.receive_dropped.map(Decimal::from),
        transmit_dropped_packets: interface.transmit_dropped.map(Decimal::from),
        classes: (!interface.classes.is_empty()).then(|| interface.classes.iter().map(class).collect()),
    }
}
