//! Reading the mapped tables of all VMs, alone and with the agent's own code, and what the kernel has to be asked for.

use std::hint::black_box;
use std::time::Instant;

use anyhow::Result;
use kvmeter::bpf::Want;

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
    drop(object.slots.read(|_, _| Want::Always));
    let mut unchanged = 0;
    let alone = repeated(reads, || {
        unchanged = black_box(object.slots.look(|_, _| Want::IfChanged)).1.len();
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
        judge(alone, 20.0)
            .note(format!("`Slots::look`, which tells {unchanged} that have not changed from those to read")),
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
