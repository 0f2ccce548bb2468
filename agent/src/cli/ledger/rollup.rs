//! `ledger rollup`.

use std::{
    io::{BufWriter, Write},
    path::PathBuf,
};

use clap::Args;

use super::{
    super::{Outcome, Source},
    given,
};
use crate::ledger::{By, Form, Notes, Order, Period, ledger_files, rollup};

pub(super) const EXAMPLES: &str = "Rows without `class` have everything but traffic; each class of traffic has a row of its own. Whole numbers are exact:
the buckets of a life sum to it. What could not be read, or is told in two ways, is told on standard error; the rows are
printed all the same, and the end is 3.

Examples:
  kvmeter ledger rollup
  kvmeter ledger rollup --period day --by tenant --form csv /srv/ledgers > bill.csv
  kvmeter ledger rollup --since 2026-11-01T00:00:00Z --until 2026-12-01T00:00:00Z host1 host2/ledger.jsonl";

#[derive(Args)]
pub(in crate::cli) struct RollupArgs {
    /// Files, or directories with `*.jsonl` files in them, of one host or many [default: the configured ledger]
    paths: Vec<PathBuf>,
    /// Length of a bucket; buckets begin at whole hours or days of UTC
    #[arg(long, value_enum, default_value = "hour")]
    period: Period,
    /// What a row is about
    #[arg(long, value_enum, default_value = "vm")]
    by: By,
    /// How rows are written
    #[arg(long, alias = "format", value_enum, default_value = "csv")]
    form: Form,
    /// Only buckets that begin at this instant (RFC 3339) or later
    #[arg(long, value_name = "TIME", value_parser = instant)]
    since: Option<u64>,
    /// Only buckets that begin before this instant (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = instant)]
    until: Option<u64>,
    /// Write to this file instead of standard output; it is there whole or not at all
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn run(args: RollupArgs, source: &Source) -> anyhow::Result<Outcome> {
    let files = ledger_files(&given(args.paths, source)?)?;
    if files.is_empty() {
        eprintln!("kvmeter: no ledger there: no `*.jsonl` file in what was named");
        return Ok(Outcome::Negative);
    }
    let order = Order { period: args.period, by: args.by, form: args.form, since: args.since, until: args.until };
    let notes = match &args.output {
        Some(path) => super::file::replace(path, |out| Ok(rollup(files, order, out)?))?,
        None => {
            let mut out = BufWriter::new(std::io::stdout());
            let notes = rollup(files, order, &mut out)?;
            out.flush()?;
            notes
        }
    };
    Ok(tell(&notes))
}

/// What was found, on standard error; faults are a check that was not passed.
pub(super) fn tell(notes: &Notes) -> Outcome {
    eprintln!("kvmeter: {notes}");
    if notes.faults_total == 0 { Outcome::Done } else { Outcome::Negative }
}

fn instant(text: &str) -> Result<u64, String> {
    let at = humantime::parse_rfc3339_weak(text).map_err(|e| e.to_string())?;
    let since = at.duration_since(std::time::UNIX_EPOCH).map_err(|_| "before 1970".to_owned())?;
    u64::try_from(since.as_nanos()).map_err(|_| "too far away".to_owned())
}
