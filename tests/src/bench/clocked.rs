//! `sched_switch` once more, without the kernel's statistics: the CPU time of a fixed number of switches.
//!
//! The statistics read a clock before and after each run, which keeps a CPU from overlapping the program with the rest
//! of the switch. Here one program at a time is attached and the CPU time of the two threads is taken, so whatever the
//! program displaces is in it as well. The same goals are judged both ways.

use anyhow::Result;

use crate::process::process_cpu_ns;

use super::contest::{Effort, Load as _};
use super::load::{Switches, busy_cpu};
use super::object::{Hook, Object, Placed};
use super::spread::{Order, Spread};
use super::table::{Goal, Row, Section};
use super::{Options, SWITCH_GOALS_NS};

const PROGRAMS: [&str; 3] = ["empty_sched_switch", "control_sched_switch", "sched_switch"];

/// The table.
pub fn section(options: &Options) -> Result<Section> {
    let (effort, mut order) = (options.effort(), Order::new(3));
    // Short turns, and more of them: a neighbour's burst then falls on few.
    let effort = Effort { rounds: effort.rounds * 10, slice: effort.slice / 10, ..effort };
    let mut object = Object::load(false)?;
    let mut load = Switches::new(busy_cpu()?, effort.slice)?;
    let mut rows = Vec::new();
    for (whose, goal) in ["a task of no VM", "a thread of a VM"].into_iter().zip(SWITCH_GOALS_NS) {
        let mut rounds = Vec::new();
        for _ in 0..effort.rounds {
            rounds.push(round(&mut object, &mut load, &mut order)?);
        }
        for (name, place, goal) in [("`sched_switch`", 2, Some(goal)), ("control", 1, None)] {
            let costs: Vec<f64> = rounds.iter().map(|round| round[place] - round[0]).collect();
            let cost = Spread::of(&costs);
            let error = cost.map_or_else(String::new, |cost| format!("median ± {:.1} ns (95 %)", cost.error));
            let row = Row::new(format!("{name}, {whose}"), "ns", cost).note(error);
            rows.push(goal.into_iter().fold(row, |row, goal| row.goal(Goal::AtMost(goal))));
        }
        // From here on the threads of this process count as a VM's.
        object.adopt(&[std::process::id()])?;
    }
    let method = format!(
        "CPU time of a switch between two threads on one CPU with one program attached, less that with an empty one; in \
         turns, {} ms each. Coarser than the above, but without the clocks around each run, which keep a CPU from \
         overlapping the program with the rest of the switch: so the same goals are judged once more.",
        effort.slice.as_millis()
    );
    Ok(Section { title: "`sched_switch` by CPU time", method, rows })
}

/// Nanoseconds a switch with each program.
fn round(object: &mut Object, load: &mut Switches, order: &mut Order) -> Result<[f64; 3]> {
    let (mut turns, mut costs) = ([0, 1, 2], [0.0; 3]);
    order.shuffle(&mut turns);
    let this = std::process::id().cast_signed();
    for turn in turns {
        let placed = Placed { name: PROGRAMS[turn], hook: Hook::Typed("sched_switch") };
        let link = object.attach(placed)?;
        let (cpu, caused) = (process_cpu_ns(this)?, load.caused()?);
        load.begin()?;
        load.finish()?;
        costs[turn] = (process_cpu_ns(this)? - cpu) as f64 / (load.caused()? - caused) as f64;
        object.detach(placed, link)?;
    }
    Ok(costs)
}
