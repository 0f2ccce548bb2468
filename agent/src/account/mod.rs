//! Pure arithmetic: readings in, usage out. The one place that compares two readings.

pub mod class;
pub mod disk;
pub mod histogram;
pub mod host;
pub mod memory;
pub mod network;
pub mod past;
pub mod snapshot;
pub mod usage;
pub mod work;
pub mod workload;

pub use disk::{DiskUsage, GroupTold};
pub use histogram::Histogram;
pub use host::Host;
pub use memory::{Integral, MemoryUsage};
pub use network::NetworkUsage;
pub use snapshot::{Snapshot, VmState, VmView};
pub use usage::{Carry, CpuUsage, Role, Told};
pub use workload::Workload;
