//! The mapped tables of thread, vCPU and VM slots: filling the stacks of free ones, giving slots back. `read` reads.
//!
//! The thread-id table is the truth: a slot it does not point to belongs to nobody.

use std::collections::BTreeSet;

use aya::{
    Ebpf,
    maps::{HashMap as BpfHashMap, MapData, Stack},
};
use kvmeter_common::{
    disk::IoBytes,
    exit,
    index::{self, TidWord},
    limits,
    signal::VmSignals,
    thread::{ThreadSlot, cause, role},
    vcpu::{VcpuSlot, VcpuTimes, mode},
    vm::{Kept, Offender, RoleTime, VmArgs, VmSlot, state},
};

use super::{
    kernel::typed,
    maps::Mapped,
    object::{LoadError, Sizes},
    read::Look,
    reading::MemoryMarks,
};

/// Slots looked at beyond the last one in use: one may be filled out of order.
pub(super) const MARGIN: u32 = 64;

/// Places for offenders a VM has.
#[expect(clippy::cast_possible_truncation, reason = "four")]
const OFFENDERS: u32 = cause::OFFENDERS as u32;

/// The tables.
pub struct Slots {
    pub(super) tids: Mapped<TidWord>,
    pub(super) threads: Mapped<ThreadSlot>,
    pub(super) vcpus: Mapped<VcpuSlot>,
    pub(super) vms: Mapped<VmSlot>,
    args: Mapped<VmArgs>,
    signals: Mapped<VmSignals>,
    free_threads: Stack<MapData, u32>,
    free_vms: Stack<MapData, u32>,
    claims: BpfHashMap<MapData, u32, u32>,
    pub(super) vms_used: u32,
    /// Each VM's time when it was read last, by slot.
    pub(super) looks: Vec<Look>,
    /// Whether the program that counts halts is at work.
    pub(super) halts_told: bool,
    /// Whether what tasks read from and write to storage is told here.
    pub(super) io_told: bool,
    orphans: BTreeSet<(u32, u64)>,
    unreturned: u64,
}

impl Slots {
    /// Takes the tables out of a loaded object and fills the stacks of free slots.
    ///
    /// # Errors
    /// When a table is missing, or the kernel refuses the mapping.
    pub fn new(ebpf: &mut Ebpf, sizes: Sizes) -> Result<Self, LoadError> {
        let mut slots = Self::of(ebpf, sizes)?;
        // Highest first, so that low numbers are popped first and a scan may stop early. 0 means "none".
        for number in (1..sizes.threads).rev() {
            slots.free_threads.push(number, 0).map_err(|e| LoadError::Prepare("FREE_THREADS", e))?;
        }
        for number in (1..sizes.vms).rev() {
            slots.free_vms.push(number, 0).map_err(|e| LoadError::Prepare("FREE_VMS", e))?;
        }
        Ok(slots)
    }

