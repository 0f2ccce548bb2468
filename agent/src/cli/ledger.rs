//! `ledger show` and `ledger verify`; what is longer has a file of its own.

mod export;
mod file;
mod outlet;
mod rollup;

use std::{
    fs::File,
    io::{BufReader, Write as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::Subcommand;

use super::{Outcome, print};
use crate::{
    app::Source,
    ledger::{Filter, Format, Kind, Listing, Report, schema, show, show_head, verify_dir, verify_file},
};

#[derive(Subcommand)]
pub(super) enum Ledger {
    /// Prints a ledger's lines
    #[command(
        after_help = "Examples:\n  kvmeter ledger show\n  kvmeter ledger show --json --kind vm.compute.stop /var/lib/kvmeter/metering"
    )]
    Show {
        /// Files or directories [default: the configured ledger]
        paths: Vec<PathBuf>,
        /// Print the lines as they are
        #[arg(long)]
        json: bool,
        /// Only lines of this VM
        #[arg(long, value_name = "VM_ID")]
        vm: Option<String>,
        /// Only lines of this kind; may be given again
        #[arg(long, value_name = "KIND")]
        kind: Vec<Kind>,
        /// Only lines from this sequence number on
        #[arg(long, value_name = "SEQ")]
        since: Option<u64>,
    },
    /// Adds ledgers up: what each VM, tenant or host had and used, by hour or day
    #[command(after_help = rollup::EXAMPLES)]
    Rollup(rollup::RollupArgs),
    /// Hands lines over in other forms: old keys, CloudEvents, OpenMeter, Lago; to a file, or over HTTP
    #[command(after_help = export::EXAMPLES)]
    Export(export::ExportArgs),
    /// Prints the JSON Schema of a line
    #[command(after_help = "Example:\n  kvmeter ledger schema > ledger.schema.json")]
    Schema,
    /// Proves that a ledger is whole: sequence, chain, sums, pairs, bounds; only reads
    #[command(
        after_help = "Ends with 0 if whole, 3 with a fault, 1 if unreadable.\n\nExample:\n  kvmeter ledger verify /var/lib/kvmeter/metering"
    )]
    Verify {
        /// Files or directories [default: the configured ledger]
        paths: Vec<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// What was named, else what is configured.
fn given(paths: Vec<PathBuf>, source: &Source) -> anyhow::Result<Vec<PathBuf>> {
    if !paths.is_empty() {
        return Ok(paths);
    }
    Ok(vec![source.load()?.0.data_dir.join(crate::app::METERING)])
}

/// The directory a ledger lies in, if a path is one: a metering directory, or the one inside a data directory.
fn dir_of(path: &Path) -> Option<PathBuf> {
    let inside = path.join(crate::app::METERING);
    let is_ledger = |dir: &Path| Listing::of(dir).is_ok_and(|listing| !listing.is_empty());
    match path.is_dir() {
        true if !is_ledger(path) && is_ledger(&inside) => Some(inside),
        true => Some(path.to_owned()),
        false => None,
    }
}

pub(super) fn run(command: Ledger, source: &Source) -> anyhow::Result<Outcome> {
    match command {
        Ledger::Show { paths, json, vm, kind, since } => {
            let filter = Filter { vm_id: vm, kinds: kind, since_seq: since };
            let format = if json { Format::Json } else { Format::Table };
            print_lines(&given(paths, source)?, &filter, format)
        }
        Ledger::Rollup(args) => rollup::run(args, source),
        Ledger::Export(args) => export::run(args, source),
        Ledger::Schema => {
            let schema = schema().map_err(anyhow::Error::msg).context("the schema cannot be made")?;
            print(&format!("{}\n", serde_json::to_string_pretty(&schema)?))
        }
        Ledger::Verify { paths, json } => verify(&given(paths, source)?, json),
    }
}

fn print_lines(paths: &[PathBuf], filter: &Filter, format: Format) -> anyhow::Result<Outcome> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut lines = 0;
    if format == Format::Table {
        show_head(&mut out)?;
    }
    for path in paths {
        let mut one = |file: &Path, from: File| -> anyhow::Result<()> {
            let shown = show(BufReader::new(from), filter, format, &mut out)?;
            lines += shown.lines;
            if shown.unreadable > 0 {
                eprintln!(
                    "kvmeter: {} lines of {} cannot be read; `kvmeter ledger verify` says why",
                    shown.unreadable,
                    file.display()
                );
            }
            Ok(())
        };
        let unreadable = || format!("the ledger {} cannot be read", path.display());
        match dir_of(path) {
            Some(dir) => Listing::of(&dir).with_context(unreadable)?.each(one)?,
            None => one(path, File::open(path).with_context(unreadable)?)?,
        }
    }
    out.flush()?;
    Ok(if lines > 0 { Outcome::Done } else { Outcome::Negative })
}

fn verify(paths: &[PathBuf], json: bool) -> anyhow::Result<Outcome> {
    let mut worst = Outcome::Done;
    for path in paths {
        let (shown, report): (&Path, Report) = match dir_of(path) {
            Some(dir) => (path, verify_dir(&dir)),
            None => (path, verify_file(path)),
        };
        if json {
            print(&format!("{}\n", serde_json::to_string_pretty(&report)?))?;
        } else {
            print(&format!("{}: {report}\n", shown.display()))?;
        }
        worst = match (report.exit_code(), worst) {
            (0, worst) => worst,
            (3, _) | (_, Outcome::Negative) => Outcome::Negative,
            _ => Outcome::Unreadable,
        };
    }
    Ok(worst)
}
