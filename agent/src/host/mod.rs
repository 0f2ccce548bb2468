//! What the host says: the only folder that reads `/proc`, `/sys` or netlink.
//!
//! Everything takes a root path, `/` in life and a temporary directory in tests. Nothing is cached (but by a `GroupSearch`,
//! for as long as it takes) and nothing is retried: a reading is of this instant or it is an error that says which kind, because "gone" and "not allowed"
//! mean different things to a bill.

pub mod beneath;
mod cgroup;
pub mod child;
pub mod cpus;
pub mod disk;
pub mod facts;
mod file;
mod kvm_fds;
pub mod libvirt_log;
pub mod link;
pub mod memory;
pub mod netns;
pub mod passthrough;
pub mod pause;
pub mod process;
mod program_stats;
pub mod realtime;
pub mod scan;
pub mod schedstat;
pub mod shutdown;
#[cfg(test)]
pub(crate) mod skip;
pub mod sockets;
pub mod source;
mod space;
pub mod store;
pub mod tap;
pub mod throttle;
pub mod tracefs;
mod tun;
pub mod uevent;
pub mod writer;

pub use facts::{Capability, HostFacts};
pub use kvm_fds::KvmFds;
pub use memory::{MemoryFiles, MemoryGroup, MemoryReading, PssReader};
pub use netns::{NetNs, NetNsId};
pub use process::{Cmdline, ProcError, ProcFs, ProcStat};
pub use program_stats::ProgramStats;
pub use scan::{ScanResult, scan_kvm};
pub use schedstat::SchedstatFile;
pub use space::free_bytes;
pub use throttle::{GroupSearch, ThrottleSource, WhyNot};
pub use uevent::{KvmUevent, UeventOutcome, UeventSocket};