    /// The same of tables that are in use already.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(super) fn found(ebpf: &mut Ebpf, sizes: Sizes) -> Result<Self, LoadError> {
        let mut slots = Self::of(ebpf, sizes)?;
        let used = |slot: &u32| {
            let field = |offset| slots.vms.u32_at(*slot, offset).unwrap_or(0);
            field(std::mem::offset_of!(VmSlot, state)) != state::FREE || field(std::mem::offset_of!(VmSlot, used)) != 0
        };
        slots.vms_used = (1..sizes.vms).rev().find(used).unwrap_or(0);
        slots.vms.unmap_from(slots.vms_used + MARGIN);
        Ok(slots)
    }

    fn of(ebpf: &mut Ebpf, sizes: Sizes) -> Result<Self, LoadError> {
        let free_threads: Stack<MapData, u32> = typed(ebpf, "FREE_THREADS")?;
        let free_vms: Stack<MapData, u32> = typed(ebpf, "FREE_VMS")?;
        Ok(Self {
            tids: Mapped::new(ebpf.take_map("TIDS"), "TIDS", sizes.tid_words())?,
            threads: Mapped::new(ebpf.take_map("THREADS"), "THREADS", sizes.threads)?,
            vcpus: Mapped::new(ebpf.take_map("VCPUS"), "VCPUS", sizes.threads)?,
            claims: typed(ebpf, "CLAIMS")?,
            vms: Mapped::new(ebpf.take_map("VMS"), "VMS", sizes.vms)?,
            args: Mapped::new(ebpf.take_map("VM_ARGS"), "VM_ARGS", sizes.vms)?,
            signals: Mapped::new(ebpf.take_map("SIGNALS"), "SIGNALS", sizes.vms)?,
            free_threads,
            free_vms,
            vms_used: 0,
            looks: Vec::new(),
            halts_told: false,
            io_told: false,
            orphans: BTreeSet::new(),
            unreturned: 0,
        })
    }

    /// How many VMs there is room for, and one.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.vms.count()
    }

    /// Slots that could not be given back from here.
    #[must_use]
    pub fn unreturned(&self) -> u64 {
        self.unreturned
    }

    /// The head of a VM's command line, NUL-separated, and whether it was cut.
    #[must_use]
    pub fn args(&self, slot: u32) -> (Vec<u8>, bool) {
        let length = self.vms.get(slot).map_or(0, |vm| vm.args_len as usize).min(limits::ARGS);
        let bytes = self.args.get(slot).map_or_else(Vec::new, |args| args.bytes[..length].to_vec());
        (bytes, length >= limits::ARGS - 1)
    }

    /// Signals that were sent to a VM's process so far.
    #[must_use]
    pub fn signals(&self, slot: u32) -> VmSignals {
        self.signals.get(slot).unwrap_or_default()
    }

    /// Whether a VM's process has passed its exit hook.
    #[must_use]
    pub fn has_exited(&self, slot: u32) -> bool {
        self.vms.u32_at(slot, std::mem::offset_of!(VmSlot, state)) == Some(state::EXITED)
    }

    /// What has been seen of a VM's memory so far; costs no system call.
    #[must_use]
    pub fn memory_marks(&self, slot: u32) -> Option<MemoryMarks> {
        let of = |offset| self.vms.u64_at(slot, offset);
        Some(MemoryMarks {
            moves: of(std::mem::offset_of!(VmSlot, moves))?,
            guest_faults: of(std::mem::offset_of!(VmSlot, guest_faults))?,
        })
    }

    /// Until when the memory of a VM that has ended was there for certain; `None` of one that lives.
    #[must_use]
    pub fn memory_until_ns(&self, slot: u32) -> Option<u64> {
        let until_ns = self.vms.u64_at(slot, std::mem::offset_of!(VmSlot, memory_until_ns));
        until_ns.filter(|_| self.has_exited(slot))
    }

    /// Whether any thread of a VM holds a slot.
    #[must_use]
    pub fn has_threads(&self, slot: u32) -> bool {
        self.used_threads().any(|(number, thread)| thread.vm == slot && self.pointed(number, thread.tid))
    }

    /// Tells the kernel side by which family's names a VM's threads are read.
    pub fn set_family(&mut self, vm: u32, family: u32) {
        self.vms.put_u32(vm, std::mem::offset_of!(VmSlot, family), family);
    }

    /// Slots that hold a thread: number and contents. Slots never used end the scan.
    pub(super) fn used_threads(&self) -> impl Iterator<Item = (u32, ThreadSlot)> + '_ {
        let mut unused = 0;
        (1..self.threads.count())
            .map_while(move |number| {
                let slot = self.threads.get(number)?;
                unused = if slot.tid == 0 { unused + 1 } else { 0 };
                (unused < MARGIN).then_some((number, slot))
            })
            .filter(|(_, slot)| slot.task != 0)
    }

    /// Whether a thread id's entry is this slot.
    pub(super) fn pointed(&self, number: u32, tid: u32) -> bool {
        self.tids.u32_at(index::word(tid), size_of::<u32>() * index::place(tid)) == Some(number)
    }

    /// Gives a VM's slot back once its last numbers are kept elsewhere, with whatever threads still point to it.
    pub fn release(&mut self, vm: u32) {
        let left: Vec<_> = self.used_threads().filter(|(_, slot)| slot.vm == vm).collect();
        for (number, slot) in left {
            self.free_thread(number, slot);
        }
        let offenders = self.vms.get(vm).map_or(0, |slot| slot.offenders.iter().filter(|o| o.tgid != 0).count());
        for place in (0u32..).take(offenders) {
            // One that is not there is as good.
            let _ = self.claims.remove(&(vm * OFFENDERS + place));
        }
        self.signals.set(vm, VmSignals::default());
        self.vms.set(vm, EMPTY);
        if let Some(look) = self.looks.get_mut(vm as usize) {
            *look = Look::default();
        }
        // A failed push loses one slot of thousands; it is counted with the kernel's own.
        if self.free_vms.push(vm, 0).is_err() {
            self.unreturned += 1;
        }
    }

    fn free_thread(&mut self, number: u32, slot: ThreadSlot) {
        if self.pointed(number, slot.tid) {
            // Its number stays in the sum of `NEAR`: that costs the ids with the same low bits a look-up, and no more.
            self.tids.put_u32(index::word(slot.tid), size_of::<u32>() * index::place(slot.tid), 0);
        }
        self.threads.set(number, ThreadSlot { task: 0, ..slot });
        if self.free_threads.push(number, 0).is_err() {
            self.unreturned += 1;
        }
    }

    /// Returns thread slots that nothing points to, seen so twice in a row (two CPUs can give one thread two slots).
    pub fn collect_orphans(&mut self) -> usize {
        let now: BTreeSet<(u32, u64)> =
            self.used_threads().filter(|(n, s)| !self.pointed(*n, s.tid)).map(|(n, s)| (n, s.task)).collect();
        let mut freed = 0;
        for (number, task) in now.intersection(&self.orphans).copied().collect::<Vec<_>>() {
            if let Some(slot) = self.threads.get(number)
                && slot.task == task
                && !self.pointed(number, slot.tid)
            {
                self.free_thread(number, slot);
                freed += 1;
            }
        }
        self.orphans = now;
        freed
    }
}

