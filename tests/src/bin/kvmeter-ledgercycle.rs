//! Writes a ledger with the agent's own code through several rotations, for a test that kills it or lets its system
//! calls fail: `kvmeter-ledgercycle DIR ACKS [remove]`. What is durable is told in ACKS, a number and an id a line.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    path::Path,
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use kvmeter::ledger::{Draft, Journal, Keeping, Kind, Stamp, Subject};

const BOOT: &str = "11111111-2222-3333-4444-555555555555";
const SECOND: u64 = 1_000_000_000;
const T0: u64 = 1_779_238_923 * SECOND;
const TRIES: u64 = 4;
/// Lives written; three lines each, about two to a file.
const LIVES: u64 = 8;

fn at(second: u64) -> Stamp {
    Stamp { unix_ns: T0 + second * SECOND, mono_ns: (100 + second) * SECOND }
}

/// The lines of a life; the last one of a cycle stays open.
fn life(number: u64, second: u64, open: bool) -> Vec<Draft> {
    let kinds = [Kind::VmComputeStart, Kind::VmComputeUsage, Kind::VmComputeStop];
    let make = |kind: Kind| {
        let subject = Subject::Incarnation(format!("111111112222-{number}-1"));
        let now = at(second);
        let mut draft = Draft::new(kind, subject, BOOT, now.unix_ns, now.mono_ns);
        draft.vm_id = format!("vm-{number}");
        draft
    };
    kinds.into_iter().take(if open { 2 } else { 3 }).map(make).collect()
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (Some(dir), Some(acks)) = (args.next(), args.next()) else { return ExitCode::from(2) };
    match cycle(Path::new(&dir), Path::new(&acks), args.next().is_some()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn cycle(dir: &Path, acks: &Path, remove: bool) -> Result<()> {
    let mut acks = OpenOptions::new().append(true).create(true).open(acks)?;
    // Marks in a trace; there is no such file.
    drop(File::open("/cycle-begins"));
    let (mut journal, found) = Journal::open(dir, "0123456789abcdef0123456789abcdef", BOOT, at(0))?;
    let max_total_bytes = remove.then_some(3_000);
    journal.keep(Keeping { max_file_bytes: 2_400, max_total_bytes, ..Keeping::default() })?;
    for number in 0..LIVES {
        let facts = life(found.next_seq * 100 + number, number * 1_000, number + 1 == LIVES);
        let written = (0..TRIES).find_map(|n| journal.append(&facts, at(number * 1_000 + n * 61)).ok());
        let written = written.context("not written")?;
        let told: String = written.iter().map(|line| format!("{} {}\n", line.seq, line.id)).collect();
        acks.write_all(told.as_bytes())?;
        // What fails here is tried again at the next look.
        drop(journal.tend(at(number * 1_000 + 500)));
    }
    drop(journal);
    drop(File::open("/cycle-ends"));
    Ok(())
}
