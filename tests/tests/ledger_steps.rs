//! Law: whatever system call of write, rotation, manifest and removal a writer dies at, and whichever of them fails, no
//! durable line is lost or there twice, and the next writer goes on.
//!
//! The writer is the agent's own journal in a process of its own, killed and failed by strace at each call in turn.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Output},
};

use anyhow::{Context as _, Result, ensure};
use kvmeter::ledger::{Listing, verify_dir};
use kvmeter_tests::skip::{installed, skipped};
use serde_json::Value;
use tempfile::TempDir;

/// The calls that touch files, directories and their names.
const CALLS: &str = "?open,openat,write,pwrite64,fsync,fdatasync,ftruncate,?rename,?renameat,renameat2,?link,linkat,\
                     ?unlink,unlinkat,?mkdir,mkdirat,flock,read,pread64,lseek,getdents64,close,statx,fstat";
/// Those that change something, or on which something that changes hangs.
const FAILING: [&str; 12] = [
    "openat",
    "write",
    "fsync",
    "fdatasync",
    "ftruncate",
    "rename",
    "link",
    "linkat",
    "unlink",
    "statx",
    "pread64",
    "getdents64",
];
const PROGRAM: &str = env!("CARGO_BIN_EXE_kvmeter-ledgercycle");
/// What a cycle writes.
const LEDGER: &str = "metering";
/// What it was told to be durable.
const ACKS: &str = "acks";

fn run(dir: &Path, acks: &Path, remove: bool, strace: &[String]) -> Result<Output> {
    let mut command = match strace {
        [] => Command::new(PROGRAM),
        _ => {
            let mut command = Command::new("strace");
            command.args(strace).arg(PROGRAM);
            command
        }
    };
    Ok(command.arg(dir).arg(acks).args(remove.then_some("remove")).output()?)
}

/// A file system in memory where there is one: thousands of syncs.
fn room() -> Result<TempDir> {
    Ok(tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())?)
}

/// The calls of an undisturbed cycle on top of an earlier one, in order: the name of each, and the how manieth of its
/// name it is in the process, which is how strace counts.
fn calls(remove: bool) -> Result<Vec<(String, usize)>> {
    let root = room()?;
    let (dir, acks, log) = (root.path().join(LEDGER), root.path().join(ACKS), root.path().join("log"));
    ensure!(run(&dir, &acks, remove, &[])?.status.success(), "the first cycle");
    let args = ["-qq", "-o", log.to_str().context("a path")?, "-e", &format!("trace={CALLS}")].map(str::to_owned);
    let output = run(&dir, &acks, remove, &args)?;
    ensure!(output.status.success(), "strace: {}", String::from_utf8_lossy(&output.stderr));
    let text = fs::read_to_string(log)?;
    let lines: Vec<&str> = text.lines().filter(|line| line.contains('(')).collect();
    let mark = |name: &str| lines.iter().position(|line| line.contains(name)).context("no mark");
    let (begin, end) = (mark("/cycle-begins")?, mark("/cycle-ends")?);
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut calls = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let name = line.split('(').next().unwrap_or_default();
        let count = counts.entry(name).or_default();
        *count += 1;
        if begin < at && at < end {
            calls.push((name.to_owned(), *count));
        }
    }
    Ok(calls)
}

/// What was told to be durable, by number.
fn told(acks: &Path) -> Result<BTreeMap<u64, String>> {
    let text = fs::read_to_string(acks)?;
    let told = text.lines().map(|line| {
        let (seq, id) = line.split_once(' ').context("no acknowledgement")?;
        Ok((seq.parse()?, id.to_owned()))
    });
    told.collect()
}

/// Holds a ledger against what was told of it, once it is closed in order by another cycle.
fn check(dir: &Path, acks: &Path, remove: bool, what: &str) -> Result<()> {
    let before = told(acks)?;
    let output = run(dir, acks, remove, &[])?;
    ensure!(output.status.success(), "{what}: the next cycle: {}", String::from_utf8_lossy(&output.stderr));
    let report = verify_dir(dir);
    ensure!(report.exit_code() == 0, "{what}: {report}");
    let mut found = BTreeMap::new();
    Listing::of(dir)?.each(|path, _| -> Result<()> {
        for line in fs::read_to_string(path)?.lines() {
            let line: Value = serde_json::from_str(line)?;
            let seq = line["seq"].as_u64().context("no seq")?;
            let id = line["id"].as_str().context("no id")?.to_owned();
            ensure!(found.insert(seq, id).is_none(), "{what}: line {seq} is there twice");
        }
        Ok(())
    })?;
    let first = found.keys().next().copied().context("no line")?;
    ensure!(remove || first == 1, "{what}: begins with {first}");
    ensure!(found.keys().copied().eq(first..first + found.len() as u64), "{what}: a hole");
    for (seq, id) in told(acks)?.range(first..) {
        ensure!(found.get(seq) == Some(id), "{what}: line {seq} was durable");
    }
    ensure!(before.keys().all(|seq| *seq < first || found.contains_key(seq)), "{what}");
    let names = fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let left: Vec<String> = names.collect::<Result<_>>()?;
    ensure!(!left.iter().any(|name| name.ends_with(".new")), "{what}: {left:?}");
    Ok(())
}

