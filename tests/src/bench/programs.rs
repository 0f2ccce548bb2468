//! Each kernel program against an empty one of the same kind on the same hook, for a task of a VM and of none.

use std::time::Duration;

use anyhow::Result;

use crate::vmm::{memory::Region, pingpong::pin};

use super::contest::{Effort, Load, Results, hold, spread_over_loadings};
use super::load::{Caused, Nothing, Switches, Vm, Worker, busy_cpu, cpus, keep_on, let_run_on};
use super::object::{Hook, Object, Placed};
use super::spread::{Order, Spread};
use super::table::{Goal, Row, Section};
use super::{Options, RESOLUTION_NS, SWITCH_GOALS_NS};

const fn typed(name: &'static str, hook: &'static str) -> Placed {
    Placed { name, hook: Hook::Typed(hook) }
}

const SWITCH: [Placed; 3] = [
    typed("sched_switch", "sched_switch"),
    typed("empty_sched_switch", "sched_switch"),
    typed("control_sched_switch", "sched_switch"),
];

/// Births and ends of threads; `sched_switch` is there because it returns the slots that births take.
const THREADS: [Placed; 7] = [
    typed("sched_switch", "sched_switch"),
    typed("task_newtask", "task_newtask"),
    typed("empty_task_newtask", "task_newtask"),
    typed("control_task_newtask", "task_newtask"),
    typed("sched_process_exit", "sched_process_exit"),
    typed("empty_sched_process_exit", "sched_process_exit"),
    typed("control_sched_process_exit", "sched_process_exit"),
];

/// Exits to user space, and entries of the guest, which not every KVM back end tells.
const EXIT: [Placed; 5] = [
    Placed { name: "kvm_userspace_exit", hook: Hook::Raw("kvm_userspace_exit") },
    Placed { name: "empty_raw", hook: Hook::Raw("kvm_userspace_exit") },
    Placed { name: "control_raw", hook: Hook::Raw("kvm_userspace_exit") },
    Placed { name: "kvm_entry", hook: Hook::Raw("kvm_entry") },
    Placed { name: "empty_raw_leave", hook: Hook::Raw("kvm_entry") },
];

const MEMORY: [Placed; 3] =
    [typed("rss_stat", "rss_stat"), typed("empty_rss_stat", "rss_stat"), typed("control_rss_stat", "rss_stat")];

/// Mapped, written to and given back each time: an allocator would keep it and nothing would move.
const MAPPED: usize = 64 << 10;

const WALK: [Placed; 2] =
    [Placed { name: "walk_tasks", hook: Hook::Walk }, Placed { name: "empty_walk", hook: Hook::Walk }];

/// The table of the programs.
pub fn section(options: &Options) -> Result<Section> {
    let (effort, mut order) = (options.effort(), Order::new(1));
    let mut rows = Vec::new();
    rows.extend(switches(effort, &mut order)?);
    rows.extend(threads(effort, &mut order)?);
    rows.extend(exits(effort, &mut order)?);
    rows.extend(memory(effort, &mut order)?);
    rows.extend(refresh(effort, &mut order)?);
    rows.extend(walk(effort, &mut order)?);
    let method = format!(
        "Nanoseconds a run over an empty program of the same kind on the same hook, as the kernel times runs \
         (`BPF_ENABLE_STATS`). The agent's program, the empty one and a second empty one (`control`, which shows the \
         resolution) are attached at the same time, in an order that changes from round to round, for {} ms a round; \
         rounds of both loads alternate, and for `sched_switch` the \
         object is loaded several times. \"share\" is how much of what the programs saw was the load's.",
        effort.slice.as_millis()
    );
    Ok(Section { title: "Kernel programs", method, rows })
}

/// What a program costs beyond the empty one, and the control.
fn rows(results: &Results, program: &str, [empty, control]: [&str; 2], whose: &str, goal: Option<f64>) -> Vec<Row> {
    let share = results.share().map_or_else(String::new, |share| format!("share {:.1} %", share.median));
    let cost = Row::new(format!("`{program}`, {whose}"), "ns", results.difference(&[program], &[empty]));
    let cost = goal.into_iter().fold(cost, |row, goal| row.goal(Goal::AtMost(goal))).note(share);
    let noise = Row::new(format!("control on its hook, {whose}"), "ns", results.difference(&[control], &[empty]));
    vec![cost, noise.goal(Goal::Within(RESOLUTION_NS)).note(absolute(results.difference(&[empty], &[])))]
}

fn absolute(empty: Option<Spread>) -> String {
    empty.map_or_else(String::new, |empty| format!("the empty program itself {:.1} ns", empty.median))
}

fn switches(effort: Effort, order: &mut Order) -> Result<Vec<Row>> {
    let cpu = busy_cpu()?;
    let mut vm = Vm::start(&["--id", "bench", "--pingpong", &cpu.to_string()], Caused::Switches)?;
    let mut foreign = Switches::new(cpu, effort.slice)?;
    let results = spread_over_loadings(effort, |effort| {
        let mut object = Object::load(true)?;
        object.adopt(&[vm.tgid()?])?;
        hold(&mut object, &SWITCH, &mut [&mut foreign, &mut vm], effort, order)
    })?;
    let against = ["empty_sched_switch", "control_sched_switch"];
    let mut found = rows(&results[0], "sched_switch", against, "a task of no VM", Some(SWITCH_GOALS_NS[0]));
    found.extend(rows(&results[1], "sched_switch", against, "a thread of a VM", Some(SWITCH_GOALS_NS[1])));
    Ok(found)
}

