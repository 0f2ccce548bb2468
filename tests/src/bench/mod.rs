//! What kvmeter costs, measured on the machine it runs on and told in one table: programs, storms, ticks and scrapes.
//!
//! Every comparison is made in the same run, its sides in turns and in changing order, for a machine's mood moves more
//! than a program costs. Nothing is estimated: what cannot be measured here says why.

pub mod clocked;
pub mod contest;
pub mod load;
pub mod object;
pub mod pair;
pub mod programs;
pub mod spread;
pub mod table;
pub mod watch;

use std::time::Duration;

use anyhow::Result;
use clap::{Parser, ValueEnum};

use contest::Effort;
use table::Section;

/// What an empty program may differ from another: the resolution that the goals need.
const RESOLUTION_NS: f64 = 1.0;

/// Measures what kvmeter costs here; `cargo xtask bench` builds what it needs.
#[derive(Clone, Debug, Parser)]
#[command(name = "kvmeter-bench", version)]
pub struct Options {
    /// Few and short rounds: shows that everything can be measured, not what it costs
    #[arg(long)]
    pub quick: bool,
    /// Only these parts
    #[arg(long, value_enum)]
    pub only: Vec<Part>,
    /// Write the table to this file instead of standard output
    #[arg(long, value_name = "FILE")]
    pub output: Option<std::path::PathBuf>,
}

/// A part of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Each kernel program against an empty one
    Programs,
    /// Entering and leaving a guest
    Pair,
    /// `sched_switch` by CPU time
    Clocked,
}

impl Options {
    /// Rounds of a contest between programs.
    #[must_use]
    pub fn effort(&self) -> Effort {
        let rounds = if self.quick { 7 } else { 101 };
        Effort { rounds, slice: Duration::from_millis(if self.quick { 10 } else { 30 }), requests: 20 }
    }
}

/// Measures, and writes the table.
pub fn run(options: &Options) -> Result<()> {
    let sections: Vec<Section> = vec![programs::section(options)?, pair::section(options)?, clocked::section(options)?];
    for s in &sections {
        println!("{}", s.markdown());
    }
    Ok(())
}
