//! What passed through a VM's network interface: a map of one element an interface, written by its two programs,
//! mapped by the agent.
//!
//! The element is blocks of [`BLOCK_BYTES`]: first the [`Header`], then, for each CPU, a block an account; the last
//! CPU's place is for all that have none of their own; behind them a [`Note`] a CPU. Each interface has its map, so that
//! its programs hold the address as a constant and all is gone with them. An account is what passed while one process
//! wrote to the interface: the agent learns of a handover too late to split by time.

pub mod constant;
pub mod operand;

use crate::assert_layout;

/// Classes of the far end, in all.
pub const CLASSES: usize = 16;
/// IPv4 and IPv6 whose address matches no configured prefix.
pub const EXTERNAL: u32 = 0;
/// Neither IPv4 nor IPv6.
pub const NON_IP: u32 = 1;
/// Accounts of an interface at a time.
pub const ACCOUNTS: usize = 4;
/// Bytes of the header, and of an account on one CPU.
pub const BLOCK_BYTES: usize = 512;
/// CPUs that count by themselves at most, so that a host of hundreds does not pay for places that are hardly used. The
/// others add atomically, which costs 10 ns more.
pub const LANES: usize = 32;
/// Keeps an account's offset inside a CPU's blocks.
pub const OFFSET_MASK: u64 = ((ACCOUNTS - 1) * BLOCK_BYTES) as u64;
/// Upper half of [`Header::active`] where any writer is another.
pub const NO_WRITER: u64 = 0xffff_ffff_0000_0000;
/// In the lower half: what passes is nobody's, and goes to [`Header::nobody`]. No account's offset has this bit.
pub const NOBODY: u64 = 1;
/// In [`Header::carriers`]: who holds the device is to be looked up by the next packet.
pub const ANEW: u64 = u64::MAX;

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
pub struct Header {
    /// The account in use: its offset in the lower half, its writer in the upper. One word, so that it is read whole.
    pub active: u64,
    /// Which interface this is, in claims: the kernel's number of its page, which no other has while this one is there.
    pub id: u32,
    /// Packets that the device does not segment itself, by [`segment`]; told by the agent.
    pub segmented: u32,
    /// Packets that went to another's account, or to nobody's, because none was free.
    pub shared: u64,
    /// The device's carrier counts when the account in use was last chosen: how often it came in the lower half, how
    /// often it went in the upper; or [`ANEW`].
    pub carriers: u64,
    /// Told by the agent: which process holds the device, and during which generation: [`held`].
    pub held: u64,
    /// Where its openings are told in the map of openers: network namespace in the upper half, index in the lower.
    pub key: u64,
    /// How its programs were made, told by the agent for the one that comes after it: bits of [`made`].
    pub made: u64,
    /// Packets of [`Header::shared`] that agents have told.
    pub shared_told: u64,
    /// By number of the account.
    pub heads: [Head; ACCOUNTS],
    /// What passed while nobody was known to hold the device, by direction. All CPUs add here.
    pub nobody: [Flow; 2],
    /// Where the kernel keeps which task runs on a CPU, as an address; 0 = not known.
    pub tasks: [u64; LANES],
    /// Not used.
    pub unused: [u64; 12],
}

/// Bits of [`Header::made`].
pub mod made {
    /// Its hooks run the other way round.
    pub const REVERSED: u64 = 1;
    /// Its programs tell writers apart.
    pub const SPLIT: u64 = 2;
    /// Its programs follow who holds it.
    pub const FOLLOWS: u64 = 4;
    /// The queueing discipline with its hooks came with them.
    pub const BROUGHT: u64 = 8;
}

/// Among the openers, in a process's half: the device's link was told to be down, which no number of a process reaches
/// (`PID_MAX_LIMIT` is 2^22).
pub const LINK_DOWN: u32 = 1 << 31;

/// A process and the generation in which it holds a device, in one word.
#[must_use]
pub const fn held(generation: u32, tgid: u32) -> u64 {
    (generation as u64) << 32 | tgid as u64
}