/// What an earlier cycle left, to disturb one on top of it as often as it takes.
fn earlier(remove: bool) -> Result<TempDir> {
    let root = room()?;
    let output = run(&root.path().join(LEDGER), &root.path().join(ACKS), remove, &[])?;
    ensure!(output.status.success(), "the first cycle: {}", String::from_utf8_lossy(&output.stderr));
    Ok(root)
}

/// Disturbs a cycle on top of a copy of an earlier one.
fn disturbed(earlier: &TempDir, remove: bool, inject: &str, what: &str) -> Result<bool> {
    let root = room()?;
    let (dir, acks) = (root.path().join(LEDGER), root.path().join(ACKS));
    let copied = Command::new("cp").arg("-a").arg(earlier.path().join(".")).arg(root.path()).status()?;
    ensure!(copied.success() && acks.exists(), "{what}: no copy of the earlier cycle");
    let trace = inject.split(':').next().unwrap_or_default();
    let args = ["-qq", "-o", "/dev/null", "-e", &format!("trace={trace}"), "-e", &format!("inject={inject}")];
    let output = run(&dir, &acks, remove, &args.map(str::to_owned))?;
    check(&dir, &acks, remove, what)?;
    Ok(output.status.success())
}

#[test]
fn a_writer_killed_at_any_system_call_loses_nothing_and_writes_nothing_twice() -> Result<()> {
    if !installed("strace") {
        skipped("a_writer_killed_at_any_system_call_loses_nothing_and_writes_nothing_twice", "needs strace");
        return Ok(());
    }
    for remove in [false, true] {
        let (calls, earlier) = (calls(remove)?, earlier(remove)?);
        for name in ["fdatasync", "fsync", "rename", "unlink"] {
            ensure!(calls.iter().any(|(call, _)| call == name), "the cycle does not come to {name}: {calls:?}");
        }
        for (name, nth) in &calls {
            let what = format!("killed at {name} number {nth}, removing: {remove}");
            let ended = disturbed(&earlier, remove, &format!("{name}:signal=KILL:when={nth}"), &what)?;
            ensure!(!ended, "{what}: it was not killed");
        }
        eprintln!("killed at each of {} calls, removing: {remove}", calls.len());
    }
    Ok(())
}

#[test]
fn a_system_call_that_fails_loses_nothing_whether_once_or_from_then_on() -> Result<()> {
    if !installed("strace") {
        skipped("a_system_call_that_fails_loses_nothing_whether_once_or_from_then_on", "needs strace");
        return Ok(());
    }
    let (calls, earlier) = (calls(true)?, earlier(true)?);
    let failing = calls.iter().filter(|(name, _)| FAILING.contains(&name.as_str()));
    let cases: Vec<(String, &str, String)> = failing
        .flat_map(|call| [("EIO", ""), ("ENOSPC", ""), ("EINTR", ""), ("EIO", "+")].map(|how| (call, how)))
        .filter(|((_, nth), (_, more))| more.is_empty() || nth % 4 == 0)
        .map(|((name, nth), (error, more))| (name.clone(), error, format!("{nth}{more}")))
        .collect();
    let tried = cases.len();
    let some = |cases: &[(String, &str, String)]| {
        cases.iter().try_for_each(|(name, error, when)| {
            let what = format!("{name} number {when} fails with {error}");
            disturbed(&earlier, true, &format!("{name}:error={error}:when={when}"), &what).map(drop)
        })
    };
    // Hardly anything but new processes, so on both CPUs of the least of machines.
    std::thread::scope(|scope| {
        let (one, other) = cases.split_at(tried / 2);
        let other = scope.spawn(move || some(other));
        some(one).and(other.join().expect("the other half panicked"))
    })?;
    eprintln!("{tried} failures");
    ensure!(tried > 100, "only {tried} failures");
    Ok(())
}
