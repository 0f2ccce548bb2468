//! Facts about this host that decide what can be measured and that every ledger line names.
//!
//! Gathered once at start and for `doctor`; a fact that cannot be read is `None` and its reason stands in `errors`.
//! Nothing is decided here.

mod capability;

use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{file, schedstat};
use crate::units::Bytes;

pub use capability::Capability;

/// The inode of the initial pid namespace (PROC_PID_INIT_INO).
const INIT_PID_NAMESPACE: &[u8] = b"pid:[4026531836]";
/// The key of the clock tick in the auxiliary vector.
const AT_CLKTCK: u64 = 17;

/// A file that something depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Presence {
    /// Whether it exists.
    pub exists: bool,
    /// Whether this process may read it.
    pub readable: bool,
    /// Why not, in the system's words.
    pub error: Option<String>,
}

/// What this host is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: Option<String>,
    /// `/etc/machine-id`, else the firmware's product UUID without dashes, else `unknown`.
    pub machine_id: String,
    /// CPUs that are online.
    pub online_cpus: Option<u32>,
    /// `MemTotal` of `/proc/meminfo`.
    pub mem_total: Option<Bytes>,
    /// `/proc/sys/kernel/pid_max`.
    pub pid_max: Option<u32>,
    /// Clock ticks a second (USER_HZ), the unit of times in `/proc/<pid>/stat`.
    pub clock_ticks: Option<u64>,
    /// `/proc/sys/kernel/osrelease`.
    pub kernel_release: Option<String>,
    /// Whether our pids are those of the kernel; `None` if unknown.
    pub init_pid_namespace: Option<bool>,
    /// Effective user id of this process.
    pub euid: u32,
    /// Whether the kernel accounts run time and run delay a thread. Without CONFIG_SCHED_INFO the file says `0 0 0`; our
    /// own always has a third number, its time slices, while the first stays 0 up to the first scheduler tick.
    pub schedstat: bool,
    /// Whether the kernel accounts storage I/O to processes (CONFIG_TASK_IO_ACCOUNTING).
    pub task_io: bool,
    /// Whether a hierarchy of control groups of version 2 is mounted.
    pub cgroup2: bool,
    /// Effective capabilities, bit by bit (`CapEff`).
    pub capabilities: u64,
    /// The KVM device.
    pub kvm: Presence,
    /// KVM's back ends: modules, loaded or built in, whose name begins with `kvm_`.
    pub kvm_backends: Vec<String>,
    /// The kernel's type information, which BPF programs need.
    pub btf: Presence,
    /// What could not be read and why.
    pub errors: Vec<String>,
}

impl HostFacts {
    /// Reads all facts below `root`, `/` on a real host. Never fails: see `errors`.
    #[must_use]
    pub fn gather(root: &Path) -> Self {
        let mut read = Reader { root, errors: Vec::new() };
        let boot_id = read.text("proc/sys/kernel/random/boot_id", |text| Some(text.to_owned()));
        let pid_max = read.text("proc/sys/kernel/pid_max", |text| text.parse().ok());
        let kernel_release = read.text("proc/sys/kernel/osrelease", |text| Some(text.to_owned()));
        let online_cpus = read.text("sys/devices/system/cpu/online", count_cpus);
        let mem_total = read.text("proc/meminfo", mem_total);
        let capabilities = read.text("proc/self/status", effective_capabilities).unwrap_or(0);
        let schedstat = file::bytes(&root.join("proc/self/schedstat"), 64)
            .is_ok_and(|(line, _)| schedstat::parse(&line).is_some() && line.trim_ascii() != b"0 0 0");
        Self {
            boot_id,
            machine_id: machine_id(root),
            online_cpus,
            mem_total,
            pid_max,
            clock_ticks: read.clock_ticks(),
            kernel_release,
            init_pid_namespace: read.init_pid_namespace(),
            euid: nix::unistd::geteuid().as_raw(),
            schedstat,
            task_io: root.join("proc/self/io").exists(),
            cgroup2: ["", "unified"].iter().any(|at| {
                let mount = root.join("sys/fs/cgroup").join(at);
                mount.join("cgroup.controllers").exists()
            }),
            capabilities,
            kvm: presence(&root.join("dev/kvm")),
            kvm_backends: backends(&root.join("sys/module")),
            btf: presence(&root.join("sys/kernel/btf/vmlinux")),
            errors: read.errors,
        }
    }

