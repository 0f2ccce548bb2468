//! kvmeter's kernel programs: they count, and never decide. One file per subsystem; maps in `maps`.
//!
//! Everything here is cumulative. Programs load and attach one by one, so a kernel that lacks one hook loses one
//! reading. The licence section is what lets them call the kernel's GPL-only helpers.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(
    clippy::cast_possible_truncation,
    reason = "the target has 64-bit pointers, and ids are taken out of the halves of one word"
)]

#[cfg(feature = "bench")]
mod bench;
mod counter;
mod disk;
mod exits;
mod generation;
mod guest;
mod kvm;
mod lifecycle;
mod maps;
mod memory;
mod name;
mod network;
mod offsets;
mod part;
mod sched;
mod signal;
mod sockets;
mod task;
mod tracked;
mod vm;
mod waiting;

/// Declares a GPL-compatible licence to the kernel.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
