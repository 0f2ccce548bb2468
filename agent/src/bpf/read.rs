//! Reading the tables: each VM whole, at one instant, without a system call.
//!
//! A first look adds up each VM's time alone; where that is what it was, none of its threads has run, and the rest is as
//! it was too. A thread that ends while we read moves its numbers from its slot to its VM between two counters; a
//! reading that saw them differ is taken again.

use std::{
    mem::offset_of,
    sync::{
        Arc,
        atomic::{Ordering, fence},
    },
};

use kvmeter_common::{
    thread::{ThreadSlot, role},
    vcpu::VcpuTimes,
    vm::{RoleTime, VmSlot, state},
};

use super::{
    maps::Element,
    reading::{Exit, VcpuReading, VmReading, Work},
    slots::{MARGIN, Slots},
};

/// Attempts at a reading in which no thread ended.
const ATTEMPTS: u32 = 8;

/// Whether a VM is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Not now.
    No,
    /// If anything in it has changed.
    IfChanged,
    /// In any case.
    Always,
}

/// What one look at the tables found.
#[derive(Debug, Default)]
pub struct Readings {
    /// VMs in which anything has changed since they were read last, each whole.
    pub changed: Vec<VmReading>,
    /// Slots of the others.
    pub idle: Vec<u32>,
}

/// A VM's time at one look: equal twice, and nothing in it has run in between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Look {
    threads: u32,
    folds: u64,
    runtime_ns: u64,
    run_delay_ns: u64,
}

/// A VM under way: what its living threads add up to.
struct Open {
    slot: u32,
    folds: u64,
    roles: [RoleTime; role::COUNT],
    threads: u32,
    /// Shared with the views once it is whole; nobody else has it before.
    work: Arc<Work>,
}

impl Slots {
    /// The VMs that hold a slot and are `wanted` (by slot, and whether the process has ended), each read consistently.
    pub fn read(&mut self, wanted: impl Fn(u32, bool) -> Want) -> Readings {
        let (changed, idle) = self.look(wanted);
        let mut open: Vec<Open> = changed.into_iter().map(|slot| self.begin(slot)).collect();
        let mut readings = Readings { changed: Vec::with_capacity(open.len()), idle };
        for attempt in 0..ATTEMPTS {
            if open.is_empty() {
                break;
            }
            fence(Ordering::SeqCst);
            self.add_threads(&mut open);
            fence(Ordering::SeqCst);
            open = self.close(open, &mut readings.changed, attempt + 1 == ATTEMPTS);
        }
        readings
    }

    /// The wanted slots: those in which something has changed since the last look, and the others.
    pub fn look(&mut self, wanted: impl Fn(u32, bool) -> Want) -> (Vec<u32>, Vec<u32>) {
        let (mut slots, mut looks) = (Vec::new(), Vec::new());
        let (mut end, mut slot) = (self.vms_used + MARGIN, 1);
        while slot < self.vms.count() && slot < end {
            let vm = self.vms.at(slot);
            let state = vm.as_ref().and_then(|vm| vm.u32(offset_of!(VmSlot, state))).unwrap_or(state::FREE);
            if let Some(vm) = vm.filter(|_| state != state::FREE) {
                self.vms_used = self.vms_used.max(slot);
                end = end.max(slot + MARGIN);
                let want = wanted(slot, state == state::EXITED);
                if want != Want::No {
                    slots.push((slot, want));
                    looks.resize(slot as usize + 1, Look::default());
                    looks[slot as usize].folds = vm.u64(offset_of!(VmSlot, fold_end)).unwrap_or(0);
                }
            }
            slot += 1;
        }
        if !slots.is_empty() {
            self.each_thread(|_, vm, thread| {
                let Some(look) = looks.get_mut(vm as usize) else { return };
                let field = |offset| thread.u64(offset).unwrap_or(0);
                look.threads += 1;
                look.runtime_ns = look.runtime_ns.wrapping_add(field(offset_of!(ThreadSlot, runtime_ns)));
                look.run_delay_ns = look.run_delay_ns.wrapping_add(field(offset_of!(ThreadSlot, run_delay_ns)));
            });
        }
        self.looks.resize(self.looks.len().max(looks.len()), Look::default());
        let (mut changed, mut idle) = (Vec::new(), Vec::new());
        for (slot, want) in slots {
            let (now, before) = (looks[slot as usize], &mut self.looks[slot as usize]);
            if want == Want::IfChanged && now == *before { &mut idle } else { &mut changed }.push(slot);
            *before = now;
        }
        (changed, idle)
    }

