//! Reading the mapped tables of all VMs, alone and with the agent's own code, and what the kernel has to be asked for.

use std::hint::black_box;
use std::mem::offset_of;
use std::time::Instant;

use anyhow::Result;
use kvmeter::bpf::Want;
use kvmeter_common::thread::role;
use kvmeter_common::vm::{RoleTime, VmSlot};

use super::load::cpus;
use super::object::{Hook, Object, Placed};
use super::spread::Spread;
use super::table::{Goal, Row};
use super::watch::Syscalls;

/// Beyond this number of VMs the fixed part of a reading no longer shows in a VM's.
const MANY: usize = 1_000;

/// Rows about reading these VMs' processes so many times.
pub fn rows(tgids: &[u32], reads: u32) -> Result<Vec<Row>> {
    let mut object = Object::load(false)?;
    object.adopt(tgids)?;
    let count = tgids.len();
    let judge = |row: Row, bound: f64| if count >= MANY { row.goal(Goal::AtMost(bound)) } else { row };
    let of = |what: &str| format!("reading the tables of {count} VMs: {what}");
    let each = |values: Option<Spread>| values.map(|values| values.times(1e9 / count as f64));
    let mut threads = 0;
    let alone = repeated(reads, || {
        threads = black_box(times(&object)).0;
        Ok(())
    })?;
    let mut found = 0;
    let whole = repeated(reads, || {
        found = {
            let readings = black_box(object.slots.read(|_, _| Want::Always));
            readings.changed.len() + readings.idle.len()
        };
        Ok(())
    })?;
    let refresh: Vec<Placed> = cpus()?
        .into_iter()
        .map(|cpu| Ok(Placed { name: "refresh", hook: Hook::Request(u32::try_from(cpu)?) }))
        .collect::<Result<_>>()?;
    refresh.iter().try_for_each(|placed| object.prepare(*placed))?;
    let asked = repeated(reads, || refresh.iter().try_for_each(|placed| object.request(*placed)))?;
    let (calls, _) = Syscalls::load()?.during(std::process::id(), || {
        (0..reads).for_each(|_| drop(black_box(object.slots.read(|_, _| Want::Always))));
        Ok(())
    })?;
    let calls = f64::from(u32::try_from(calls)?) / f64::from(reads);
    let (alone, whole) = (Row::new(of("the map alone, each VM"), "ns", each(alone)), each(whole));
    Ok(vec![
        judge(alone, 20.0).note(format!("the times of {threads} threads and of ended ones, added up")),
        Row::new(of("`Slots::read`, each VM"), "ns", whole).note(format!("{found} VMs, each whole and by role")),
        judge(Row::single(of("system calls of `Slots::read`"), "", calls), 0.5)
            .note("attaching and detaching the counter is among them"),
        Row::new(of("bringing all CPUs up to date"), "µs", asked.map(|asked| asked.times(1e6)))
            .note(format!("{} CPUs, one system call each", refresh.len())),
    ])
}

/// Seconds of each of so many times.
fn repeated(times: u32, mut once: impl FnMut() -> Result<()>) -> Result<Option<Spread>> {
    let mut took = Vec::new();
    for _ in 0..times {
        let began = Instant::now();
        once()?;
        took.push(began.elapsed().as_secs_f64());
    }
    Ok(Spread::of(&took))
}

/// What a sample of CPU time takes out of the maps: threads met, and all their time with that of ended ones.
fn times(object: &Object) -> (u32, u64) {
    let (mut threads, mut sum) = (0, 0_u64);
    let met = (1..object.threads.count()).map_while(|number| object.threads.get(number).filter(|slot| slot.tid != 0));
    for slot in met {
        threads += 1;
        sum = sum.wrapping_add(slot.runtime_ns.wrapping_sub(slot.base_runtime_ns));
        sum = sum.wrapping_add(slot.run_delay_ns.wrapping_sub(slot.base_run_delay_ns));
    }
    let field = |number, offset| object.vms.u64_at(number, offset);
    for number in 1..object.vms.count() {
        if object.vms.u32_at(number, offset_of!(VmSlot, tgid)).is_none_or(|tgid| tgid == 0) {
            break;
        }
        let markers = [offset_of!(VmSlot, fold_begin), offset_of!(VmSlot, fold_end)];
        let ended = (0..2 * role::COUNT).map(|place| offset_of!(VmSlot, ended) + place * size_of::<RoleTime>() / 2);
        sum = markers.into_iter().chain(ended).filter_map(|at| field(number, at)).fold(sum, u64::wrapping_add);
    }
    (threads, sum)
}
