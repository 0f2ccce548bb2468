//! What is shown on a kernel other than the host's, where KVM has real guest entries and exits.
//!
//! `cargo xtask kernels` boots a kernel in software emulation with one program in it, this one. As process 1 (`init`) it
//! inserts modules, starts itself again for the checks, and writes what came out to a raw disk (`parcel`). `check` runs
//! the checks one after the other and says each on a line of JSON; `crate::trace` is the kernel's own word they compare with.

pub mod check;
pub mod clocks;
pub mod cpu;
pub mod exits;
pub mod guest;
pub mod handling;
pub mod init;
pub mod lives;
pub mod memory;
pub mod network;
pub mod parcel;
mod power;
pub mod programs;
pub mod suites;
pub mod vhost;
