//! One machine from start to power-off: its first file system, its result disk, its console, its time limit.
//!
//! Two faults of QEMU 7.2 are gone around: its emulation of cx16 breaks 6.12's slab lists in half of the boots, and with a
//! thread for each CPU one of them may run code that the other has patched meanwhile (an int3 in 7.2's scheduler).

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::cpio::Archive;
use super::fetch::Fetched;
use super::parcel::{self, Files};
use super::statics::{self, Program};

/// Emulated, a check takes seconds and a test program up to minutes; with another machine beside it longer.
const SHORT_LIMIT: Duration = Duration::from_secs(600);
const LONG_LIMIT: Duration = Duration::from_secs(1200);
/// Far more than a kernel's types and the logs take; the file is sparse.
const DISK_BYTES: u64 = 256 << 20;
/// How `kvmeter-kernelcheck` begins what the caller wants to see while it waits.
const PROGRESS: &str = "kernelcheck: ";

/// Boots a kernel with the programs and returns the files it left. The console's output stays in `console.log`; what is shown
/// of it is shown as that series'.
pub(crate) fn boot(
    folder: &Path,
    series: &'static str,
    kernel: &Fetched,
    programs: &[Program],
    short: bool,
) -> Result<Files> {
    let (initrd, disk, log) = (folder.join("initrd"), folder.join("disk"), folder.join("console.log"));
    fs::write(&initrd, first_file_system(kernel, programs)?)
        .with_context(|| format!("cannot write {}", initrd.display()))?;
    let sparse = File::create(&disk).and_then(|file| file.set_len(DISK_BYTES));
    sparse.with_context(|| format!("cannot make {}", disk.display()))?;
    let mut machine = machine(kernel, &initrd, &disk).spawn().context("cannot run qemu-system-x86_64")?;
    let console = machine.stdout.take().context("the machine has no console")?;
    let copy = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let reader = thread::spawn(move || follow(series, console, copy));
    let ended = wait(&mut machine, if short { SHORT_LIMIT } else { LONG_LIMIT });
    let followed = reader.join().unwrap_or_else(|_panic| bail!("following the console failed"));
    let files = parcel::read(&fs::read(&disk).with_context(|| format!("cannot read {}", disk.display()))?);
    for path in [&initrd, &disk] {
        fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    keep_logs(folder, &files)?;
    ended.and(followed).with_context(|| format!("{}: see {}", kernel.release, log.display()))?;
    if files.is_empty() {
        bail!("{} left no results: see {}", kernel.release, log.display());
    }
    Ok(files)
}

fn machine(kernel: &Fetched, initrd: &Path, disk: &Path) -> Command {
    let mut command = emulator(kernel, initrd, "");
    command.arg("-drive").arg(format!("file={},format=raw,if=virtio,cache=unsafe", disk.display()));
    command
}

/// A machine without a disk, whose console is its standard output; `words` are added to the kernel's command line.
pub(crate) fn emulator(kernel: &Fetched, initrd: &Path, words: &str) -> Command {
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot"]);
    command.args(["-accel", "tcg,thread=single", "-cpu", "max,-cx16", "-smp", "2", "-m", "2048"]);
    command.arg("-append").arg(format!("console=ttyS0 quiet panic=-1 {words}")).arg("-kernel").arg(&kernel.image);
    command.arg("-initrd").arg(initrd).stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// An own `init`, its programs and the modules; the kernel opens `/dev/console` before anything is mounted.
pub(crate) fn first_file_system(kernel: &Fetched, programs: &[Program]) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    archive.directory("dev");
    archive.device("dev/console", 5, 1);
    statics::add(&mut archive, programs)?;
    archive.directory("modules");
    for module in &kernel.modules {
        archive.file(&format!("modules/{}", module.name), &module.bytes);
    }
    let order: String = kernel.modules.iter().map(|module| format!("{}\n", module.name)).collect();
    archive.file("modules/order", order.as_bytes());
    Ok(archive.finish())
}

fn follow(series: &str, console: ChildStdout, mut copy: File) -> Result<()> {
    for line in BufReader::new(console).split(b'\n') {
        let line = line.context("cannot read the console")?;
        copy.write_all(&line).and_then(|()| copy.write_all(b"\n")).context("cannot keep the console's output")?;
        if let Some(progress) = String::from_utf8_lossy(&line).strip_prefix(PROGRESS) {
            println!("kernels: {series}:   {}", progress.trim_end());
        }
    }
    Ok(())
}

fn wait(machine: &mut Child, limit: Duration) -> Result<()> {
    let end = Instant::now() + limit;
    while Instant::now() < end {
        if let Some(status) = machine.try_wait().context("cannot wait for the machine")? {
            return if status.success() { Ok(()) } else { bail!("the emulator ended with {status}") };
        }
        thread::sleep(Duration::from_millis(100));
    }
    machine.kill().context("cannot end the machine")?;
    machine.wait().context("cannot wait for the machine")?;
    bail!("the machine was not done after {} s", limit.as_secs())
}

/// What a reader of a failure wants; the kernel's types go elsewhere.
fn keep_logs(folder: &Path, files: &Files) -> Result<()> {
    for (name, contents) in files.iter().filter(|(name, _)| name.ends_with(".log") || name.ends_with(".jsonl")) {
        let path = folder.join(name);
        fs::write(&path, contents).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
