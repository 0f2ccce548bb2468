//! `ledger export`: once over files of any number of hosts, or on and on over one ledger with a cursor.

use std::{
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use hyper::Uri;

use super::{
    super::{Misuse, Outcome, Source},
    dir_of, given,
    outlet::{Http, Outlet, Stream},
    rollup::tell,
};
use crate::ledger::{Cursor, ExportFormat, Exporter, Follower, Notes, acknowledge, export, ledger_files};

pub(super) const EXAMPLES: &str = "Each event has an id that is the same whenever and from whatever copy of the ledger it is made, so a receiver that
knows repetitions may be sent everything again. With --cursor one ledger is read, and what was handed over (written and
synced, or answered with 2xx) is remembered: after a restart it goes on there; what was under way is sent again.

Examples:
  kvmeter ledger export --format cocoon > old.jsonl
  kvmeter ledger export --format cloudevents /srv/ledgers/*
  kvmeter ledger export --format cloudevents-batch --follow --cursor /var/lib/kvmeter/siem.cursor --to http://siem:8080/
  kvmeter ledger export --format lago --follow --cursor lago.cursor --header-file lago.key --to http://lago/api/v1/events/batch
  kvmeter ledger export --format cloudevents --follow --cursor nats.cursor --to nats://nats:4222/meter.host1";

/// How often a ledger is looked at that has not grown.
const IDLE: Duration = Duration::from_millis(200);

#[derive(Args)]
pub(in crate::cli) struct ExportArgs {
    /// Files, or directories with `*.jsonl` files in them [default: the configured ledger]
    paths: Vec<PathBuf>,
    /// What to write
    #[arg(long, value_enum)]
    format: ExportFormat,
    /// Go on as the ledger grows, until stopped
    #[arg(long)]
    follow: bool,
    /// Remember in this file what was handed over, and begin behind it
    #[arg(long, value_name = "FILE")]
    cursor: Option<PathBuf>,
    /// Acknowledge what was handed over under this reader's name, so that retention may remove it
    #[arg(long, value_name = "NAME", requires = "cursor")]
    reader: Option<String>,
    /// Write to this file: put there whole, or with --follow or --cursor appended to
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Post to this address and take 2xx for an acknowledgement, or publish to the JetStream subject of nats://HOST/SUBJECT
    /// and take the stream's; other answers and failures are tried again
    #[arg(long, value_name = "http://…", value_parser = address, conflicts_with = "output")]
    to: Option<Address>,
    /// Header lines for --to, such as an Authorization
    #[arg(long, value_name = "FILE", requires = "to")]
    header_file: Option<PathBuf>,
    /// Credentials for --to nats://…, as NATS's own tools write them
    #[arg(long, value_name = "FILE", requires = "to")]
    credentials: Option<PathBuf>,
    /// Events in an array or a request, at most
    #[arg(long, value_name = "COUNT", default_value = "100", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    batch: u16,
}

pub(super) fn run(args: ExportArgs, source: &Source) -> anyhow::Result<Outcome> {
    let paths = given(args.paths.clone(), source)?;
    if args.follow || args.cursor.is_some() || args.to.is_some() {
        return follow(&args, &paths);
    }
    let files = ledger_files(&paths)?;
    if files.is_empty() {
        eprintln!("kvmeter: no ledger there: no `*.jsonl` file in what was named");
        return Ok(Outcome::Negative);
    }
    let all = |out: &mut dyn Write| Ok(export(files, args.format, args.batch.into(), out)?);
    let (notes, left_out) = match &args.output {
        Some(path) => super::file::replace(path, |out| all(out))?,
        None => all(&mut BufWriter::new(std::io::stdout()))?,
    };
    tell_left_out(left_out);
    Ok(tell(&notes))
}

fn follow(args: &ExportArgs, paths: &[PathBuf]) -> anyhow::Result<Outcome> {
    let [path] = paths else {
        return Err(Misuse(format!("--follow, --cursor and --to take one ledger, {} are named", paths.len())).into());
    };
    let Some(dir) = dir_of(path) else {
        let what = format!("--follow, --cursor and --to take a ledger's directory; {} is none", path.display());
        return Err(Misuse(what).into());
    };
    let mut outlet: Box<dyn Outlet> = match (&args.to, &args.output) {
        (Some(to), _) => receiver(args, to)?,
        (None, Some(path)) => Box::new(Stream::append(path, args.format, args.batch.into())?),
        (None, None) => Box::new(Stream::stdout(args.format, args.batch.into())),
    };
    hand_over(args, &dir, outlet.as_mut())
}

/// Whom events are handed over to.
fn receiver(args: &ExportArgs, to: &Address) -> anyhow::Result<Box<dyn Outlet>> {
    let tries = if args.follow { None } else { Some(10) };
    match to {
        Address::Http(_) if args.credentials.is_some() => {
            Err(Misuse("--credentials goes with --to nats://…; --to http://… takes --header-file".to_owned()).into())
        }
        Address::Http(to) => {
            let (headers, batch) = (args.header_file.as_deref(), args.batch.into());
            Ok(Box::new(Http::new(to.clone(), headers, args.format, batch, tries)?))
        }
        Address::Nats { .. } if args.header_file.is_some() => {
            Err(Misuse("--header-file goes with --to http://…; --to nats://… takes --credentials".to_owned()).into())
        }
        #[cfg(feature = "nats")]
        Address::Nats { server, subject } => {
            let credentials = args.credentials.as_deref();
            Ok(Box::new(super::outlet::Nats::new(server.clone(), subject.clone(), credentials, tries)?))
        }
        #[cfg(not(feature = "nats"))]
        Address::Nats { server, subject } => Err(Misuse(format!(
            "this kvmeter was built without NATS and cannot publish to {subject} at {server}: build it with `--features nats`"
        ))
        .into()),
    }
}

fn hand_over(args: &ExportArgs, dir: &Path, outlet: &mut dyn Outlet) -> anyhow::Result<Outcome> {
    let stored = args.cursor.as_deref().map(Cursor::load).transpose()?.flatten();
    let mut follower = Follower::new(dir, stored);
    let (mut exporter, mut notes, mut told) = (Exporter::new(args.format), Notes::default(), 0);
    let mut any = false;
    loop {
        let lines = follower.next(usize::from(args.batch))?;
        let Some(last) = lines.last().map(|(line, _, _)| Cursor::at(line)) else {
            follower.check_cursor()?;
            if args.follow {
                std::thread::sleep(IDLE);
                continue;
            }
            tell_left_out(exporter.corrections_left_out());
            if !any {
                eprintln!("kvmeter: no line in {}", dir.display());
                return Ok(Outcome::Negative);
            }
            return Ok(if notes.faults_total == 0 { Outcome::Done } else { Outcome::Negative });
        };
        any = true;
        let mut events = Vec::new();
        let new = lines.iter().any(|(_, _, new)| *new);
        for (line, bytes, new) in &lines {
            let mut made = exporter.accept(line, bytes, &mut notes);
            if *new {
                events.append(&mut made);
            }
        }
        for fault in notes.faults.iter().skip(told) {
            eprintln!("kvmeter: fault: {fault}");
        }
        told = notes.faults.len();
        if new {
            outlet.hand(&events).context("what is not handed over stays with the ledger")?;
            if let Some(path) = &args.cursor {
                last.store(path)?;
            }
            if let Some(reader) = &args.reader {
                acknowledge(dir, reader, last.seq)?;
            }
        }
    }
}

/// A receiver's address.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Address {
    Http(Uri),
    /// The server alone, and a subject of a JetStream stream.
    Nats {
        server: String,
        subject: String,
    },
}

fn address(text: &str) -> Result<Address, String> {
    let uri: Uri = text.parse().map_err(|_| "this is no address".to_owned())?;
    match (uri.scheme_str(), uri.authority()) {
        (Some("http"), Some(_)) => Ok(Address::Http(uri)),
        (Some("https"), _) => Err("kvmeter speaks no TLS; name a proxy that does, by http".to_owned()),
        (Some(scheme @ ("nats" | "tls")), Some(authority)) if !authority.as_str().contains('@') => {
            let subject = uri.path().trim_start_matches('/');
            let plain = |token: &str| !token.is_empty() && !token.contains(['*', '>', '/']);
            if !subject.split('.').all(plain) || uri.query().is_some() {
                return Err(
                    "the subject is missing, or none to publish to: nats://host[:port]/subject.of.a.stream".to_owned()
                );
            }
            Ok(Address::Nats { server: format!("{scheme}://{authority}"), subject: subject.to_owned() })
        }
        (Some("nats" | "tls"), Some(_)) => {
            Err("a secret in an address is seen by all; name a file with --credentials".to_owned())
        }
        _ => Err("this is not of the form http://host[:port]/path or nats://host[:port]/subject".to_owned()),
    }
}

fn tell_left_out(corrections: u64) {
    if corrections > 0 {
        eprintln!("kvmeter: {corrections} corrections are left out: this form has no word for them");
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_address_is_plain_http_or_refused_at_once() {
        assert!(super::address("http://127.0.0.1:8080/in?x=1").is_ok() && super::address("http://[::1]/").is_ok());
        for wrong in ["https://x/", "x", "/x", "http://", "ftp://x"] {
            assert!(super::address(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_address_of_nats_names_a_subject_to_publish_to_and_no_secret() {
        let (server, subject) = ("nats://n1:4222".to_owned(), "meter.host-1".to_owned());
        assert_eq!(super::address("nats://n1:4222/meter.host-1"), Ok(super::Address::Nats { server, subject }));
        for wrong in ["nats://n1", "nats://n1/", "nats://n1/a.>", "nats://n1/a..b", "nats://u:p@n1/a", "nats://n1/a/b"]
        {
            assert!(super::address(wrong).is_err(), "{wrong}");
        }
    }
}
