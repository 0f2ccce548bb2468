//! A VM's network, as the guest sees it.

use super::{Metric, Type};

metrics! {
    VM_NETWORK_BYTES: Counter "kvmeter_vm_network_bytes_total" ["vm_id", "name", "interface", "direction", "class"] "bytes",
        "Bytes through the VM's interface as the guest sees it, by class of the far end; classes sum to the link's own counter.";
    VM_NETWORK_PACKETS: Counter "kvmeter_vm_network_packets_total" ["vm_id", "name", "interface", "direction", "class"] "packets",
        "Packets through the VM's interface as the guest sees it, as the link counts them: a segmented one once.";
    VM_NETWORK_DROPPED: Counter "kvmeter_vm_network_dropped_packets_total" ["vm_id", "name", "interface", "direction"] "packets",
        "Packets that the link, or its queueing discipline, dropped; those towards the guest are part of what it was sent.";
    VM_NETWORK_INTERFACES: Gauge "kvmeter_vm_network_interfaces" ["vm_id", "name", "kind", "observed"] "interfaces",
        "Interfaces the VM holds, by how it is connected and whether their packets are counted here.";
    NETWORK_UNOWNED_BYTES: Counter "kvmeter_network_unowned_bytes_total" ["direction"] "bytes",
        "Bytes through counted interfaces while no VM held them, in no VM's numbers.";
    NETWORK_UNOWNED_PACKETS: Counter "kvmeter_network_unowned_packets_total" ["direction"] "packets",
        "Packets through counted interfaces while no VM held them, in no VM's numbers.";
}