const EMPTY: VmSlot = VmSlot {
    state: state::FREE,
    tgid: 0,
    start_ns: 0,
    seen_ns: 0,
    first_run_ns: 0,
    exit_ns: 0,
    exit_code: 0,
    last_exit: 0,
    args_len: 0,
    vcpus: 0,
    comm: [0; 16],
    fold_begin: 0,
    fold_end: 0,
    leader_task: 0,
    leader: NO_TIME,
    ended: [NO_TIME; role::COUNT],
    waited_ns: [0; cause::COUNT],
    waits: [0; limits::BUCKETS],
    offenders: [Offender { start_ns: 0, tgid: 0, reserved: 0 }; cause::OFFENDERS],
    vcpu: VcpuTimes {
        entries: 0,
        mode_ns: [0; mode::COUNT],
        halts: 0,
        halted_ns: 0,
        handling_ns: 0,
        handling: [0; limits::BUCKETS],
        exits: [0; exit::CLASSES],
    },
    family: 0,
    used: 1,
    userspace_exits: [0; limits::EXIT_REASONS],
    moves: 0,
    guest_faults: 0,
    io: IoBytes { read_bytes: 0, written_bytes: 0 },
    memory_until_ns: 0,
    kept: NOTHING_KEPT,
    spare: 0,
};

const NOTHING_KEPT: Kept = Kept {
    written: 0,
    guest_ns: 0,
    halt_poll_ns: 0,
    observed_ns: 0,
    shift_ns: [0; role::COUNT],
    runtime_ns: 0,
    run_delay_ns: 0,
};

const NO_TIME: RoleTime = RoleTime { runtime_ns: 0, run_delay_ns: 0 };
