//! One VMM process: makes its VMs, starts the threads, says when it is ready, and ends as it was told.

use std::fs::File;
use std::io::Write as _;
use std::ops::RangeInclusive;
use std::os::fd::FromRawFd as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kvm_ioctls::Kvm;

use super::code;
use super::end::{self, End};
use super::exits::Exit;
use super::guest::Guest;
use super::load;
use super::memory;
use super::nic::port::Nic;
use super::options::Options;
use super::orders;
use super::pingpong;
use super::shared::Shared;
use super::vcpu::{Vcpu, Work};
use super::{uring, vhost};

/// Exit code after an exit from a guest that nobody asked for.
const UNEXPECTED: u8 = 70;
const COUNT_PERIOD: Duration = Duration::from_millis(100);
/// A short wait is looked at often, a long one seldom: looking must not show in what the VMM uses.
const READY_POLL: RangeInclusive<Duration> = Duration::from_micros(100)..=Duration::from_millis(5);

/// Runs the VMs of this process until it ends; returns only for wrong set-up.
pub fn run(options: &Options) -> Result<()> {
    let started = Instant::now();
    let ready = options.ready_fd.map(open_ready).transpose()?;
    if let Some(group) = &options.cgroup {
        std::fs::write(group.join("cgroup.procs"), "0")
            .with_context(|| format!("--cgroup: cannot join {}", group.display()))?;
    }
    let shared = Arc::new(Shared::new(options.verbose));
    let (guests, mut vcpus) = create(options, &shared)?;
    load::start_workers(options.workers, &options.named_worker, options.worker_duty, &shared)?;
    load::start_churn(options.churn, &shared)?;
    if let Some(path) = &options.memory_orders {
        memory::serve(path)?;
    }
    if options.io_uring {
        uring::start(&shared)?;
    }
    // An open descriptor is what keeps its worker alive.
    let _vhost = vhost::start(options, &shared)?;
    options.orders.as_deref().map(orders::start).transpose()?;
    options.pingpong.map(pingpong::start_endless).transpose()?;
    let mut control = Control { options: options.clone(), shared, guests, ready, started, running: Instant::now() };
    if options.unrun {
        // Kept open, so that the VM stays: an fd of a vCPU is a reference to its VM.
        std::mem::forget(vcpus);
        return control.hand_over(options.leader_exits);
    }
    let main_vcpu = options.main_vcpu.then(|| vcpus.remove(0));
    control.running = Instant::now();
    for mut vcpu in vcpus {
        let (plan, shared) = (options.clone(), Arc::clone(&control.shared));
        load::spawn(vcpu.thread_name(), move || run_vcpu(&mut vcpu, &plan, &shared))?;
    }
    let Some(mut vcpu) = main_vcpu else {
        return control.hand_over(options.leader_exits);
    };
    let shared = Arc::clone(&control.shared);
    load::spawn("timer".into(), move || control.run_to_the_end())?;
    run_vcpu(&mut vcpu, options, &shared);
    loop {
        std::thread::park();
    }
}

fn create(options: &Options, shared: &Arc<Shared>) -> Result<(Vec<Arc<Guest>>, Vec<Vcpu>)> {
    let kvm = Kvm::new().context("cannot open /dev/kvm; run as root or in group kvm on a host with KVM")?;
    let cpuid =
        kvm.get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES).context("KVM_GET_SUPPORTED_CPUID failed")?;
    let (mut guests, mut vcpus) = (Vec::new(), Vec::new());
    for vm in 0..options.vms {
        let guest = Guest::new(&kvm, options.memory, options.halts > 0);
        let guest = Arc::new(guest.with_context(|| format!("VM {vm} of {}", options.vms))?);
        for index in 0..options.vcpus {
            let number = vm * options.vcpus + index;
            let work = Work {
                duty_percent: options.duty,
                exit_rate: options.exit_rate,
                halt_rate: options.halts,
                first_halts: options.first_halts,
                cpu: options.pin.iter().cycle().nth(number as usize).copied(),
                touch_bytes: if index == 0 { options.touch } else { 0 },
                delay: options.late_vcpus.saturating_mul(index),
                ends: (vm == 0 && index == 0 && options.end.is_guests()).then_some(options.end),
            };
            let mut vcpu = Vcpu::new(&guest, index, number, &cpuid, work, shared)?;
            if let Some(option) = options.nic.get(index as usize).filter(|_| vm == 0) {
                let control = options.nic_control.as_deref();
                vcpu.attach(Nic::new(&guest, options.memory, index.into(), option, control)?)?;
            }
            vcpus.push(vcpu);
        }
        guests.push(guest);
    }
    Ok((guests, vcpus))
}

