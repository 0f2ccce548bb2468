//! The mapped tables of thread and VM slots: reading them whole, giving slots back.
//!
//! Readings are consistent per VM: a thread that ends while we read moves its time from its slot to its VM between two
//! counters, and a reading that saw them differ is taken again. The thread-id table is the truth: a slot it does not
//! point to belongs to nobody.

use std::{
    collections::{BTreeSet, HashMap},
    sync::atomic::{Ordering, fence},
};

use aya::{
    Ebpf,
    maps::{MapData, Stack},
};
use kvmeter_common::{
    index::{self, TidWord},
    limits,
    thread::{ThreadSlot, role},
    vm::{RoleTime, VmArgs, VmSlot, state},
};

use super::{
    kernel::typed,
    maps::Mapped,
    object::{LoadError, Sizes},
    reading::{Exit, VmReading},
};

/// Slots looked at beyond the last one in use: one may be filled out of order.
const MARGIN: u32 = 64;
/// Attempts at a reading in which no thread ended.
const ATTEMPTS: u32 = 8;

/// The tables.
pub struct Slots {
    tids: Mapped<TidWord>,
    threads: Mapped<ThreadSlot>,
    vms: Mapped<VmSlot>,
    args: Mapped<VmArgs>,
    free_threads: Stack<MapData, u32>,
    free_vms: Stack<MapData, u32>,
    vms_used: u32,
    orphans: BTreeSet<(u32, u64)>,
    unreturned: u64,
}

impl Slots {
    /// Takes the tables out of a loaded object and fills the stacks of free slots.
    ///
    /// # Errors
    /// When a table is missing, or the kernel refuses the mapping.
    pub fn new(ebpf: &mut Ebpf, sizes: Sizes) -> Result<Self, LoadError> {
        let mut free_threads: Stack<MapData, u32> = typed(ebpf, "FREE_THREADS")?;
        let mut free_vms: Stack<MapData, u32> = typed(ebpf, "FREE_VMS")?;
        // Highest first, so that low numbers are popped first and a scan may stop early. 0 means "none".
        for number in (1..sizes.threads).rev() {
            free_threads.push(number, 0).map_err(|e| LoadError::Prepare("FREE_THREADS", e))?;
        }
        for number in (1..sizes.vms).rev() {
            free_vms.push(number, 0).map_err(|e| LoadError::Prepare("FREE_VMS", e))?;
        }
        Ok(Self {
            tids: Mapped::new(ebpf.take_map("TIDS"), "TIDS", sizes.tid_words())?,
            threads: Mapped::new(ebpf.take_map("THREADS"), "THREADS", sizes.threads)?,
            vms: Mapped::new(ebpf.take_map("VMS"), "VMS", sizes.vms)?,
            args: Mapped::new(ebpf.take_map("VM_ARGS"), "VM_ARGS", sizes.vms)?,
            free_threads,
            free_vms,
            vms_used: 0,
            orphans: BTreeSet::new(),
            unreturned: 0,
        })
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

    /// Whether a VM's process has passed its exit hook.
    #[must_use]
    pub fn has_exited(&self, slot: u32) -> bool {
        self.vms.u32_at(slot, std::mem::offset_of!(VmSlot, state)) == Some(state::EXITED)
    }

    /// Whether any thread of a VM holds a slot.
    #[must_use]
    pub fn has_threads(&self, slot: u32) -> bool {
        self.used_threads().any(|(number, thread)| thread.vm == slot && self.pointed(number, &thread))
    }

    /// All VMs that hold a slot, each read consistently.
    pub fn read(&mut self) -> Vec<VmReading> {
        let mut done: Vec<VmReading> = Vec::new();
        let mut wanted: Option<BTreeSet<u32>> = None;
        for attempt in 0..ATTEMPTS {
            let last = attempt + 1 == ATTEMPTS;
            let (whole, torn) = self.read_once(wanted.as_ref(), last);
            done.extend(whole);
            if torn.is_empty() {
                break;
            }
            wanted = Some(torn);
        }
        done.sort_by_key(|vm| vm.slot);
        done
    }

    /// One attempt: VMs read whole, and slots in which a fold was under way. The last attempt keeps those too, marked.
    fn read_once(&mut self, wanted: Option<&BTreeSet<u32>>, last: bool) -> (Vec<VmReading>, BTreeSet<u32>) {
        let before = self.open_slots(wanted);
        fence(Ordering::SeqCst);
        let sums = self.live_threads();
        fence(Ordering::SeqCst);
        let (mut whole, mut torn) = (Vec::new(), BTreeSet::new());
        for (slot, ended_before) in before {
            let Some(vm) = self.vms.get(slot) else { continue };
            let live = sums.get(&slot).copied().unwrap_or_default();
            // The copy may have taken `ended` after its own markers: the beginning is read once more, behind it.
            fence(Ordering::SeqCst);
            let begun = self.vms.u64_at(slot, std::mem::offset_of!(VmSlot, fold_begin));
            let consistent = vm.fold_end == ended_before && begun == Some(ended_before);
            if consistent || last {
                whole.push(reading(slot, &vm, live, consistent));
            } else {
                torn.insert(slot);
            }
        }
        (whole, torn)
    }

    fn open_slots(&mut self, wanted: Option<&BTreeSet<u32>>) -> Vec<(u32, u64)> {
        let mut open = Vec::new();
        let mut end = self.vms_used + MARGIN;
        let mut slot = 1;
        while slot < self.vms.count() && slot < end {
            let at = std::mem::offset_of!(VmSlot, state);
            if self.vms.u32_at(slot, at).is_some_and(|s| s != state::FREE) {
                self.vms_used = self.vms_used.max(slot);
                end = end.max(slot + MARGIN);
                if wanted.is_none_or(|w| w.contains(&slot)) {
                    let folds = self.vms.u64_at(slot, std::mem::offset_of!(VmSlot, fold_end)).unwrap_or(0);
                    open.push((slot, folds));
                }
            }
            slot += 1;
        }
        open
    }

    /// Slots that hold a thread: number and contents. Slots never used end the scan.
    fn used_threads(&self) -> impl Iterator<Item = (u32, ThreadSlot)> + '_ {
        let mut unused = 0;
        (1..self.threads.count())
            .map_while(move |number| {
                let slot = self.threads.get(number)?;
                unused = if slot.tid == 0 { unused + 1 } else { 0 };
                (unused < MARGIN).then_some((number, slot))
            })
            .filter(|(_, slot)| slot.task != 0)
    }

