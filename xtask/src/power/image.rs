//! The file system on a disk: made, and read back after a cut by ext4's own tools, which replay its journal and prove it,
//! as the kernel does when it mounts it. Nothing is mounted here, so that this takes no root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::workspace::{on_path, shown};

/// Room for a ledger of some 200 KiB and a journal, and quick to copy.
const DISK_BYTES: u64 = 24 << 20;
/// Where the machine keeps its ledger, as seen from the disk.
const METERING: &str = "kvmeter/metering";

/// A new ext4 file system with the defaults of the tools, but a small journal.
pub(crate) fn make(home: &Path) -> Result<Vec<u8>> {
    let path = home.join("new.img");
    let sparse = fs::File::create(&path).and_then(|file| file.set_len(DISK_BYTES));
    sparse.with_context(|| format!("cannot make {}", path.display()))?;
    let mut command = tool("mkfs.ext4")?;
    command.args(["-q", "-F", "-b", "4096", "-J", "size=4"]).arg(&path);
    succeed(&mut command, &[0])?;
    fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// What the machine left in its metering directory, copied below `home`; none where there is no such directory yet.
pub(crate) fn metering(home: &Path, image: &[u8]) -> Result<Option<PathBuf>> {
    let (path, copy) = (home.join("cut.img"), home.join("metering"));
    fs::write(&path, image).with_context(|| format!("cannot write {}", path.display()))?;
    if copy.exists() {
        fs::remove_dir_all(&copy).with_context(|| format!("cannot remove {}", copy.display()))?;
    }
    // 1: what an orderly replay leaves to be put right, such as counts of free blocks. More than that is damage.
    succeed(tool("e2fsck")?.args(["-f", "-p"]).arg(&path), &[0, 1]).context("the file system is damaged")?;
    let mut command = tool("debugfs")?;
    command.arg("-R").arg(format!("rdump {METERING} {}", home.display())).arg(&path);
    succeed(&mut command, &[0])?;
    if !copy.is_dir() {
        return Ok(None);
    }
    relink(&copy)?;
    Ok(Some(copy))
}

/// A rotation under way has given the live file a second name, and the copying made it two files. They are one again if
/// they have the same bytes: two ledger files never do, for no line comes twice.
fn relink(copy: &Path) -> Result<()> {
    let live = copy.join(super::verdict::LIVE);
    let Ok(bytes) = fs::read(&live) else { return Ok(()) };
    for path in super::verdict::rotated(copy)? {
        if !bytes.is_empty() && fs::read(&path).is_ok_and(|other| other == bytes) {
            fs::remove_file(&path).and_then(|()| fs::hard_link(&live, &path)).context("cannot link a copy again")?;
        }
    }
    Ok(())
}

fn tool(name: &str) -> Result<Command> {
    Ok(Command::new(on_path(name).with_context(|| format!("no {name}: install e2fsprogs"))?))
}

/// Runs it quietly; an error with its words unless it ends with one of these codes.
fn succeed(command: &mut Command, codes: &[i32]) -> Result<()> {
    let ran = command.output().with_context(|| format!("cannot run {}", shown(command)))?;
    if !ran.status.code().is_some_and(|code| codes.contains(&code)) {
        let said = [ran.stdout, ran.stderr].concat();
        bail!("{} ended with {}:\n{}", shown(command), ran.status, String::from_utf8_lossy(&said).trim());
    }
    Ok(())
}