fn open_ready(fd: i32) -> Result<File> {
    // SAFETY: F_GETFD only asks whether the descriptor is open.
    let open = unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0;
    ensure!(open, "--ready-fd {fd}: no such open descriptor; have the parent leave one open");
    // SAFETY: the descriptor is open, and the option hands it to this process, which uses it nowhere else.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// The body of a vCPU thread; ends the process if the guest does.
fn run_vcpu(vcpu: &mut Vcpu, options: &Options, shared: &Shared) {
    let expected = match options.end {
        End::TripleFault => Some(Exit::Shutdown),
        End::Halt => Some(Exit::Halt),
        End::SystemEvent => Some(Exit::SystemEvent),
        End::InternalError => Some(Exit::InternalError),
        _ => None,
    };
    let code = match vcpu.run() {
        Ok(None) => return,
        Ok(Some(exit)) => {
            if shared.verbose {
                eprintln!("kvmeter-testvm: {}: last exit {}", vcpu.thread_name(), exit.name());
            }
            if Some(exit) == expected { options.exit_code } else { UNEXPECTED }
        }
        Err(error) => {
            eprintln!("kvmeter-testvm: {error:#}");
            UNEXPECTED
        }
    };
    write_count(options.count.as_deref(), shared);
    end::leave(code)
}

fn write_count(path: Option<&Path>, shared: &Shared) {
    if let Some(Err(error)) = path.map(|path| shared.exits.write(path)) {
        eprintln!("kvmeter-testvm: {error:#}");
    }
}

/// The thread that watches over the others.
struct Control {
    options: Options,
    shared: Arc<Shared>,
    guests: Vec<Arc<Guest>>,
    ready: Option<File>,
    started: Instant,
    running: Instant,
}

impl Control {
    /// Watches in this thread, or ends this thread alone and watches in another.
    fn hand_over(self, leader_exits: bool) -> Result<()> {
        if !leader_exits {
            self.run_to_the_end();
        }
        load::spawn("timer".into(), move || self.run_to_the_end())?;
        // SAFETY: ends this thread and nothing else. No other thread holds a reference into its stack: whatever they
        // use was moved to them or is behind an `Arc`.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
        Ok(())
    }

    fn run_to_the_end(mut self) -> ! {
        match self.say_ready().and_then(|()| self.wait_and_end()) {
            Ok(()) => loop {
                // A vCPU ends the process.
                std::thread::park();
            },
            Err(error) => {
                eprintln!("kvmeter-testvm: {error:#}");
                end::leave(1)
            }
        }
    }

    fn say_ready(&mut self) -> Result<()> {
        let Some(mut ready) = self.ready.take() else {
            return Ok(());
        };
        // However short it is to live: who waits for it would wait in vain on a busy machine.
        while !self.all_have_entered()? {
            std::thread::sleep((self.running.elapsed() / 8).clamp(*READY_POLL.start(), *READY_POLL.end()));
        }
        let line = serde_json::json!({
            "pid": std::process::id(),
            "vcpus": self.options.vms * self.options.vcpus,
            "tids": self.shared.tids(),
            "ready_us": u64::try_from(self.started.elapsed().as_micros())?,
        });
        ready.write_all(format!("{line}\n").as_bytes()).context("--ready-fd: cannot write")
    }

    fn all_have_entered(&self) -> Result<bool> {
        if self.options.unrun {
            return Ok(true);
        }
        for guest in &self.guests {
            for index in 0..self.options.vcpus {
                if guest.state(index)? != code::STATE_TOUCHED {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn is_due(&self) -> bool {
        self.options.lifetime.is_some_and(|lifetime| self.running.elapsed() >= lifetime)
    }

    fn wait_and_end(&self) -> Result<()> {
        let count = self.options.count.as_deref();
        while !self.is_due() {
            write_count(count, &self.shared);
            let left = self.options.lifetime.map(|lifetime| lifetime.saturating_sub(self.running.elapsed()));
            let tick = count.map(|_| COUNT_PERIOD);
            match left.into_iter().chain(tick).min() {
                Some(time) => std::thread::sleep(time),
                None => std::thread::park(),
            }
        }
        if self.shared.verbose {
            eprintln!("kvmeter-testvm: ends by {:?}", self.options.end);
        }
        match self.options.end {
            End::TripleFault => self.guests[0].command(0, code::COMMAND_TRIPLE_FAULT)?,
            End::Halt | End::SystemEvent | End::InternalError => self.guests[0].command(0, code::COMMAND_HALT)?,
            host => {
                write_count(count, &self.shared);
                end::perform(host);
            }
        }
        self.shared.set_over();
        Ok(())
    }
}
