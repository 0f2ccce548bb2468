//! Control groups, mostly of version 1, as truth: what their tasks used, dead ones included, and how long a quota held them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

/// A control group of this test process's own, removed when dropped.
#[derive(Debug)]
pub struct Group(PathBuf);

impl Group {
    /// One that counts CPU time; `None` where that cannot be.
    #[must_use]
    pub fn cpuacct(name: &str) -> Option<Self> {
        Self::new("cpuacct", "cpuacct.usage", name)
    }

    /// One whose CPU time can be limited; `None` where that cannot be.
    #[must_use]
    pub fn cpu(name: &str) -> Option<Self> {
        Self::new("cpu", "cpu.cfs_quota_us", name)
    }

    /// One of version 2, for sockets; `None` where that cannot be.
    #[must_use]
    pub fn unified(name: &str) -> Option<Self> {
        Self::new("unified", "cgroup.procs", name)
    }

    /// One that counts block I/O; `None` where that cannot be.
    #[must_use]
    pub fn blkio(name: &str) -> Option<Self> {
        Self::new("blkio", "blkio.throttle.io_service_bytes", name)
    }

    /// One that counts memory; `None` where that cannot be.
    #[must_use]
    pub fn memory(name: &str) -> Option<Self> {
        Self::new("memory", "memory.usage_in_bytes", name)
    }

    /// Lets its processes have so much memory, swap included where that is counted.
    pub fn limit_memory(&self, bytes: u64) -> Result<()> {
        self.write("memory.limit_in_bytes", &bytes.to_string())?;
        let both = self.0.join("memory.memsw.limit_in_bytes");
        if both.exists() { self.write("memory.memsw.limit_in_bytes", &bytes.to_string()) } else { Ok(()) }
    }

    /// Bytes charged here.
    pub fn memory_bytes(&self) -> Result<u64> {
        Ok(std::fs::read_to_string(self.0.join("memory.usage_in_bytes"))?.trim().parse()?)
    }

    fn new(controller: &str, needs: &str, name: &str) -> Option<Self> {
        let path = Path::new("/sys/fs/cgroup").join(controller).join(format!("kvmeter-{name}-{}", std::process::id()));
        (std::fs::create_dir(&path).is_ok()).then_some(Self(path)).filter(|group| group.0.join(needs).exists())
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.0
    }

    /// Moves a process here.
    pub fn add(&self, pid: i32) -> Result<()> {
        self.write("cgroup.procs", &pid.to_string())
    }

    /// Lets it use so many percent of one CPU.
    pub fn limit(&self, percent: u32) -> Result<()> {
        self.write("cpu.cfs_period_us", "50000")?;
        self.write("cpu.cfs_quota_us", &(500 * percent).to_string())
    }

    /// Has the scheduler prefer it to all other groups, about 250 to 1.
    pub fn favour(&self) -> Result<()> {
        self.write("cpu.shares", "262144")
    }

    /// CPU time used here.
    pub fn cpu_ns(&self) -> Result<u64> {
        Ok(std::fs::read_to_string(self.0.join("cpuacct.usage"))?.trim().parse()?)
    }

    /// How long the quota has held it, added up over CPUs.
    pub fn throttled_ns(&self) -> Result<u64> {
        let text = std::fs::read_to_string(self.0.join("cpu.stat"))?;
        let value = text.lines().find_map(|line| line.strip_prefix("throttled_time "));
        Ok(value.context("no throttled_time")?.parse()?)
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.0.join(file);
        std::fs::write(&path, text).with_context(|| format!("cannot write {text} to {}", path.display()))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Its last task may still be on its way out.
        for _ in 0..100 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
