//! Constants that differ from instance to instance of a program. In the object each is a 64-bit load of
//! [`MARK`] plus its number; the agent puts the value there before it loads the instance.

/// What no program loads by chance.
pub const MARK: u64 = 0x6b76_6d65_7465_7200;
/// Address of the interface's [`super::Header`].
pub const PORT: u64 = MARK + 1;
/// The map of claims.
pub const CLAIMS: u64 = MARK + 2;
/// 1 = each writer gets an account.
pub const SPLIT: u64 = MARK + 3;
/// Address of the classes' table.
pub const TABLE: u64 = MARK + 4;
/// Keeps an offset inside that table; 0 = there is none.
pub const TABLE_MASK: u64 = MARK + 5;
/// CPUs that count by themselves; 0 where the kernel lets another task in between (`PREEMPT_RT`).
pub const LANES: u64 = MARK + 6;
/// Where a task has its process's id, in bytes; 0 where a helper tells it.
pub const TASK_TGID: u64 = MARK + 7;
/// How a device's carrier changes are read, which change whenever another opens a tap: one of [`super::carrier`].
pub const CARRIER: u64 = MARK + 8;
/// Where `sk_buff` has its device, in bytes.
pub const DEVICE: u64 = MARK + 9;
/// Where `net_device` counts that carrier came, in bytes; that it went stands right behind.
pub const CARRIER_UPS: u64 = MARK + 10;
/// Not a constant: stands where the call of `bpf_rdonly_cast` is to be put.
pub const CAST: u64 = MARK + 12;
/// Not a constant: stands where the call of `bpf_cast_to_kern_ctx` is to be put.
pub const CONTEXT: u64 = MARK + 15;
/// Number, among the kernel's types, of a struct that begins with an integer of 64 bits.
pub const WORD: u64 = MARK + 16;
/// Number of `struct task_struct` among them.
pub const TASK: u64 = MARK + 17;
/// Where a task has the address of its runqueue's fair part.
pub const FAIR: u64 = MARK + 19;
/// Where that has the address of the CPU's runqueue.
pub const RUNQUEUE: u64 = MARK + 20;
/// Where that has which task runs.
pub const CURRENT: u64 = MARK + 21;
/// [`LANES`] where all IP is of one class, so that a packet may be counted without being looked into; else 0.
pub const QUICK: u64 = MARK + 22;
/// [`DEVICE`] as the place of the load that follows, which is all that is left then.
pub const AT_DEVICE: u64 = MARK + 23;
/// 1 = which task runs is read directly.
pub const DIRECT: u64 = MARK + 24;
/// Where a task has its process's id, likewise.
pub const AT_TGID: u64 = MARK + 18;
/// The map of openers.
pub const OPENERS: u64 = MARK + 13;
/// The map of sockets that a filter is on: by its cookie, the number of the network namespace that it listens in.
pub const LISTENERS: u64 = MARK + 14;
/// Address of the first account's flow out of the guest, of [`super::EXTERNAL`], on the first CPU.
pub const TRANSMITTED: u64 = MARK + 25;
/// Likewise into the guest.
pub const RECEIVED: u64 = MARK + 26;
/// Address of the first CPU's [`super::Note`]; 0 where none are kept.
pub const NOTES: u64 = MARK + 27;
