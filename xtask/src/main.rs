//! `cargo xtask …`: everything that kvmeter's own development needs and cargo alone does not do.
//!
//! Every command starts with `setup`, which costs milliseconds once it has been done. This file only maps the command
//! line to the modules and an error to exit code 1.

mod bench;
mod ci;
mod confinement;
mod demo;
mod docs;
mod edges;
mod install;
mod kernels;
mod lexer;
mod limits;
mod linker;
mod lint;
mod packaging;
mod packets;
mod page;
mod paths;
mod power;
mod restarts;
mod run;
mod setup;
mod signals;
mod stage;
mod stamp;
mod storms;
mod test;
mod toolchain;
mod workspace;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};

use crate::setup::Needs;
use crate::workspace::Workspace;

/// kvmeter's own build, test and set-up commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Find or install what building the kernel programs needs; the other commands call it
    Setup {
        /// Also what the tests use: QEMU, Prometheus
        #[arg(long)]
        tests: bool,
        /// Also what `lint` uses: clippy for the kernel programs
        #[arg(long)]
        lint: bool,
        /// Also what `bench` compares with: bpftrace, exporters for Prometheus, libvirt
        #[arg(long)]
        bench: bool,
        /// Look and build anew, whatever was found before
        #[arg(long)]
        force: bool,
    },
    /// Build and start an agent to try out, with its data under target/run; --demo adds real test VMs
    Run(RunArgs),
    /// Every test: unit, and the real agent against real KVM guests (needs root)
    Test {
        /// Only tests whose name contains one of these
        filters: Vec<String>,
    },
    /// What decides whether a change lands: lint, docs --check, packaging, kernels --short, power-cuts, test
    Ci,
    /// The agent and its checks on Debian's kernels 5.10 to 7.2, each booted in emulation; writes docs/kernels.md
    Kernels(kernels::KernelsArgs),
    /// rustfmt, clippy for the host and for the kernel programs, and the architecture's edges
    Lint,
    /// Whether what is in packaging/ is sound, by the word of the programs that read it; a part of `ci`
    Packaging,
    /// Measure what kvmeter costs on this machine (needs root) and write docs/performance.md
    Bench(BenchArgs),
    /// Very many packets through a VM's tap, each way, held against the link's own counters (needs root)
    Packets(packets::PacketsArgs),
    /// Storms of processes, VMs, lost wake-ups and killed agents, held against the kernel's own counts; takes minutes (needs root)
    Storms(storms::StormsArgs),
    /// A thousand agents one after another under load, held against the kernel's own counters (needs root)
    Restarts(restarts::RestartsArgs),
    /// Kills emulated machines under an agent at work, with a disk that loses its cache, and proves each ledger; takes half an hour
    PowerCuts(power::PowerArgs),
    /// Write docs/metrics.md from the agent's own catalog
    Docs {
        /// Only compare, and fail if it is out of date
        #[arg(long)]
        check: bool,
    },
}

#[derive(Debug, Default, Args)]
struct BenchArgs {
    /// Few and short rounds, and docs/performance.md is left alone: shows that everything can be measured
    #[arg(long)]
    quick: bool,
    /// Only this part, such as programs or fleet, printed and not written; may be given several times
    #[arg(long, value_name = "PART")]
    only: Vec<String>,
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Start some test VMs with different loads and show them
    #[arg(long)]
    demo: bool,
    /// Build with optimisation: slower to build, and not what `cargo xtask test` builds
    #[arg(long)]
    release: bool,
    /// End after this long, such as 20s or 5m, instead of on Ctrl-C
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    limit: Option<Duration>,
    /// The parts before the start were done already; set when xtask starts itself as root
    #[arg(long, hide = true)]
    built: bool,
    /// This one has the agent and the VMs; set when xtask starts itself behind the one in front
    #[arg(long, hide = true)]
    stage: bool,
    /// Further arguments for `kvmeter run`
    #[arg(last = true)]
    agent: Vec<String>,
}

fn main() -> ExitCode {
    match perform(Cli::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(task: Task) -> Result<()> {
    let workspace = Workspace::find()?;
    match task {
        Task::Setup { tests, lint, bench, force } => {
            if force {
                stamp::forget(&workspace)?;
            }
            setup::setup(&workspace, Needs { tests, lint, bench, ..Needs::default() })
        }
        Task::Run(args) => run::run(&workspace, &args),
        Task::Test { filters } => test::command(&workspace, &filters),
        Task::Ci => ci::ci(&workspace),
        Task::Bench(args) => bench::bench(&workspace, &args),
        Task::Kernels(args) => kernels::kernels(&workspace, &args),
        Task::Packaging => packaging::check(&workspace),
        Task::Lint => lint::lint(&workspace),
        Task::Packets(args) => packets::packets(&workspace, &args),
        Task::Storms(args) => storms::storms(&workspace, &args),
        Task::Restarts(args) => restarts::restarts(&workspace, &args),
        Task::PowerCuts(args) => power::power(&workspace, &args),
        Task::Docs { check } => docs::docs(&workspace, check),
    }
}

/// A whole number with the unit `s`, `m` or `h`; a bare number is seconds.
fn parse_duration(text: &str) -> Result<Duration> {
    let (digits, unit) = match text.strip_suffix(['s', 'm', 'h']) {
        Some(digits) => (digits, text.as_bytes()[digits.len()]),
        None => (text, b's'),
    };
    let number: u64 = digits.parse().context("give a number with s, m or h, such as 20s")?;
    let seconds = match unit {
        b'm' => 60,
        b'h' => 3600,
        _second => 1,
    };
    Ok(Duration::from_secs(number.saturating_mul(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(parse_duration("20s").unwrap(), Duration::from_secs(20));
        assert_eq!(parse_duration("2m").unwrap(), Duration::from_secs(120));
        assert_eq!(parse_duration("7").unwrap(), Duration::from_secs(7));
        assert!(parse_duration("soon").is_err());
        assert!(parse_duration("").is_err());
    }
}
