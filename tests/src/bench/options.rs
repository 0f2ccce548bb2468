//! The command line of `kvmeter-bench`: which parts, and how much effort each takes.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, ValueEnum};

use super::contest::Effort;
use super::table::Section;
use super::{clocked, exposition, fleet, history, ledger, libvirt, network, pair, programs, storm, streams};

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
    pub output: Option<PathBuf>,
}

/// A part of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Each kernel program against an empty one
    Programs,
    /// Entering and leaving a guest
    Pair,
    /// The programs at a VM's interface
    Network,
    /// `sched_switch` by CPU time
    Clocked,
    /// A storm of context switches, with the agent off and on
    Switches,
    /// A storm of exits from a guest, with the agent off and on
    Exits,
    /// Ticks and scrapes with 10, 100 and 1,000 VMs, and other exporters
    Fleet,
    /// `/metrics` with everything on, plain and as gzip
    Metrics,
    /// 1,000 readers of streams, and what they cost the agent and its samples
    Streams,
    /// libvirt's exporter on libvirt's VMs
    Libvirt,
    /// A week of samples in memory
    History,
    /// Proving a ledger
    Ledger,
}

impl Part {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Programs => "programs",
            Self::Pair => "pair",
            Self::Network => "network",
            Self::Clocked => "clocked",
            Self::Switches => "switches",
            Self::Exits => "exits",
            Self::Fleet => "fleet",
            Self::Metrics => "metrics",
            Self::Streams => "streams",
            Self::Libvirt => "libvirt",
            Self::History => "history",
            Self::Ledger => "ledger",
        }
    }

    /// Measures it.
    pub fn measure(self, options: &Options) -> Result<Section> {
        match self {
            Self::Programs => programs::section(options),
            Self::Pair => pair::section(options),
            Self::Network => network::section(options),
            Self::Clocked => clocked::section(options),
            Self::Switches => storm::switches(options),
            Self::Exits => storm::exits(options),
            Self::Fleet => fleet::section(options),
            Self::Metrics => exposition::section(options),
            Self::Streams => streams::section(options),
            Self::Libvirt => libvirt::section(options),
            Self::History => history::section(options),
            Self::Ledger => ledger::section(options),
        }
    }
}

impl Options {
    /// The parts to measure, in their order.
    #[must_use]
    pub fn parts(&self) -> Vec<Part> {
        let all = Part::value_variants().iter().copied();
        all.filter(|part| self.only.is_empty() || self.only.contains(part)).collect()
    }

    fn either<T>(&self, quick: T, whole: T) -> T {
        if self.quick { quick } else { whole }
    }

    /// Rounds of a contest between programs.
    #[must_use]
    pub fn effort(&self) -> Effort {
        let slice = Duration::from_millis(self.either(10, 30));
        Effort { rounds: self.either(7, 101), slice, requests: 20 }
    }

    /// Heartbeats of each VM in a ledger that is proved, and how often it is.
    #[must_use]
    pub fn ledger(&self) -> (u64, u32) {
        self.either((40, 3), (4_000, 11))
    }

    /// Rounds of a storm.
    #[must_use]
    pub fn storm_rounds(&self) -> u32 {
        self.either(2, 21)
    }

    /// Switches of a storm on each CPU.
    #[must_use]
    pub fn storm_switches(&self) -> u64 {
        self.either(50_000, 500_000)
    }

    /// How long exits are counted.
    #[must_use]
    pub fn exit_window(&self) -> Duration {
        Duration::from_millis(self.either(300, 1_000))
    }

    /// Sizes of fleets.
    #[must_use]
    pub fn fleets(&self) -> Vec<u32> {
        self.either(vec![10], vec![10, 100, 1_000])
    }

    /// VMs whose metrics are scraped, vCPUs of each, and scrapes of each form.
    #[must_use]
    pub fn exposition(&self) -> (u32, u32, u32) {
        self.either((10, 2, 5), (1_000, 12, 201))
    }

    /// VMs that streams tell of, readers of each kind of stream, and rounds.
    #[must_use]
    pub fn streams(&self) -> (u32, u32, u32) {
        self.either((10, 50, 1), (1_000, 1_000, 5))
    }

    /// How long each kind of readers is watched in a round.
    #[must_use]
    pub fn streams_window(&self) -> Duration {
        Duration::from_millis(self.either(1_500, 20_000))
    }

    /// VMs that libvirt makes.
    #[must_use]
    pub fn domains(&self) -> u32 {
        self.either(2, 5)
    }

    /// How long a fleet's agent is watched.
    #[must_use]
    pub fn window(&self) -> Duration {
        Duration::from_secs(self.either(3, 30))
    }

    /// Scrapes of each exporter.
    #[must_use]
    pub fn scrapes(&self) -> u32 {
        self.either(3, 15)
    }

    /// VMs with a past, and samples of each.
    #[must_use]
    pub fn history(&self) -> (u64, u64) {
        self.either((20, 2_000), (1_000, 60_480))
    }

    /// Readings of the tables.
    #[must_use]
    pub fn reads(&self) -> u32 {
        self.either(20, 301)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        use clap::CommandFactory;
        Options::command().debug_assert();
    }

    #[test]
    fn a_part_has_the_name_it_is_asked_for_by() {
        for part in Part::value_variants() {
            let options = Options::try_parse_from(["kvmeter-bench", "--only", part.name()]).unwrap();
            assert_eq!(options.parts(), [*part]);
        }
    }
}