fn threads(effort: Effort, order: &mut Order) -> Result<Vec<Row>> {
    let (mut object, cpu) = (Object::load(true)?, busy_cpu()?);
    let mut vm = Vm::start(&["--id", "bench", "--churn", "10000"], Caused::Unknown)?;
    object.adopt(&[vm.tgid()?])?;
    let mut foreign = Worker::start(cpu, false, || drop(std::thread::spawn(|| ()).join()));
    let results = hold(&mut object, &THREADS, &mut [&mut foreign, &mut vm], effort, order)?;
    let mut found = Vec::new();
    for (result, whose) in results.iter().zip(["a thread of no VM", "a thread of a VM"]) {
        let against = ["empty_task_newtask", "control_task_newtask"];
        found.extend(without_goals(rows(result, "task_newtask", against, whose, None)));
        let against = ["empty_sched_process_exit", "control_sched_process_exit"];
        found.extend(without_goals(rows(result, "sched_process_exit", against, whose, None)));
    }
    Ok(found)
}

/// Thousands of runs a round give no resolution of a nanosecond, so no control is judged there.
fn without_goals(rows: Vec<Row>) -> Vec<Row> {
    rows.into_iter().map(Row::no_goal).collect()
}

fn exits(effort: Effort, order: &mut Order) -> Result<Vec<Row>> {
    let mut object = Object::load(true)?;
    let mut vm = Vm::start(&["--id", "bench", "--exit-rate", "200000"], Caused::Unknown)?;
    object.adopt(&[vm.tgid()?])?;
    let effort = Effort { slice: effort.slice.max(Duration::from_millis(50)), ..effort };
    let results = hold(&mut object, &EXIT, &mut [&mut vm], effort, order)?;
    let mut found = rows(&results[0], "kvm_userspace_exit", ["empty_raw", "control_raw"], "a vCPU", None);
    found = without_goals(found);
    found.push(match results[0].difference(&["kvm_entry"], &["empty_raw_leave"]) {
        Some(cost) => Row::new("`kvm_entry`, a vCPU", "ns", Some(cost)),
        None => Row::missing("`kvm_entry`, a vCPU", "it never fires with this KVM back end: see guest entry and exit"),
    });
    found.push(Row::missing(
        "`kvm_userspace_exit`, a task of no VM",
        "there is none: what returns from KVM_RUN is a vCPU, and its process becomes a VM",
    ));
    Ok(found)
}

/// Pages come and go, over and over: in this process, which is a VM for the second object only.
fn memory(effort: Effort, order: &mut Order) -> Result<Vec<Row>> {
    let mut pages = Worker::start(busy_cpu()?, false, || drop(Region::new("anon", MAPPED)));
    let mut found = Vec::new();
    for (whose, adopted) in [("the memory of no VM", None), ("the memory of a VM", Some(std::process::id()))] {
        let mut object = Object::load(true)?;
        adopted.map_or(Ok(()), |tgid| object.adopt(&[tgid]))?;
        let results = hold(&mut object, &MEMORY, &mut [&mut pages], effort, order)?;
        let against = ["empty_rss_stat", "control_rss_stat"];
        found.extend(without_goals(rows(&results[0], "rss_stat", against, whose, None)));
    }
    Ok(found)
}

fn refresh(effort: Effort, order: &mut Order) -> Result<Vec<Row>> {
    let (mut object, cpu, all) = (Object::load(true)?, busy_cpu()?, cpus()?);
    let Some(here) = all.iter().find(|one| **one != cpu) else {
        return Ok(vec![Row::missing("`refresh`", "with one CPU it would interrupt the one who asks for it")]);
    };
    let hook = Hook::Request(u32::try_from(cpu)?);
    let programs = ["refresh", "empty_raw", "control_raw"].map(|name| Placed { name, hook });
    let mut vm = Vm::start(&["--id", "bench", "--duty", "100"], Caused::Unknown)?;
    keep_on(vm.vm(), cpu)?;
    object.adopt(&[vm.tgid()?])?;
    let mut foreign = Worker::start(cpu, false, std::hint::spin_loop);
    // Who asks must not run where the answer is to come from.
    pin(*here)?;
    let results = hold(&mut object, &programs, &mut [&mut foreign as &mut dyn Load, &mut vm], effort, order);
    let_run_on(&all)?;
    let results = results?;
    let mut found = Vec::new();
    for (result, whose) in results.iter().zip(["interrupting a task of no VM", "interrupting a vCPU"]) {
        found.extend(without_goals(rows(result, "refresh", ["empty_raw", "control_raw"], whose, None)));
    }
    Ok(found)
}

fn walk(effort: Effort, order: &mut Order) -> Result<Vec<Row>> {
    let mut object = Object::load(true)?;
    let effort = Effort { requests: 1, ..effort };
    let results = hold(&mut object, &WALK, &mut [&mut Nothing], effort, order)?;
    let cost = results[0].difference(&["walk_tasks"], &["empty_walk"]);
    let empty = absolute(results[0].difference(&["empty_walk"], &[]));
    Ok(vec![Row::new("`walk_tasks`, each task of the host (on request only)", "ns", cost).note(empty)])
}
