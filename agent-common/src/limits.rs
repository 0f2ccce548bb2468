//! Every bound of the kernel side, in one place, with what depends on it.

/// Thread slots, slot 0 being "none"; the agent may load with another number.
pub const THREADS: u32 = 32_768;
/// VM slots, slot 0 being "none"; the agent may load with another number.
pub const VMS: u32 = 4_096;
/// Thread ids that share one element of the thread-id table (a mmap'd array pads each element to 8 bytes, so
/// sixteen `u32` in one element cost half of sixteen elements).
pub const TIDS_PER_WORD: u32 = 16;
/// The kernel's `PID_MAX_LIMIT` on 64 bits: every thread id is below it.
pub const TID_LIMIT: u32 = 4_194_304;
/// Entries of the table that a switch looks at first, by the low bits of a thread id: 4 MiB, the most a value of a map may
/// have (`KMALLOC_MAX_SIZE`). Ids that share an entry cost a look-up more, on hosts where ids go beyond a million.
pub const NEAR: u32 = 1 << 20;
/// Words of the thread-id table before the agent sizes it by `kernel.pid_max`.
pub const TID_WORDS: u32 = TID_LIMIT / TIDS_PER_WORD;
/// Bytes of a VMM's command line kept by the kernel for VMs that end before `/proc` can be read.
pub const ARGS: usize = 1_024;
/// Threads of a process that are looked at when its first vCPU is seen. More are counted as a loss, on which the agent
/// walks at once. The verifier follows every turn: 64 cost it 420,000 instructions and 0.35 s a program on 6.18.
pub const WALK: u32 = 32;
/// Bytes of the ring buffer that wakes the agent.
pub const WAKE_BYTES: u32 = 256 * 1024;
/// Counters of user-space exits by reason: `KVM_EXIT_*` numbers, then the two below.
pub const EXIT_REASONS: usize = 64;
/// Index that counts returns of `KVM_RUN` with an error (mostly `-EINTR`), where the reason is stale.
pub const EXIT_INTERRUPTED: usize = 62;
/// Index that counts reasons beyond the table.
pub const EXIT_OTHER: usize = 63;
/// Buckets of a histogram: eight bounds and what lies beyond.
pub const BUCKETS: usize = 9;
/// Upper bounds of a wait in a run queue, nanoseconds: 16 µs × 4ⁿ.
pub const RUN_DELAY_BOUNDS_NS: [u64; BUCKETS - 1] = bounds(16_000);
/// Upper bounds of handling an exit, nanoseconds: 1 µs × 4ⁿ.
pub const HANDLING_BOUNDS_NS: [u64; BUCKETS - 1] = bounds(1_000);
/// Rules that tell a thread's role, or a VMM's family, by a name.
pub const NAME_RULES: usize = 32;

const fn bounds(first: u64) -> [u64; BUCKETS - 1] {
    let mut all = [first; BUCKETS - 1];
    let mut n = 1;
    while n < all.len() {
        all[n] = all[n - 1] * 4;
        n += 1;
    }
    all
}

const _: () = assert!(EXIT_REASONS.is_power_of_two(), "an index is masked, not compared");
const _: () = assert!(TIDS_PER_WORD.is_power_of_two(), "a thread id is split by mask and shift");
const _: () = assert!(NEAR.is_power_of_two(), "a thread id is masked, not compared");
const _: () = assert!(ARGS.is_power_of_two(), "a length is masked, not compared");
