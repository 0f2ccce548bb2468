//! What it takes to keep the history on a disk, and how soon an agent that comes back answers with all of it.

use std::{fs::File, hint::black_box, path::Path, time::Instant};

use anyhow::{Context as _, Result, ensure};
use kvmeter::{
    account::past::{Past as _, Range},
    clock::Instant2,
    history::{Bounds, Disk, Limits, Store},
};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use tempfile::TempDir;

use super::{
    options::Options,
    spread::Spread,
    table::{Goal, Row},
};

/// Saves an hour, by default.
const SAVES: u64 = 12;
const MIB: f64 = 1_048_576.0;
/// More than any of it takes.
const BOUNDS: Bounds = Bounds { max_memory: 1 << 30, min_free: 0 };

/// A store that is full, and how it goes on.
pub struct Filled<'a> {
    /// The store; its VMs are `vm-0` and so on.
    pub store: &'a Store,
    /// How much it may keep.
    pub limits: Limits,
    /// When the next sample is due, seconds since the epoch.
    pub next_s: u64,
    /// Seconds between two samples.
    pub step_s: u64,
    /// Adds a sample of each VM, taken at this second.
    pub push: &'a mut dyn FnMut(u64),
}

/// Measures it; `what` names a row.
pub fn rows(options: &Options, filled: Filled<'_>, what: &dyn Fn(&str) -> String) -> Result<Vec<Row>> {
    let Filled { store, limits, mut next_s, step_s, push } = filled;
    // On a disk: a tmpfs has no files that are not in memory.
    let dir = TempDir::new_in("/var/tmp")?;
    let (mut disk, _) = Disk::open(dir.path(), BOUNDS)?;
    let at = |second: u64| Instant2 { boot_ns: second * 1_000_000_000, unix_ns: second * 1_000_000_000 };
    disk.save(store, at(next_s))?;
    let (before, mut saves) = (disk.written(), Vec::new());
    for _ in 0..SAVES {
        for _ in 0..3_600 / SAVES / step_s {
            push(next_s);
            next_s += step_s;
        }
        let begun = Instant::now();
        disk.save(store, at(next_s))?;
        saves.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    let (written, bytes) = (disk.written() - before, disk.bytes());
    drop(disk);
    let end_ms = next_s * 1_000;
    let range = Range::new(end_ms.saturating_sub(604_800_000), end_ms, None, step_s * 1_000)?;
    let due = store.range("vm-7", &range).context("a VM of the bench")?;
    let restart = |cold: bool| -> Result<Option<Spread>> {
        let mut values = Vec::new();
        for _ in 0..options.reads().min(5) {
            if cold {
                forget(dir.path())?;
            }
            let begun = Instant::now();
            let (disk, read) = Disk::open(dir.path(), BOUNDS)?;
            let next = Store::new(limits);
            next.restore(read.lines);
            next.settle(std::iter::empty(), at(next_s), u64::MAX);
            let told = black_box(next.range("vm-7", &range).context("a VM of the bench")?);
            values.push(begun.elapsed().as_secs_f64() * 1e3);
            ensure!(told == due && read.damaged == 0, "another answer than before the restart");
            ensure!(next.kept().lines == store.kept().lines && next.kept().evicted == 0, "lines are missing");
            drop(disk);
        }
        Ok(Spread::of(&values))
    };
    let judge = |row: Row| if options.quick { row } else { row.goal(Goal::AtMost(1_000.0)) };
    Ok(vec![
        judge(Row::new(what("restart to the first answer, files not in memory"), "ms", restart(true)?))
            .note("all is read, and a week of one VM answered; the same as before the restart"),
        judge(Row::new(what("the same, files in memory"), "ms", restart(false)?)),
        Row::single(what("bytes on disk"), "MiB", bytes as f64 / MIB),
        Row::single(what("written in an hour"), "MiB", written as f64 / MIB).note("a save every five minutes"),
        Row::new(what("a save"), "ms", Spread::of(&saves)).note("on a thread of its own; the disk's time is in it"),
    ])
}

/// Has the kernel forget what it holds of files in memory.
fn forget(dir: &Path) -> Result<()> {
    for file in std::fs::read_dir(dir)? {
        let file = File::open(file?.path())?;
        file.sync_all()?;
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    }
    Ok(())
}
