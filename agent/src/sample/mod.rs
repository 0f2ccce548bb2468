//! Sources of readings outside the kernel programs.

pub mod network;
pub mod proc_cpu;

pub use proc_cpu::ProcCpu;