    fn pointed(&self, number: u32, slot: &ThreadSlot) -> bool {
        self.tids.get(index::word(slot.tid)).is_some_and(|word| word.slots[index::place(slot.tid)] == number)
    }

    fn live_threads(&self) -> HashMap<u32, Live> {
        let mut sums: HashMap<u32, Live> = HashMap::new();
        for (number, slot) in self.used_threads() {
            if !self.pointed(number, &slot) {
                continue;
            }
            let live = sums.entry(slot.vm).or_default();
            let time = &mut live.roles[slot.role as usize % role::COUNT];
            time.runtime_ns += slot.runtime_ns.saturating_sub(slot.base_runtime_ns);
            time.run_delay_ns += slot.run_delay_ns.saturating_sub(slot.base_run_delay_ns);
            live.threads += 1;
        }
        sums
    }

    /// Gives a VM's slot back once its last numbers are kept elsewhere, with whatever threads still point to it.
    pub fn release(&mut self, vm: u32) {
        let left: Vec<_> = self.used_threads().filter(|(_, slot)| slot.vm == vm).collect();
        for (number, slot) in left {
            self.free_thread(number, slot);
        }
        self.vms.set(vm, EMPTY);
        // A failed push loses one slot of thousands; it is counted with the kernel's own.
        if self.free_vms.push(vm, 0).is_err() {
            self.unreturned += 1;
        }
    }

    fn free_thread(&mut self, number: u32, slot: ThreadSlot) {
        if self.pointed(number, &slot) {
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
            self.used_threads().filter(|(n, s)| !self.pointed(*n, s)).map(|(n, s)| (n, s.task)).collect();
        let mut freed = 0;
        for (number, task) in now.intersection(&self.orphans).copied().collect::<Vec<_>>() {
            if let Some(slot) = self.threads.get(number)
                && slot.task == task
                && !self.pointed(number, &slot)
            {
                self.free_thread(number, slot);
                freed += 1;
            }
        }
        self.orphans = now;
        freed
    }
}

#[derive(Clone, Copy, Default)]
struct Live {
    roles: [RoleTime; role::COUNT],
    threads: u32,
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
    leader: RoleTime { runtime_ns: 0, run_delay_ns: 0 },
    ended: [RoleTime { runtime_ns: 0, run_delay_ns: 0 }; role::COUNT],
    userspace_exits: [0; limits::EXIT_REASONS],
};

fn reading(slot: u32, vm: &VmSlot, live: Live, consistent: bool) -> VmReading {
    let mut roles = vm.ended;
    roles[role::VMM as usize].runtime_ns += vm.leader.runtime_ns;
    roles[role::VMM as usize].run_delay_ns += vm.leader.run_delay_ns;
    for (sum, live) in roles.iter_mut().zip(live.roles) {
        sum.runtime_ns += live.runtime_ns;
        sum.run_delay_ns += live.run_delay_ns;
    }
    VmReading {
        slot,
        tgid: vm.tgid,
        start_ns: vm.start_ns,
        seen_ns: vm.seen_ns,
        first_run_ns: (vm.first_run_ns != 0).then_some(vm.first_run_ns),
        exit: (vm.state == state::EXITED).then_some(Exit { at_ns: vm.exit_ns, code: vm.exit_code }),
        last_exit: vm.last_exit.checked_sub(1),
        vcpus: vm.vcpus,
        threads: live.threads,
        roles,
        userspace_exits: vm.userspace_exits,
        comm: vm.comm,
        consistent,
    }
}
