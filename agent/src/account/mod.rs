//! Pure arithmetic: readings in, usage out. The one place that compares two readings.

pub mod snapshot;
pub mod usage;
pub mod work;

pub use snapshot::{Host, Snapshot, VmState, VmView};
pub use usage::{Carry, CpuUsage, Role, Told};
