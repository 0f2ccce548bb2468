//! What passed through a VM's network interface: one page an interface, written by its two programs, mapped by the agent.
//!
//! Each interface has a map of one element of its own, so that its programs hold the address as a constant and the page
//! is gone with them. Counts are kept by account: one for each process that wrote to the interface, because the agent
//! learns of a handover too late to split by time.

use crate::assert_layout;

/// Classes of the far end, in all.
pub const CLASSES: usize = 16;
/// IPv4 and IPv6 whose address matches no configured prefix.
pub const EXTERNAL: u32 = 0;
/// Neither IPv4 nor IPv6.
pub const NON_IP: u32 = 1;
/// Accounts of an interface at a time.
pub const ACCOUNTS: usize = 7;
/// Bytes of an account, and of what comes before the first: an account's offset is its number times this.
pub const ACCOUNT_BYTES: usize = 512;
/// Keeps an account's offset inside the page.
pub const OFFSET_MASK: u64 = (ACCOUNTS * ACCOUNT_BYTES) as u64;

/// Upper half of [`Port::active`] where any writer is another.
pub const NO_WRITER: u64 = 0xffff_ffff_0000_0000;

/// Bytes and packets.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// As the link counts them: with the Ethernet header and VLAN tags.
    pub bytes: u64,
    /// A packet to be segmented counts as often as the link counts it.
    pub packets: u64,
}

assert_layout!(Flow, size 16, { bytes: u64 => 0, packets: u64 => 8 });

/// Where an account stands.
pub mod state {
    /// Nobody's.
    pub const FREE: u32 = 0;
    /// Prepared by the agent; the next process that writes takes it.
    pub const OPEN: u32 = 1;
    /// Its writer's.
    pub const HELD: u32 = 2;
    /// Closed by the agent: its writer, should it write again, gets another.
    pub const CLOSED: u32 = 3;
}

/// Whose an account is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// CLOCK_MONOTONIC nanoseconds of its beginning; grows from account to account.
    pub serial: u64,
    /// Thread group that wrote first; 0 = none has.
    pub writer: u32,
    /// One of [`state`].
    pub state: u32,
}

assert_layout!(Head, size 16, { serial: u64 => 0, writer: u32 => 8, state: u32 => 12 });

/// One interface.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
pub struct Port {
    /// The account in use: its offset in the lower half, its writer in the upper. One word, so that it is read whole.
    pub active: u64,
    /// Which interface this is, among all that were ever attached.
    pub id: u32,
    /// Packets that the device does not segment itself, by [`segment`]; told by the agent.
    pub segmented: u32,
    /// Packets that went to another's account because none was free.
    pub shared: u64,
    /// Not used.
    pub reserved: [u64; 5],
    /// By number of the account; the first stands for this header.
    pub heads: [Head; ACCOUNTS + 1],
    /// Not used.
    pub unused: [u64; 40],
    /// Flows by account, direction and class.
    pub flows: [[[Flow; CLASSES]; 2]; ACCOUNTS],
}

assert_layout!(Port, size 4096, {
    active: u64 => 0, id: u32 => 8, segmented: u32 => 12, shared: u64 => 16, reserved: [u64; 5] => 24,
    heads: [Head; 8] => 64, unused: [u64; 40] => 192, flows: [[[Flow; 16]; 2]; 7] => 512,
});

/// Index of a direction, as the guest sees it.
pub mod direction {
    /// Out of the guest.
    pub const TRANSMIT: usize = 0;
    /// Into the guest.
    pub const RECEIVE: usize = 1;
}

/// Kinds of packets that a device may leave to the kernel to segment.
pub mod segment {
    /// TCP over IPv4.
    pub const TCP4: u32 = 1;
    /// TCP over IPv6.
    pub const TCP6: u32 = 2;
    /// UDP.
    pub const UDP: u32 = 4;
}

/// A place in [`ACCOUNTS`] that somebody takes: an insert is the one way for two CPUs to agree on every kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The interface.
    pub port: u32,
    /// The account.
    pub account: u16,
    /// 0 = taken while free, 1 = taken while open.
    pub phase: u16,
}

assert_layout!(Claim, size 8, { port: u32 => 0, account: u16 => 4, phase: u16 => 6 });

/// Constants that differ from instance to instance of a program. In the object each is a 64-bit load of
/// [`constant::MARK`] plus its number; the agent puts the value there before it loads the instance.
pub mod constant {
    /// What no program loads by chance.
    pub const MARK: u64 = 0x6b76_6d65_7465_7200;
    /// Address of the interface's [`super::Port`].
    pub const PORT: u64 = MARK + 1;
    /// The map of claims.
    pub const CLAIMS: u64 = MARK + 2;
    /// 1 = each writer gets an account.
    pub const SPLIT: u64 = MARK + 3;
    /// Address of the classes' table.
    pub const TABLE: u64 = MARK + 4;
    /// Keeps an offset inside that table; 0 = there is none.
    pub const TABLE_MASK: u64 = MARK + 5;
}
