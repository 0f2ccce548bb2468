//! Everything that touches BPF: facts about the kernel → plan → load → attach → read. The only folder that imports aya.
//!
//! What leaves here are readings: cumulative numbers by VM, at one instant. Nothing here knows what they mean.

mod attach;
pub mod btf;
pub mod format;
mod group_counters;
mod kept;
pub mod kernel;
pub mod maps;
pub mod network;
pub mod object;
pub mod offsets;
mod outlive;
pub mod pin;
pub mod plan;
pub mod programs;
mod read;
pub mod reading;
pub mod records;
pub mod slots;
pub mod sockets;
mod start;

pub use kernel::Kernel;
pub use object::{Obstacle, Setup};
pub use outlive::{Found, Pinning};
pub use plan::{Hooks, State, Status};
pub use read::{Readings, Want};
pub use reading::{Exit, MemoryMarks, VcpuReading, VmReading, Work};
pub use sockets::{CountedGroup, SocketBytes};
