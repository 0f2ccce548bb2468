//! Saying why a test cannot run here, where CI counts it.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    process::{Command, Stdio},
};

use nix::fcntl::{Flock, FlockArg};

/// Notes that a test is skipped, on standard error and in the file `KVMETER_SKIP_LOG` names.
pub fn skipped(test: &str, why: &str) {
    eprintln!("SKIPPED {test}: {why}");
    if let Some(path) = std::env::var_os("KVMETER_SKIP_LOG")
        && let Ok(mut log) = OpenOptions::new().create(true).append(true).open(path)
    {
        let _ = writeln!(log, "SKIPPED {test}: {why}");
    }
}

/// Whether a program is installed.
#[must_use]
pub fn installed(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success())
}

/// This host, for one test at a time: an agent sees every VM there is, also another test's.
#[derive(Debug)]
pub struct Host(#[expect(dead_code, reason = "held for its lock")] Flock<File>);

/// What every test with real VMs needs; else says why it is skipped.
#[must_use]
pub fn host(test: &str) -> Option<Host> {
    let why = if !nix::unistd::geteuid().is_root() {
        "needs root, to load kernel programs".to_owned()
    } else if OpenOptions::new().read(true).write(true).open("/dev/kvm").is_err() {
        "needs a working /dev/kvm".to_owned()
    } else {
        match lock() {
            Ok(host) => return Some(host),
            Err(error) => format!("the lock of the host cannot be taken: {error}"),
        }
    };
    skipped(test, &why);
    None
}

fn lock() -> std::io::Result<Host> {
    // Not in TMPDIR: two runs with different ones share the host all the same.
    let path = "/tmp/kvmeter-tests.lock";
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
    Flock::lock(file, FlockArg::LockExclusive).map(Host).map_err(|(_, error)| error.into())
}

/// Whether long forms are asked for: `KVMETER_FULL=1 cargo xtask test NAME`.
#[must_use]
pub fn in_full() -> bool {
    std::env::var_os("KVMETER_FULL").is_some()
}
