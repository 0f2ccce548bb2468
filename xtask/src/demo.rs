//! The VMs of `cargo xtask run --demo`: real KVM guests of `kvmeter-testvm`, each with a load of its own.
//!
//! Two of them end by themselves, one well and one by a crash, and are started again under the same name, so that
//! incarnations are seen. One is stopped and continued in turns. All are killed and reaped at the end.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PAUSE_BEFORE_RESTART: Duration = Duration::from_secs(2);
const BURST: Duration = Duration::from_secs(4);

/// What a VM does: its name, its options, and whether it comes in bursts.
const GUESTS: [(&str, &str, bool); 6] = [
    ("spinner", "--vcpus 1 --duty 100 --memory 64M --touch 16M", false),
    ("half-idle", "--vcpus 1 --duty 50 --memory 128M --touch 64M", false),
    ("bursty", "--vcpus 1 --duty 80 --memory 64M --touch 8M", true),
    ("four-cpus", "--vcpus 4 --duty 8 --exit-rate 500 --memory 256M --touch 128M --workers 2 --worker-duty 5", false),
    ("short-job", "--vcpus 1 --duty 30 --memory 32M --lifetime 5s", false),
    ("crasher", "--vcpus 1 --duty 20 --memory 32M --lifetime 8s --end crash", false),
];

/// All the VMs.
#[derive(Debug, Default)]
pub(crate) struct Demo {
    program: PathBuf,
    log: Option<File>,
    vms: Vec<Vm>,
}

/// One VM by name, through its lives.
#[derive(Debug)]
struct Vm {
    name: &'static str,
    options: &'static str,
    bursts: bool,
    child: Option<Child>,
    /// When it last started, ended, or was stopped or continued.
    changed: Instant,
    stopped: bool,
}

impl Demo {
    pub(crate) fn start(program: &Path, directory: &Path) -> Result<Self> {
        let path = directory.join("vms.log");
        let log = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        let vms = GUESTS.map(|(name, options, bursts)| Vm {
            name,
            options,
            bursts,
            child: None,
            changed: Instant::now(),
            stopped: false,
        });
        let mut demo = Self { program: program.to_path_buf(), log: Some(log), vms: vms.into() };
        for at in 0..demo.vms.len() {
            if let Err(error) = demo.launch(at) {
                demo.stop()?;
                return Err(error);
            }
        }
        Ok(demo)
    }

    fn launch(&mut self, at: usize) -> Result<()> {
        use std::os::unix::process::CommandExt as _;
        let log =
            self.log.as_ref().context("the demo has not started")?.try_clone().context("cannot share the VMs' log")?;
        let vm = &mut self.vms[at];
        let mut command = Command::new(&self.program);
        command.args(["--id", vm.name]).args(vm.options.split(' '));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0);
        let started = command.spawn().with_context(|| format!("cannot run {}", self.program.display()))?;
        vm.child = Some(started);
        vm.changed = Instant::now();
        vm.stopped = false;
        Ok(())
    }

    /// Reaps what has ended, starts it again a little later, and gives bursts their turns.
    pub(crate) fn tick(&mut self) -> Result<()> {
        for at in 0..self.vms.len() {
            let vm = &mut self.vms[at];
            let ended = vm.child.as_mut().map(Child::try_wait).transpose().context("cannot look after a VM")?.flatten();
            if ended.is_some() {
                vm.child = None;
                vm.changed = Instant::now();
            }
            match &vm.child {
                None if vm.changed.elapsed() >= PAUSE_BEFORE_RESTART => self.launch(at)?,
                Some(child) if vm.bursts && vm.changed.elapsed() >= BURST => {
                    let signal = if vm.stopped { Signal::SIGCONT } else { Signal::SIGSTOP };
                    kill(pid(child), signal).context("cannot stop or continue a VM")?;
                    vm.stopped = !vm.stopped;
                    vm.changed = Instant::now();
                }
                _goes_on => {}
            }
        }
        Ok(())
    }

    /// Kills and reaps every VM; safe to call again.
    pub(crate) fn stop(&mut self) -> Result<()> {
        let mut outcome = Ok(());
        for mut child in self.vms.iter_mut().filter_map(|vm| vm.child.take()) {
            let ended = child.kill().and_then(|()| child.wait());
            if let Err(error) = ended {
                outcome = Err(error).context("cannot end a VM");
            }
        }
        outcome
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}
