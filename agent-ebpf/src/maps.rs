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

/// By the low bits of the thread id: the sum of the numbers of all thread slots that are pointed to under such an id. So
/// 0 = no thread of a VM, and where one thread has the bits for itself, its slot; a task's address in that slot tells
/// whether it is. A sum, because it needs one plain atomic add to change it, and no two CPUs have to agree on anything.
///
/// A section of its own is a map of its own, whose address the programs hold as a constant: no look-up, no key.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".bss.near")]
pub static mut NEAR: [u32; limits::NEAR as usize] = [0; limits::NEAR as usize];

/// The generation of programs that counts; see [`crate::generation`]. A section of its own, as above.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".bss.generation")]
pub static mut CURRENT: u32 = 0;

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

/// How many wake-ups there were to send, whatever became of them.
#[map]
pub static WOKEN: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Wake-ups.
#[map]
pub static WAKES: RingBuf = RingBuf::with_byte_size(limits::WAKE_BYTES, 0);
