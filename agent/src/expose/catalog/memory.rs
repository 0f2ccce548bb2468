//! A VM's memory.

use super::{Metric, Type};

metrics! {
    VM_MEMORY_CONFIGURED: Gauge "kvmeter_vm_memory_configured_bytes" ["vm_id", "name"] "bytes",
        "Memory the VM was configured with; absent where its VMM does not tell.";
}
