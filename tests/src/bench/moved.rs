//! What a sample reads of a VM whose threads ran and whose memory moved, with the agent's own code: files of `/proc`.

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};
use kvmeter::host::disk::TaskIoFile;
use kvmeter::host::{MemoryFiles, ProcFs};
use kvmeter::units::Tgid;

use super::spread::Spread;
use super::table::Row;

/// Readings of all VMs; each takes some ten microseconds a VM.
const ROUNDS: u32 = 21;

/// Rows about these VMs' processes.
pub fn rows(tgids: &[u32]) -> Result<Vec<Row>> {
    let (root, count) = (Path::new("/"), tgids.len());
    let procfs = ProcFs::new(root);
    let (mut memory, mut disks) = (Vec::new(), Vec::new());
    for tgid in tgids {
        let start = procfs.stat(Tgid(*tgid)).context("a VM of the fleet")?.start_ticks;
        memory.push(MemoryFiles::open(&procfs, Tgid(*tgid), start)?);
        disks.push(TaskIoFile::open(root, Tgid(*tgid))?);
    }
    let memory = each(count, || {
        memory.iter_mut().try_for_each(|files| black_box(files.read(&procfs)?).map(drop).context("a VM has ended"))
    })?;
    let disks =
        each(count, || disks.iter().try_for_each(|file| black_box(file.read()?).map(drop).context("a VM has ended")))?;
    let of = |what: &str| format!("reading one VM of {count} that moved: {what}");
    Ok(vec![
        Row::new(of("its memory"), "µs", memory).note("`status` and `stat`, kept open"),
        Row::new(of("its storage I/O"), "µs", disks).note("`io`, kept open"),
    ])
}

/// Microseconds a VM.
fn each(count: usize, mut all: impl FnMut() -> Result<()>) -> Result<Option<Spread>> {
    let mut values = Vec::new();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        all()?;
        values.push(begun.elapsed().as_secs_f64() * 1e6 / count as f64);
    }
    Ok(Spread::of(&values))
}
