//! What kvmeter costs, measured on the machine it runs on and told in one table: programs, storms, ticks and scrapes.
//!
//! Every comparison is made in the same run, its sides in turns and in changing order, for a machine's mood moves more
//! than a program costs. Nothing is estimated: what cannot be measured here says why.

pub mod bpftrace;
pub mod clocked;
pub mod contest;
pub mod exporter;
pub mod exposition;
pub mod fleet;
pub mod history;
pub mod kept;
pub mod ledger;
pub mod libvirt;
pub mod load;
pub mod machine;
pub mod moved;
pub mod network;
pub mod object;
pub mod options;
pub mod pair;
pub mod programs;
pub mod reading;
pub mod scrape;
pub mod spread;
pub mod storm;
pub mod streams;
pub mod subscribers;
pub mod table;
pub mod watch;

use std::io::Write as _;

use anyhow::{Context as _, Result, ensure};

pub use options::{Options, Part};
use table::{Row, Section};

/// What an empty program may differ from another: the resolution that the goals need.
const RESOLUTION_NS: f64 = 1.0;
/// What `sched_switch` may cost a task of no VM, and a thread of one, beyond an empty program.
const SWITCH_GOALS_NS: [f64; 2] = [5.0, 13.0];
/// Why a part with an agent or VMs may be missing.
const HOST_BUSY: &str = "needs root and /dev/kvm";

/// Measures, and writes the table.
pub fn run(options: &Options) -> Result<()> {
    // Before all else: a checkout meanwhile does not change what was built.
    let machine = machine::description()?;
    let (mut sections, mut failed) = (Vec::new(), Vec::new());
    for part in options.parts() {
        eprintln!("bench: {}", part.name());
        // The other parts are worth having whatever becomes of one.
        let section = part.measure(options).unwrap_or_else(|error| Section {
            rows: vec![Row::failed("everything", &error)],
            ..Section::missing(part.name(), "")
        });
        if section.failed() {
            failed.push(part.name());
        }
        if options.output.is_some() {
            eprintln!("{}", section.markdown());
        }
        sections.push(section);
    }
    let text = document(&machine, &sections);
    match &options.output {
        Some(path) => std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display())),
        None => std::io::stdout().write_all(text.as_bytes()).context("cannot write the table"),
    }?;
    ensure!(failed.is_empty(), "could not be measured: {}", failed.join(", "));
    Ok(())
}

fn document(machine: &str, sections: &[Section]) -> String {
    let tallies = sections.iter().map(Section::tally);
    let (met, goals) = tallies.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    let intro = format!(
        "# Performance\n\nWritten by `cargo xtask bench` on the machine described below; not edited. Every figure is a median with its \
         10th and 90th percentile, compared in the same run: {met} of {goals} goals met.\n\n{machine}\n",
    );
    sections.iter().fold(intro, |text, section| text + "\n" + &section.markdown())
}
