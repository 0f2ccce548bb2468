//! Reading the tables: each VM whole, at one instant, without a system call.
//!
//! A thread that ends while we read moves its numbers from its slot to its VM between two counters; a reading that saw
//! them differ is taken again.

use std::{
    mem::offset_of,
    sync::atomic::{Ordering, fence},
};

use kvmeter_common::{
    index,
    thread::{ThreadSlot, role},
    vcpu::VcpuTimes,
    vm::{RoleTime, VmSlot, state},
};

use super::{
    reading::{Exit, VcpuReading, VmReading, Work},
    slots::{MARGIN, Slots},
};

/// Attempts at a reading in which no thread ended.
const ATTEMPTS: u32 = 8;

/// A VM under way: what its living threads add up to.
struct Open {
    slot: u32,
    folds: u64,
    roles: [RoleTime; role::COUNT],
    threads: u32,
    work: Work,
}

impl Slots {
    /// The VMs that hold a slot and are `wanted` (by slot, and whether the process has ended), each read consistently.
    pub fn read(&mut self, wanted: impl Fn(u32, bool) -> bool) -> Vec<VmReading> {
        let mut done: Vec<VmReading> = Vec::new();
        let mut open = self.open(wanted);
        for attempt in 0..ATTEMPTS {
            if open.is_empty() {
                break;
            }
            fence(Ordering::SeqCst);
            self.add_threads(&mut open);
            fence(Ordering::SeqCst);
            open = self.close(open, &mut done, attempt + 1 == ATTEMPTS);
        }
        done
    }

    fn open(&mut self, wanted: impl Fn(u32, bool) -> bool) -> Vec<Open> {
        let mut open = Vec::new();
        let (mut end, mut slot) = (self.vms_used + MARGIN, 1);
        while slot < self.vms.count() && slot < end {
            let now = self.vms.u32_at(slot, offset_of!(VmSlot, state)).unwrap_or(state::FREE);
            if now != state::FREE {
                self.vms_used = self.vms_used.max(slot);
                end = end.max(slot + MARGIN);
                if wanted(slot, now == state::EXITED) {
                    open.push(self.begin(slot));
                }
            }
            slot += 1;
        }
        open
    }

    fn begin(&self, slot: u32) -> Open {
        let folds = self.vms.u64_at(slot, offset_of!(VmSlot, fold_end)).unwrap_or(0);
        Open { slot, folds, roles: <[RoleTime; role::COUNT]>::default(), threads: 0, work: Work::default() }
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
        let mut unused = 0;
        for number in 1..self.threads.count() {
            let tid = self.threads.u32_at(number, offset_of!(ThreadSlot, tid)).unwrap_or(0);
            unused = if tid == 0 { unused + 1 } else { 0 };
            if unused >= MARGIN {
                // Slots never used so far.
                break;
            }
            let vm = self.threads.u32_at(number, offset_of!(ThreadSlot, vm)).unwrap_or(0);
            let place = places.get(vm as usize).copied().unwrap_or(u32::MAX);
            if let Some(open) = open.get_mut(place as usize)
                && self.tids.u32_at(index::word(tid), size_of::<u32>() * index::place(tid)) == Some(number)
                && let Some(thread) = self.threads.get(number)
                && thread.task != 0
                && (thread.tid, thread.vm) == (tid, vm)
            {
                self.add_thread(open, number, &thread);
            }
        }
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
        add(&mut open.work.waits, &thread.waits);
        add(&mut open.work.waited_ns, &thread.waited_ns);
        if thread.role == role::VCPU
            && let Some(vcpu) = self.vcpus.get(number).filter(|vcpu| vcpu.task == thread.task)
        {
            add_times(&mut open.work.vcpu, &vcpu.times);
            open.work.vcpus.push(VcpuReading { tid: thread.tid, time, times: vcpu.times });
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
                done.push(reading(vm, &slot, consistent));
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

fn reading(open: Open, vm: &VmSlot, consistent: bool) -> VmReading {
    let Open { slot, mut roles, threads, mut work, .. } = open;
    for (sum, ended) in roles.iter_mut().zip(vm.ended) {
        // What the kernel side took out again of a thread counted twice is a negative number in the sum.
        sum.runtime_ns = sum.runtime_ns.wrapping_add(ended.runtime_ns);
        sum.run_delay_ns = sum.run_delay_ns.wrapping_add(ended.run_delay_ns);
    }
    roles[role::VMM as usize].runtime_ns += vm.leader.runtime_ns;
    roles[role::VMM as usize].run_delay_ns += vm.leader.run_delay_ns;
    add(&mut work.waits, &vm.waits);
    add(&mut work.waited_ns, &vm.waited_ns);
    add_times(&mut work.vcpu, &vm.vcpu);
    work.offenders = vm.offenders;
    work.userspace_exits = vm.userspace_exits;
    work.vcpus.sort_unstable_by_key(|vcpu| vcpu.tid);
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
        consistent,
    }
}
