//! Every map. The arrays marked mmapable are read by the agent without a system call.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    macros::map,
    maps::{Array, HashMap, PerCpuArray, RingBuf, Stack},
};
use kvmeter_common::{
    exit,
    index::TidWord,
    limits, loss,
    name::Rule,
    thread::{ThreadSlot, cause},
    vcpu::VcpuSlot,
    vm::{VmArgs, VmSlot},
};

/// One byte a thread id, by the id itself: 0 = it has no entry in [`TIDS`], whatever else = look there. One value, so
/// that one lookup serves any number of ids; 4 MiB, the most a value may have (`KMALLOC_MAX_SIZE`), hold every id.
#[map]
pub static HELD: Array<[u8; limits::TID_LIMIT as usize]> = Array::with_max_entries(1, 0);

/// Thread id to thread slot.
#[map]
pub static TIDS: Array<TidWord> = Array::with_max_entries(limits::TID_WORDS, BPF_F_MMAPABLE);

/// One slot a thread.
#[map]
pub static THREADS: Array<ThreadSlot> = Array::with_max_entries(limits::THREADS, BPF_F_MMAPABLE);

/// One slot a vCPU thread, under the number of its thread slot.
#[map]
pub static VCPUS: Array<VcpuSlot> = Array::with_max_entries(limits::THREADS, BPF_F_MMAPABLE);

/// One slot a VM.
#[map]
pub static VMS: Array<VmSlot> = Array::with_max_entries(limits::VMS, BPF_F_MMAPABLE);

/// Command lines, by VM slot.
#[map]
pub static VM_ARGS: Array<VmArgs> = Array::with_max_entries(limits::VMS, BPF_F_MMAPABLE);

/// Losses by stage.
#[map]
pub static LOSSES: Array<u64> = Array::with_max_entries(loss::STAGES.len() as u32, BPF_F_MMAPABLE);

/// Process id to VM slot, while the process lives.
#[map]
pub static VM_OF_TGID: HashMap<u32, u32> = HashMap::with_max_entries(limits::VMS, 0);

/// Processes the agent found by itself and wants tracked at the next walk over all tasks.
#[map]
pub static ADOPT: HashMap<u32, u32> = HashMap::with_max_entries(limits::VMS, 0);

/// Names that tell a role or a family; filled by the agent.
#[map]
pub static RULES: Array<Rule> = Array::with_max_entries(limits::NAME_RULES as u32, 0);

/// Class of an exit by [`exit::index`]; filled by the agent.
#[map]
pub static EXIT_CLASSES: Array<[u8; exit::TABLE]> = Array::with_max_entries(1, 0);

/// Places in the VMs' tables of offenders that are taken: an insert is the one way for two CPUs to agree on every
/// kernel, and happens four times in a VM's life.
#[map]
pub static CLAIMS: HashMap<u32, u32> = HashMap::with_max_entries(limits::VMS * cause::OFFENDERS as u32, 0);

/// Free thread slots. A stack, because its pop is atomic on every kernel (compare-and-swap needs 5.12).
#[map]
pub static FREE_THREADS: Stack<u32> = Stack::with_max_entries(limits::THREADS, 0);

/// Free VM slots.
#[map]
pub static FREE_VMS: Stack<u32> = Stack::with_max_entries(limits::VMS, 0);

/// The walk under way on this CPU: the threads it met, then, in the same order, the slots it gave them (0 = none).
#[map]
pub static WALKED: PerCpuArray<[u64; 2 * limits::WALK as usize]> = PerCpuArray::with_max_entries(1, 0);

/// Wake-ups.
#[map]
pub static WAKES: RingBuf = RingBuf::with_byte_size(limits::WAKE_BYTES, 0);