    /// Whether this process has a capability in effect.
    #[must_use]
    pub fn has(&self, capability: Capability) -> bool {
        self.capabilities & capability.mask() != 0
    }

    /// Whether file descriptors and command lines of other users' processes can be read (`ptrace_may_access`).
    #[must_use]
    pub fn sees_other_processes(&self) -> bool {
        self.has(Capability::SysPtrace) && self.has(Capability::DacReadSearch)
    }

    /// Nanoseconds of one clock tick; `None` if the tick is unknown.
    #[must_use]
    pub fn tick_ns(&self) -> Option<u64> {
        self.clock_ticks.and_then(|per_second| 1_000_000_000u64.checked_div(per_second))
    }
}

/// Names below `/sys/module` that begin with `kvm_`; none where it cannot be listed.
fn backends(modules: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(modules).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut backends: Vec<_> = names.filter(|name| name.starts_with("kvm_")).collect();
    backends.sort();
    backends
}

/// Reads below a root and keeps the reasons of what failed.
struct Reader<'a> {
    root: &'a Path,
    errors: Vec<String>,
}

impl Reader<'_> {
    fn text<T>(&mut self, path: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        match file::text(&self.root.join(path)) {
            Ok(text) => {
                let value = parse(&text);
                if value.is_none() {
                    self.errors.push(format!("/{path} has an unexpected content"));
                }
                value
            }
            Err(error) => {
                self.errors.push(format!("cannot read /{path}: {error}"));
                None
            }
        }
    }

    fn clock_ticks(&mut self) -> Option<u64> {
        let ticks = file::bytes(&self.root.join("proc/self/auxv"), 8192).ok().and_then(|(raw, _)| auxiliary(&raw));
        if ticks.is_none() {
            self.errors.push("/proc/self/auxv does not tell the clock tick".to_owned());
        }
        ticks
    }

    fn init_pid_namespace(&mut self) -> Option<bool> {
        match std::fs::read_link(self.root.join("proc/self/ns/pid")) {
            Ok(target) => Some(target.as_os_str().as_bytes() == INIT_PID_NAMESPACE),
            Err(error) => {
                self.errors.push(format!("cannot read /proc/self/ns/pid: {error}"));
                None
            }
        }
    }
}

/// The machine's id; containers and images without one fall back to the firmware's, which survives a reinstallation.
fn machine_id(root: &Path) -> String {
    let hex = |text: String| {
        let id: String = text.chars().filter(|c| *c != '-').collect::<String>().to_ascii_lowercase();
        (id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())).then_some(id)
    };
    ["etc/machine-id", "sys/class/dmi/id/product_uuid"]
        .iter()
        .find_map(|path| file::text(&root.join(path)).ok().and_then(hex))
        .unwrap_or_else(|| "unknown".to_owned())
}

fn presence(path: &Path) -> Presence {
    let exists = path.exists();
    match File::open(path) {
        Ok(_) => Presence { exists: true, readable: true, error: None },
        Err(error) => Presence { exists, readable: false, error: Some(error.to_string()) },
    }
}

/// CPUs in a list such as `0-3,5`.
fn count_cpus(list: &str) -> Option<u32> {
    list.split(',').try_fold(0u32, |total, range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        total.checked_add(last.checked_sub(first)?.checked_add(1)?)
    })
}

fn mem_total(meminfo: &str) -> Option<Bytes> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024).map(Bytes)
}

fn effective_capabilities(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// The clock tick in an auxiliary vector: pairs of native words.
fn auxiliary(raw: &[u8]) -> Option<u64> {
    let word = |bytes: &[u8]| bytes.try_into().ok().map(usize::from_ne_bytes).and_then(|word| u64::try_from(word).ok());
    raw.chunks_exact(2 * size_of::<usize>()).find_map(|pair| {
        let (key, value) = pair.split_at(size_of::<usize>());
        if word(key) == Some(AT_CLKTCK) { word(value).filter(|ticks| *ticks > 0) } else { None }
    })
}

#[cfg(test)]
mod tests;
