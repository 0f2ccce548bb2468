//! A VM's network in metrics and JSON.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};

use super::{
    catalog::{self, Metric},
    family::{Family, MetricFamily},
    vm::{Fill, labels},
};
use crate::{
    account::{
        Snapshot, VmView,
        network::{Interface, InterfaceKind, Traffic},
        snapshot::Detail,
    },
    clock::rfc3339,
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

fn bytes(family: &mut Family, vm: &VmView, _: Detail) {
    each_class(family, vm, |traffic| [traffic.receive_bytes, traffic.transmit_bytes]);
}

fn packets(family: &mut Family, vm: &VmView, _: Detail) {
    each_class(family, vm, |traffic| [traffic.receive_packets, traffic.transmit_packets]);
}

fn each_class(family: &mut Family, vm: &VmView, of: fn(&Traffic) -> [u64; 2]) {
    let [id, name] = labels(vm);
    for interface in all(vm) {
        for (class, traffic) in &interface.classes {
            for (direction, value) in DIRECTIONS.into_iter().zip(of(traffic)) {
                family.push(&[id, name, &interface.name, direction, class], value as f64);
            }
        }
    }
}

fn dropped(family: &mut Family, vm: &VmView, _: Detail) {
    let [id, name] = labels(vm);
    for interface in all(vm) {
        let both = [(RECEIVE, interface.receive_dropped), (TRANSMIT, interface.transmit_dropped)];
        for (direction, packets) in both.into_iter().filter_map(|(direction, packets)| Some((direction, packets?))) {
            family.push(&[id, name, &interface.name, direction], packets as f64);
        }
    }
}

fn interfaces(family: &mut Family, vm: &VmView, _: Detail) {
    if vm.end.is_some() {
        return;
    }
    let [id, name] = labels(vm);
    let mut held: BTreeMap<(InterfaceKind, bool), u64> = BTreeMap::new();
    for interface in all(vm).filter(|interface| interface.held) {
        *held.entry((interface.kind, interface.unobserved.is_none())).or_default() += 1;
    }
    for ((kind, observed), count) in held {
        family.push(&[id, name, kind.as_str(), if observed { "true" } else { "false" }], count as f64);
    }
}

/// A VM's interfaces for the API; absent where nothing is known of them.
#[must_use]
pub fn detail(vm: &VmView) -> Option<Value> {
    let usage = vm.network.as_ref()?;
    Some(usage.interfaces.iter().map(one).collect())
}

/// What is known of interfaces of no VM, and which ones of VMs are not counted, for `/v1/status`.
#[must_use]
pub fn status(snapshot: &Snapshot) -> Value {
    let Some(tally) = &snapshot.host.network else { return Value::Null };
    let held = |vm: &Arc<VmView>| vm.end.is_none().then(|| vm.network.clone()).flatten();
    let each = snapshot.vms.iter().filter_map(|vm| Some((&vm.fixed.vm_id, held(vm)?)));
    let unobserved: Vec<Value> = each
        .flat_map(|(vm_id, usage)| {
            let not = usage.interfaces.iter().filter(|interface| interface.held && interface.unobserved.is_some());
            let told = |i: &Interface| json!({ "vm_id": vm_id, "interface": &*i.name, "kind": i.kind.as_str(), "why_not": i.unobserved.as_deref() });
            not.map(told).collect::<Vec<_>>()
        })
        .take(UNOBSERVED)
        .collect();
    let unowned = tally.unowned.traffic;
    json!({
        "read_at": rfc3339(snapshot.taken.unix_of(snapshot.host.network_read_ns)),
        "interfaces": tally.interfaces,
        "namespaces": tally.namespaces,
        "unobserved": unobserved,
        "unowned_receive_bytes": unowned.receive_bytes.to_string(),
        "unowned_transmit_bytes": unowned.transmit_bytes.to_string(),
        "unknown_before": tally.unowned.unknown_before,
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

fn one(interface: &Interface) -> Value {
    let mut value = json!({
        "interface": &*interface.name,
        "kind": interface.kind.as_str(),
        "observed": interface.unobserved.is_none(),
        "held": interface.held,
    });
    let Some(object) = value.as_object_mut() else { return value };
    if let Some(why) = &interface.unobserved {
        object.insert("why_not".to_owned(), json!(&**why));
    }
    for (key, packets) in [
        ("receive_dropped_packets", interface.receive_dropped),
        ("transmit_dropped_packets", interface.transmit_dropped),
    ] {
        if let Some(packets) = packets {
            object.insert(key.to_owned(), json!(packets.to_string()));
        }
    }
    let class = |(class, t): (&Arc<str>, &Traffic)| {
        json!({
            "class": &**class,
            "receive_bytes": t.receive_bytes.to_string(),
            "receive_packets": t.receive_packets.to_string(),
            "transmit_bytes": t.transmit_bytes.to_string(),
            "transmit_packets": t.transmit_packets.to_string(),
        })
    };
    if !interface.classes.is_empty() {
        object.insert("classes".to_owned(), interface.classes.iter().map(class).collect());
    }
    value
}
