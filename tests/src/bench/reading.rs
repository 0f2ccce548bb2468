//! Reading the mapped tables of all VMs, with the agent's own code, and what has to be asked of the kernel for it.

use std::hint::black_box;
use std::time::Instant;

use anyhow::Result;

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
    let mut each_ns = Vec::new();
    let mut found = 0;
    for _ in 0..reads {
        let began = Instant::now();
        found = black_box(object.slots.read()).len();
        each_ns.push(began.elapsed().as_secs_f64() * 1e9 / count as f64);
    }
    let refresh = Placed { name: "refresh", hook: Hook::Request(0) };
    object.prepare(refresh)?;
    let mut asked_us = Vec::new();
    for _ in 0..reads {
        let began = Instant::now();
        object.request(refresh)?;
        asked_us.push(began.elapsed().as_secs_f64() * 1e6);
    }
    let (calls, _) = Syscalls::load()?.during(std::process::id(), || {
        (0..reads).for_each(|_| drop(black_box(object.slots.read())));
        Ok(())
    })?;
    let of = |what: &str| format!("reading the tables of {count} VMs: {what}");
    let each = Row::new(of("each VM"), "ns", Spread::of(&each_ns)).note(format!("{found} VMs read"));
    let calls = f64::from(u32::try_from(calls)?) / f64::from(reads);
    let calls = Row::single(of("system calls"), "", calls).note("attaching and detaching the counter is among them");
    let judged = count >= MANY;
    Ok(vec![
        if judged { each.goal(Goal::AtMost(20.0)) } else { each },
        if judged { calls.goal(Goal::AtMost(0.5)) } else { calls },
        Row::new(of("bringing one CPU up to date, the one system call"), "µs", Spread::of(&asked_us)),
    ])
}
