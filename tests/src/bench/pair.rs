//! What entering and leaving a guest costs: the bodies of `kvm_entry` and `kvm_exit`, driven from another hook.
//!
//! Those two tracepoints do not fire on every KVM back end. Their bodies need no argument, so here they run at the
//! entry and at the end of the cheapest system call, in a thread that is tracked as a VM's are.

use anyhow::Result;

use super::contest::{hold, spread_over_loadings};
use super::load::{Worker, busy_cpu};
use super::object::{Hook, Object, Placed};
use super::spread::Order;
use super::table::{Goal, Row, Section};
use super::{Options, RESOLUTION_NS};

const fn enter(name: &'static str) -> Placed {
    Placed { name, hook: Hook::Raw("sys_enter") }
}

const fn leave(name: &'static str) -> Placed {
    Placed { name, hook: Hook::Raw("sys_exit") }
}

const fn record(name: &'static str) -> Placed {
    Placed { name, hook: Hook::Record }
}

const PROGRAMS: [Placed; 9] = [
    record("empty_record"),
    record("reason_record"),
    enter("empty_raw"),
    enter("control_raw"),
    enter("clock_enter"),
    enter("pair_enter"),
    leave("empty_raw_leave"),
    leave("clock_leave"),
    leave("pair_leave"),
];

/// Beyond two empty programs and two clocks.
const GOAL_NS: f64 = 30.0;

/// The table of the pair.
pub fn section(options: &Options) -> Result<Section> {
    let (effort, mut order) = (options.effort(), Order::new(2));
    // getpid(2), which is a system call each time.
    let mut calls = Worker::start(busy_cpu()?, true, || {
        nix::unistd::getpid();
    });
    let results = spread_over_loadings(effort, |effort| {
        let mut object = Object::load(true)?;
        // The threads of this process count as a VM's; the first entry makes one of them a vCPU.
        object.adopt(&[std::process::id()])?;
        hold(&mut object, &PROGRAMS, &mut [&mut calls], effort, &mut order)
    })?;
    let tracked = &results[0];
    let (clocks, pair) = (["clock_enter", "clock_leave"], ["pair_enter", "pair_leave"]);
    let empty = ["empty_raw", "empty_raw_leave"];
    let share = tracked.share().map_or_else(String::new, |share| format!("share {:.1} %", share.median));
    let beyond = tracked.difference(&pair, &clocks);
    let row = |what: &str, figure| Row::new(what, "ns", figure);
    let mut rows = vec![
        row("entry + exit, a thread of a VM, beyond two empty programs and two clocks", beyond)
            .goal(Goal::AtMost(GOAL_NS))
            .note(share),
        row("entry + exit, a thread of a VM, beyond two empty programs", tracked.difference(&pair, &empty)),
        row("two `bpf_ktime_get_ns` beyond two empty programs", tracked.difference(&clocks, &empty)),
        row(
            "exits by reason (`bpf.exit_reasons`), each exit beyond an empty program of its kind",
            tracked.difference(&["reason_record"], &["empty_record"]),
        )
        .note("a program on a tracepoint's record, driven by `raw_syscalls:sys_exit`"),
    ];
    let control = tracked.difference(&["control_raw"], &["empty_raw"]);
    rows.push(Row::new("control: an empty program over another", "ns", control).goal(Goal::Within(RESOLUTION_NS)));
    let method = "`kvm_entry` and `kvm_exit` do not fire with every KVM back end (never with PVM). The bodies of both are therefore \
                  driven through `raw_tp/sys_enter` and `raw_tp/sys_exit` by a thread that calls getpid(2) over and over. On \
                  each hook an empty program and one with a single `bpf_ktime_get_ns` run beside them, and the object is \
                  loaded several times, as above."
        .to_owned();
    Ok(Section { title: "Guest entry and exit", method, rows })
}