assert_layout!(Header, size 512, {
    active: u64 => 0, id: u32 => 8, segmented: u32 => 12, shared: u64 => 16, carriers: u64 => 24, held: u64 => 32,
    key: u64 => 40, made: u64 => 48, shared_told: u64 => 56, heads: [Head; 4] => 64, nobody: [Flow; 2] => 128, tasks: [u64; 32] => 160,
    unused: [u64; 12] => 416,
});

/// An account on one CPU: flows by direction and class.
pub type Block = [[Flow; CLASSES]; 2];

const _: () = assert!(size_of::<Block>() == BLOCK_BYTES && size_of::<Header>() == BLOCK_BYTES);

/// Blocks of an interface where so many CPUs count by themselves.
#[must_use]
pub const fn blocks(lanes: usize) -> usize {
    1 + (lanes + 1) * ACCOUNTS
}

/// The block of an account on a CPU; `lanes` stands for all CPUs that have none of their own.
#[must_use]
pub const fn block(lane: usize, account: usize) -> usize {
    1 + lane * ACCOUNTS + account
}

/// What the programs of one CPU noted of the process that writes. A task that has not been switched away from is the same
/// task still, so that one number is looked at where two would have to be followed to the process's id.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Note {
    /// Where the kernel counts how often this CPU switched tasks (`rq.nr_switches`), as an address; 0 = not known.
    pub place: u64,
    /// That count when [`Note::active`] was seen to be of the process that runs.
    pub switches: u64,
    /// [`Header::active`] at that time; 0 = nothing was noted.
    pub active: u64,
    /// Room for the count of the packet that is looked at.
    pub looked: u64,
}

assert_layout!(Note, size 32, { place: u64 => 0, switches: u64 => 8, active: u64 => 16, looked: u64 => 24 });

/// Blocks behind those of all accounts, for a [`Note`] a CPU. Pages of earlier agents end before.
pub const NOTE_BLOCKS: usize = LANES * size_of::<Note>() / BLOCK_BYTES;

/// Where the flows of [`EXTERNAL`] of the first account on the first CPU stand, out of the guest and into it.
pub const TRANSMITTED: usize = BLOCK_BYTES;
/// See [`TRANSMITTED`].
pub const RECEIVED: usize = BLOCK_BYTES + CLASSES * size_of::<Flow>();
/// Bytes of a CPU's accounts.
pub const LANE_BYTES: usize = ACCOUNTS * BLOCK_BYTES;

// Numbers become places by shifts, and are kept in their bounds by their bits.
const _: () = assert!(LANE_BYTES.is_power_of_two() && BLOCK_BYTES.is_power_of_two() && LANES.is_power_of_two());
const _: () = assert!(size_of::<Note>().is_power_of_two() && EXTERNAL == 0);
const _: () = assert!(direction::TRANSMIT == 0 && direction::RECEIVE == 1);

// The number of accounts is told from that of the blocks.
const _: () = assert!(NOTE_BLOCKS < ACCOUNTS && NOTE_BLOCKS * BLOCK_BYTES == LANES * size_of::<Note>());

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

/// Values of [`constant::CARRIER`].
pub mod carrier {
    /// Not at all: accounts begin with writers and when the agent says so.
    pub const UNREAD: u32 = 0;
    /// By direct loads (Linux 6.2).
    pub const LOADED: u32 = 1;
    /// By helpers.
    pub const PROBED: u32 = 2;
}

/// The classes' table: a trie of nodes of 256 entries, one a value of the next byte of the address. An entry with
/// [`table::LEAF`] is a class, any other the number of the next node.
pub mod table {
    /// Entries of a node.
    pub const ENTRIES: usize = 256;
    /// Bytes of a node.
    pub const NODE_BYTES: usize = 2 * ENTRIES;
    /// This entry is a class.
    pub const LEAF: u16 = 0x8000;
    /// Where IPv4 begins.
    pub const ROOT_V4: u16 = 0;
    /// Where IPv6 begins.
    pub const ROOT_V6: u16 = 1;
    /// Nodes of a table at most: 2 MiB.
    pub const NODES: usize = 4_096;
}
