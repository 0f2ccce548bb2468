//! Process 1 of the emulated machine: mounts, modules, the checks, the parcel of results, power off.
//!
//! It never returns: without a process 1 the kernel panics, which ends the machine as well, but without results.

use std::{
    fs::File,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};
use nix::{
    kmod::{ModuleInitFlags, finit_module},
    mount::{MsFlags, mount},
    sys::{
        reboot::{RebootMode, reboot},
        wait::wait,
    },
};

use super::{parcel, power};

/// Modules in the order of their insertion, one file name a line.
const MODULES: &str = "/modules/order";
/// The only disk; results go there.
const DISK: &str = "/dev/vda";
/// Where the checks leave what is to be kept.
const RESULTS: &str = "/tmp/results";
const TYPES: &str = "/sys/kernel/btf/vmlinux";

const MOUNTS: [(&str, &str); 8] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("tmpfs", "/tmp"),
    ("tmpfs", "/run"),
    ("tracefs", "/sys/kernel/tracing"),
    ("bpf", "/sys/fs/bpf"),
    ("cgroup2", "/sys/fs/cgroup"),
];

/// Everything, to the end of the machine.
pub fn run() -> Result<()> {
    let outcome = work();
    if let Err(error) = &outcome {
        println!("kernelcheck: {error:#}");
    }
    reboot(RebootMode::RB_POWER_OFF).context("cannot power off")?;
    outcome
}

fn work() -> Result<()> {
    for (kind, at) in MOUNTS {
        std::fs::create_dir_all(at)?;
        mount(Some(kind), at, Some(kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("cannot mount {kind} at {at}"))?;
    }
    for name in std::fs::read_to_string(MODULES).context(MODULES)?.lines() {
        if let Err(error) = insert(name) {
            println!("kernelcheck: module {name}: {error:#}");
        }
    }
    // The loopback interface is down in a new machine, and the agent listens there.
    std::fs::write("/sys/class/net/lo/flags", "0x9").context("no loopback interface")?;
    if let Some(order) = power::Order::of(&std::fs::read_to_string("/proc/cmdline")?) {
        return order.carry_out();
    }
    std::fs::create_dir_all(RESULTS)?;
    checks()?;
    let results = std::fs::read_dir(RESULTS)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    let mut disk = File::options().write(true).open(DISK).with_context(|| format!("no disk {DISK}"))?;
    for path in results.iter().map(std::path::PathBuf::as_path).chain([Path::new(TYPES)]) {
        parcel::write(&mut disk, path).with_context(|| format!("cannot write {}", path.display()))?;
    }
    disk.sync_all().context("cannot write the results")
}

fn insert(name: &str) -> Result<()> {
    let file = File::open(Path::new("/modules").join(name))?;
    Ok(finit_module(&file, c"", ModuleInitFlags::empty())?)
}

/// Runs the checks in a process of their own, and reaps whatever else ends until they have.
fn checks() -> Result<()> {
    let mut command = Command::new("/proc/self/exe");
    command.arg(RESULTS).env_clear().env("PATH", "/bin").stdin(Stdio::null());
    command.env("KVMETER_EMULATED", "1");
    command.env("KVMETER_BIN", "/bin/kvmeter").env("KVMETER_TESTVM", "/bin/kvmeter-testvm");
    let child = command.spawn().context("cannot start the checks")?;
    let pid = child.id().cast_signed();
    while wait().context("nothing to wait for")?.pid().is_none_or(|ended| ended.as_raw() != pid) {}
    Ok(())
}
