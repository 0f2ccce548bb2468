//! Sources of readings outside the kernel programs.

pub mod proc_cpu;

pub use proc_cpu::ProcCpu;