    /// Every slot that holds a living thread, with the VM's slot.
    #[inline]
    fn each_thread(&self, mut take: impl FnMut(u32, u32, &Element<'_, ThreadSlot>)) {
        let mut unused = 0;
        for number in 1..self.threads.count() {
            let Some(thread) = self.threads.at(number) else { break };
            let tid = thread.u32(offset_of!(ThreadSlot, tid)).unwrap_or(0);
            unused = if tid == 0 { unused + 1 } else { 0 };
            if unused >= MARGIN {
                // Slots never used so far.
                break;
            }
            if thread.u64(offset_of!(ThreadSlot, task)).is_some_and(|task| task != 0) && self.pointed(number, tid) {
                take(number, thread.u32(offset_of!(ThreadSlot, vm)).unwrap_or(0), &thread);
            }
        }
    }

    fn begin(&self, slot: u32) -> Open {
        let folds = self.vms.u64_at(slot, offset_of!(VmSlot, fold_end)).unwrap_or(0);
        Open { slot, folds, roles: <[RoleTime; role::COUNT]>::default(), threads: 0, work: Arc::default() }
    }

    /// Adds every living thread to its VM, if that is among those wanted (which are in the order of their slots).
    fn add_threads(&self, open: &mut [Open]) {
        let places: Vec<u32> = {
            let last = open.last().map_or(0, |vm| vm.slot as usize);
            let mut places = vec![u32::MAX; last + 1];
            for (place, vm) in (0u32..).zip(open.iter()) {
                places[vm.slot as usize] = place;
            }
            places
        };
        self.each_thread(|number, vm, _| {
            let place = places.get(vm as usize).copied().unwrap_or(u32::MAX);
            if let Some(open) = open.get_mut(place as usize)
                && let Some(thread) = self.threads.get(number)
                && thread.task != 0
                && thread.vm == vm
            {
                self.add_thread(open, number, &thread);
            }
        });
    }

    fn add_thread(&self, open: &mut Open, number: u32, thread: &ThreadSlot) {
        let time = RoleTime {
            runtime_ns: thread.runtime_ns.saturating_sub(thread.base_runtime_ns),
            run_delay_ns: thread.run_delay_ns.saturating_sub(thread.base_run_delay_ns),
        };
        let sum = &mut open.roles[thread.role as usize % role::COUNT];
        sum.runtime_ns += time.runtime_ns;
        sum.run_delay_ns += time.run_delay_ns;
        open.threads += 1;
        let Some(work) = Arc::get_mut(&mut open.work) else { return };
        add(&mut work.waits, &thread.waits);
        add(&mut work.waited_ns, &thread.waited_ns);
        let owner = u64::from(thread.tgid) << 32 | u64::from(thread.tid);
        if thread.role == role::VCPU
            && let Some(vcpu) = self.vcpus.get(number).filter(|vcpu| vcpu.owner == owner)
        {
            add_times(&mut work.vcpu, &vcpu.times);
            work.vcpus.push(VcpuReading { tid: thread.tid, time, times: vcpu.times });
        }
    }

    /// Finishes those in which no thread ended meanwhile; gives back the others, to be read again. The last attempt
    /// keeps those too, marked.
    fn close(&self, open: Vec<Open>, done: &mut Vec<VmReading>, last: bool) -> Vec<Open> {
        let mut again = Vec::new();
        for vm in open {
            let Some(slot) = self.vms.get(vm.slot) else { continue };
            // The copy may have taken the sums after its own markers: the beginning is read once more, behind it.
            fence(Ordering::SeqCst);
            let begun = self.vms.u64_at(vm.slot, offset_of!(VmSlot, fold_begin));
            let consistent = slot.fold_end == vm.folds && begun == Some(vm.folds);
            if consistent || last {
                let mut told = reading(vm, &slot, consistent, self.halts_told);
                told.ended_io = self.io_told.then_some(slot.io);
                done.push(told);
            } else {
                again.push(self.begin(vm.slot));
            }
        }
        again
    }
}

fn add<const N: usize>(sums: &mut [u64; N], more: &[u64; N]) {
    for (sum, more) in sums.iter_mut().zip(more) {
        *sum = sum.wrapping_add(*more);
    }
}

fn add_times(sum: &mut VcpuTimes, more: &VcpuTimes) {
    sum.entries += more.entries;
    sum.halts += more.halts;
    sum.halted_ns += more.halted_ns;
    sum.handling_ns += more.handling_ns;
    add(&mut sum.mode_ns, &more.mode_ns);
    add(&mut sum.handling, &more.handling);
    add(&mut sum.exits, &more.exits);
}

fn reading(open: Open, vm: &VmSlot, consistent: bool, halts_told: bool) -> VmReading {
    let Open { slot, mut roles, threads, mut work, .. } = open;
    for (sum, ended) in roles.iter_mut().zip(vm.ended) {
        // What the kernel side took out again of a thread counted twice is a negative number in the sum.
        sum.runtime_ns = sum.runtime_ns.wrapping_add(ended.runtime_ns);
        sum.run_delay_ns = sum.run_delay_ns.wrapping_add(ended.run_delay_ns);
    }
    roles[role::VMM as usize].runtime_ns += vm.leader.runtime_ns;
    roles[role::VMM as usize].run_delay_ns += vm.leader.run_delay_ns;
    if let Some(work) = Arc::get_mut(&mut work) {
        add(&mut work.waits, &vm.waits);
        add(&mut work.waited_ns, &vm.waited_ns);
        add_times(&mut work.vcpu, &vm.vcpu);
        work.halts_told = halts_told;
        work.offenders = vm.offenders;
        work.userspace_exits = vm.userspace_exits;
        work.vcpus.sort_unstable_by_key(|vcpu| vcpu.tid);
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
        threads,
        roles,
        work,
        family: vm.family,
        comm: vm.comm,
        ended_io: None,
        consistent,
    }
}
