//! Storms, and what stands beside them: processes that come and go by the hundred thousand, VMs whose CPU time a control
//! group accounts for to the nanosecond, and KVM's own count of the VMs it has made.

use std::{
    io::Read as _,
    os::fd::AsRawFd as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use kvm_ioctls::Kvm;
use nix::{
    sys::{
        signal::{Signal, kill},
        socket::{
            AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket, sockopt,
        },
        time::TimeVal,
    },
    unistd::{Pid, gettid},
};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    cgroup::Group,
    process::wait_zombie,
    tiny,
    vmm::{schedstat, spawn},
};

const PATIENCE: Duration = Duration::from_secs(60);

/// KVM VMs that this host has made since KVM was loaded, by the count the kernel announces with each; the VM that is made to
/// hear it included. Only whoever lost no VM of others meanwhile can tell two of them apart, so nobody else may make any.
pub fn created() -> Result<u64> {
    let wire =
        socket(AddressFamily::Netlink, SockType::Datagram, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkKObjectUEvent)?;
    setsockopt(&wire, sockopt::ReceiveTimeout, &TimeVal::new(60, 0))?;
    bind(wire.as_raw_fd(), &NetlinkAddr::new(0, 1))?;
    let vm = Kvm::new().context("no /dev/kvm")?.create_vm()?;
    let own = format!("PID={}", gettid());
    let mut buffer = [0; 8192];
    loop {
        let length = recv(wire.as_raw_fd(), &mut buffer, nix::sys::socket::MsgFlags::empty())
            .context("KVM does not announce its VMs")?;
        let words: Vec<&str> = buffer[..length].split(|b| *b == 0).flat_map(std::str::from_utf8).collect();
        if words.contains(&"EVENT=create") && words.contains(&own.as_str()) {
            drop(vm);
            let count = words.iter().find_map(|word| word.strip_prefix("CREATED="));
            return Ok(count.context("no CREATED")?.parse()?);
        }
    }
}

/// Processes that are started one after the other and end at once, by programs of a page each; killed when dropped.
#[derive(Debug)]
pub struct Processes {
    children: Vec<Child>,
    dir: TempDir,
}

impl Processes {
    /// Starts so many that only fork, and so many that run a program, in two loops side by side.
    pub fn start(forks: u64, execs: u64) -> Result<Self> {
        let dir = TempDir::new()?;
        let ends = dir.path().join("ends");
        tiny::write(&ends, tiny::ENDS)?;
        let mut this = Self { children: Vec::new(), dir };
        this.run("forks", &tiny::starts(forks, None))?;
        this.run("execs", &tiny::starts(execs, Some(&ends)))?;
        Ok(this)
    }

    fn run(&mut self, name: &str, code: &[u8]) -> Result<()> {
        let path = self.dir.path().join(name);
        tiny::write(&path, code)?;
        self.children.push(started(&path)?);
        Ok(())
    }

    /// Waits for the end; an error unless each process that was started ended in order.
    pub fn wait(mut self) -> Result<()> {
        for child in &mut self.children {
            ensure!(child.wait()?.success(), "not every process of the storm was started");
        }
        Ok(())
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for child in &mut self.children {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// Runs a program that was just written: whoever forks meanwhile holds it open for a moment.
fn started(path: &Path) -> Result<Child> {
    let end = Instant::now() + PATIENCE;
    loop {
        match Command::new(path).stdin(Stdio::null()).spawn() {
            Err(error) if error.raw_os_error() == Some(libc::ETXTBSY) && Instant::now() < end => {}
            other => return other.with_context(|| path.display().to_string()),
        }
    }
}

/// A burst of short VMs in a control group of its own, from each VM's first instant to its last.
#[derive(Debug)]
pub struct Accounted {
    child: Child,
    /// Without one, its CPU time is not known.
    group: Option<Group>,
    /// What the starter had used before it was in the group, nanoseconds.
    before_ns: u64,
}

/// What a burst was.
#[derive(Debug)]
pub struct Report {
    /// Its VMs, as `kvmeter-testvm --burst` prints them.
    pub vms: Vec<Value>,
    /// The CPU time of all their processes, by the kernel's count of their group, nanoseconds.
    pub cpu_ns: Option<u64>,
}

impl Accounted {
    /// Starts so many VMs, so many of them at once, with these options.
    pub fn start(name: &str, count: u32, concurrency: u32, args: &[&str]) -> Result<Self> {
        let group = Group::cpuacct(name);
        let mut command = Command::new("sh");
        // It waits until it is in the group: what it runs from then on counts there.
        command.args(["-c", "kill -STOP $$; exec \"$0\" \"$@\""]).arg(spawn::binary()?);
        command.args(["--burst", &count.to_string(), "--concurrency", &concurrency.to_string()]).args(args);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut this = Self { child, group, before_ns: 0 };
        let state = || std::fs::read_to_string(format!("/proc/{}/stat", this.pid()));
        let end = Instant::now() + PATIENCE;
        while !state()?.contains(") T ") {
            ensure!(Instant::now() < end, "the starter does not stop");
            std::thread::sleep(Duration::from_millis(1));
        }
        this.before_ns = this.settled(Self::own_ns)?;
        if let Some(group) = &this.group {
            group.add(this.pid())?;
        }
        kill(Pid::from_raw(this.pid()), Signal::SIGCONT)?;
        Ok(this)
    }

    fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// CPU time of the starter, which has one thread.
    fn own_ns(&self) -> Result<u64> {
        Ok(schedstat::thread(self.pid(), self.pid())?.run_ns)
    }

    /// A number once it stands still: the last that is charged comes a moment after the end.
    fn settled(&self, read: impl Fn(&Self) -> Result<u64>) -> Result<u64> {
        let mut last = read(self)?;
        for _ in 0..500 {
            std::thread::sleep(Duration::from_millis(100));
            let now = read(self)?;
            if now == last {
                return Ok(now);
            }
            last = now;
        }
        anyhow::bail!("it goes on using CPU time")
    }

    /// Waits for the end of all of them.
    pub fn finish(mut self) -> Result<Report> {
        let mut text = String::new();
        self.child.stdout.take().context("no output")?.read_to_string(&mut text)?;
        wait_zombie(self.pid())?;
        let report: Value = serde_json::from_str(&text).context("the burst failed")?;
        let cpu_ns = match &self.group {
            None => None,
            Some(group) => {
                let all = self.settled(|_| group.cpu_ns())?;
                Some(all - (self.settled(Self::own_ns)? - self.before_ns))
            }
        };
        ensure!(self.child.wait()?.success(), "the burst failed");
        Ok(Report { vms: report["vms"].as_array().context("no VMs")?.clone(), cpu_ns })
    }
}

impl Drop for Accounted {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
