//! A VM's network in metrics and JSON.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    catalog::{self, Metric},
    family::Family,
    vm::{Fill, labels},
};
use crate::account::{
    VmView,
    network::{Interface, InterfaceKind, Traffic},
    snapshot::Detail,
};

/// The families, with what a VM adds to each.
pub const ROWS: [(&Metric, Fill); 4] = [
    (&catalog::VM_NETWORK_BYTES, bytes),
    (&catalog::VM_NETWORK_PACKETS, packets),
    (&catalog::VM_NETWORK_DROPPED, dropped),
    (&catalog::VM_NETWORK_INTERFACES, interfaces),
];

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
    let class = |(class, t): (&std::sync::Arc<str>, &Traffic)| {
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
