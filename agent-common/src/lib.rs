//! The memory layout that kvmeter's kernel programs and its agent share.
//!
//! Integers only: every bit pattern of every type here is a valid value, so a torn or hostile read can be wrong
//! but never undefined. Each type asserts its size, its field offsets and the absence of padding beside its
//! definition. Both sides are compiled from this crate; a change here changes [`ABI_VERSION`].
#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

pub mod disk;
pub mod event;
pub mod exit;
pub mod header;
pub mod index;
pub mod layout;
pub mod limits;
pub mod loss;
pub mod name;
pub mod network;
pub mod offset;
pub mod signal;
pub mod thread;
pub mod vcpu;
pub mod vm;

/// Version of every type in this crate, taken together.
pub const ABI_VERSION: u32 = 6;
