//! `cargo xtask ci`: what `.ci/run` runs, and what decides whether a change lands.
//!
//! Every step runs, whichever fail, so that one run shows all. How long each took is printed, the tests' count last.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::kernels::{self, KernelsArgs};
use crate::power::{self, PowerArgs};
use crate::test::{self, Tally};
use crate::workspace::Workspace;
use crate::{BenchArgs, bench, docs, lint, packaging, setup};

pub(crate) fn ci(workspace: &Workspace) -> Result<()> {
    let mut steps = Vec::new();
    let mut tally = Tally::default();
    let everything = setup::Needs { tests: true, lint: true, bench: true, kernels: true };
    step(&mut steps, "setup", || setup::setup(workspace, everything));
    step(&mut steps, "lint", || lint::lint(workspace));
    step(&mut steps, "docs", || docs::docs(workspace, true));
    step(&mut steps, "packaging", || packaging::check(workspace));
    // Before the tests: one of them reads the types that these kernels bring.
    let short = KernelsArgs { short: true, only: None };
    step(&mut steps, "kernels", || kernels::kernels(workspace, &short));
    // A few of the hundreds of the long form, with the kernel and the programs of the step before.
    let few = PowerArgs { count: 4, between: 3, seed: None, control: false };
    step(&mut steps, "power-cuts", || power::power(workspace, &few));
    step(&mut steps, "test", || {
        let (counted, outcome) = test::test(workspace, &[])?;
        tally = counted;
        outcome
    });
    // That everything can still be measured, not what it costs.
    let quick = BenchArgs { quick: true, ..BenchArgs::default() };
    step(&mut steps, "bench", || bench::bench(workspace, &quick));
    println!();
    for (name, took, passed) in &steps {
        println!("ci: {name:<11} {:>7.1} s  {}", took.as_secs_f64(), if *passed { "ok" } else { "FAILED" });
    }
    println!("{tally}");
    let failed: Vec<_> = steps.iter().filter(|(_, _, passed)| !passed).map(|(name, _, _)| *name).collect();
    if !failed.is_empty() {
        bail!("ci failed: {}", failed.join(", "));
    }
    Ok(())
}

fn step(steps: &mut Vec<(&'static str, Duration, bool)>, name: &'static str, work: impl FnOnce() -> Result<()>) {
    println!("\nci: {name}");
    let start = Instant::now();
    let outcome = work();
    if let Err(error) = &outcome {
        eprintln!("xtask: {error:#}");
    }
    steps.push((name, start.elapsed(), outcome.is_ok()));
}
