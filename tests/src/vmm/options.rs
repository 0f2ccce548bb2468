//! The command line of `kvmeter-testvm`, and what must hold between its options.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use clap::Parser;

use super::end::End;
use super::guest::{MAX_MEMORY, MAX_VCPUS, MIN_MEMORY, TOUCH_START};
use super::nic::area::AREA_BYTES;
use super::nic::option::NicOption;

/// A small VMM for tests: one process, one KVM VM whose guest runs natively.
///
/// Exit codes: what --end asks for; 1 wrong set-up; 2 wrong usage; 70 an exit from the guest that was not asked for.
#[derive(Debug, Clone, Parser)]
#[command(name = "kvmeter-testvm", version)]
pub struct Options {
    /// Id, for kvmeter to read on the command line; `<ID>-<k>` for the VMs of a fleet or a burst.
    #[arg(long, default_value = "vm")]
    pub id: String,
    /// UUID, only for the command line.
    #[arg(long, value_name = "U")]
    pub uuid: Option<String>,
    /// Name, only for the command line.
    #[arg(long, value_name = "N")]
    pub name: Option<String>,

    /// An option and its value of another VMM, only for the command line; may be given again.
    #[arg(long, num_args = 2, value_names = ["OPTION", "VALUE"], allow_hyphen_values = true)]
    pub words: Vec<String>,

    /// vCPUs of a VM, each a thread `vcpu0`, `vcpu1`, …; numbered through the process with --vms.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_VCPUS)))]
    pub vcpus: u32,
    /// Share of a CPU that each vCPU burns inside the guest, in percent; 100 never leaves KVM_RUN, less leaves it 50
    /// times a second (or --exit-rate) and sleeps, 0 leaves it once and sleeps.
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub duty: u32,
    /// Userspace exits (MMIO) per second and vCPU, evenly spread; 0 leaves it to --duty. Their own cost is part of the
    /// duty, as far as it fits in: on PVM an exit costs about 100 µs.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=200_000))]
    pub exit_rate: u32,
    /// Memory of a VM: bytes, or with suffix K, M, G (powers of 1024); mapped lazily.
    #[arg(long, value_name = "SIZE", default_value = "16M", value_parser = parse_size)]
    pub memory: u64,
    /// Memory that vCPU 0 of each VM writes to, page by page, before it is ready; same suffixes.
    #[arg(long, value_name = "SIZE", default_value = "0", value_parser = parse_size)]
    pub touch: u64,

    /// Time from the start of the vCPU threads to the end, such as 3ms, 2s, 1m; default until killed.
    #[arg(long, value_name = "DUR", value_parser = humantime::parse_duration)]
    pub lifetime: Option<Duration>,
    /// What happens then: exit0, exit=N, crash (SIGSEGV), abort (SIGABRT), sigkill (of itself), triple-fault
    /// (KVM_EXIT_SHUTDOWN on vCPU 0), halt (KVM_EXIT_HLT on vCPU 0), system-event (KVM_EXIT_SYSTEM_EVENT on vCPU 0, where
    /// KVM has Hyper-V's registers), internal-error (KVM_EXIT_INTERNAL_ERROR on vCPU 0).
    #[arg(long, value_name = "HOW", default_value = "exit0")]
    pub end: End,
    /// Exit code of the VMM after an end of the guest's own.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub exit_code: u8,

    /// KVM VMs in the process, each with --vcpus and --memory.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub vms: u32,
    /// Create VM and vCPUs, but start no vCPU thread and never enter KVM_RUN.
    #[arg(long)]
    pub unrun: bool,
    /// Further VMM threads `worker0`, … that burn --worker-duty in user space.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub workers: u32,
    /// A further worker whose thread has this name, 1 to 15 bytes, such as "IO iothread0"; may be given again.
    #[arg(long, value_name = "NAME", value_parser = parse_thread_name)]
    pub named_worker: Vec<String>,
    /// Share of a CPU that each worker burns, in percent.
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub worker_duty: u32,
    /// Threads `churned` born and dead per second, each burning about 200 µs; started by a thread `churn`.
    #[arg(long, value_name = "RATE", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub churn: u32,
    /// Read zeroes through io_uring all the time, so that a kernel thread `iou-wrk-…` of this process uses CPU.
    #[arg(long)]
    pub io_uring: bool,
    /// Own a vhost-net device, for which the kernel starts a worker.
    #[arg(long)]
    pub vhost_net: bool,
    /// Frames that the worker sends through a tap of the VMM's own in a second; 0 leaves it idle.
    #[arg(long, value_name = "RATE", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=200_000), requires = "vhost_net")]
    pub vhost_frames: u32,
    /// Own the device only once this file is there, as if it were plugged in; a thread `plug` does.
    #[arg(long, value_name = "FILE", requires = "vhost_net")]
    pub vhost_when: Option<PathBuf>,
    /// Let the worker be a kernel thread, as it always is up to Linux 6.3, where the kernel leaves the choice.
    #[arg(long, requires = "vhost_net")]
    pub vhost_kernel_thread: bool,
    /// A NIC `NAME[,queues=N][,netns=FD|PATH][,persist][,vnet][,macvtap][,closed]`: vCPU 0 of the first VM runs a
    /// program that sends, receives and counts frames on this tap (made if there is none) or macvtap; the second --nic is
    /// vCPU 1's, and so on. It needs 4M of memory each.
    #[arg(long, value_name = "NIC", conflicts_with_all = ["halts", "exit_rate"])]
    pub nic: Vec<NicOption>,
    /// Connect each NIC to this UNIX socket, in the order of the NICs, for commands (vmm/nic/command.rs); its end ends
    /// the VMM. Without it a NIC receives whatever comes.
    #[arg(long, value_name = "SOCKET", requires = "nic")]
    pub nic_control: Option<PathBuf>,
    /// Let each vCPU halt in the kernel, instead of sleeping in the VMM, and be woken so often a second: an in-kernel
    /// local APIC, KVM_SET_MP_STATE and a signal do what `hlt` and an interrupt would.
    #[arg(long, value_name = "RATE", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=10_000), conflicts_with_all = ["exit_rate", "unrun"])]
    pub halts: u32,
    /// Let each vCPU halt so often, for 10 ms, before it enters the guest for the first time, as the further vCPUs of a
    /// real VM do until they are started.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100), requires = "halts")]
    pub first_halts: u32,
    /// Run vCPU k on the k-th of these CPUs alone, such as 0,1; from the first again if there are more vCPUs.
    #[arg(long, value_name = "CPU", value_delimiter = ',')]
    pub pin: Vec<usize>,
    /// Join this control group (its directory) before anything else.
    #[arg(long, value_name = "DIR")]
    pub cgroup: Option<PathBuf>,
    /// Connect to this Unix socket and do what its lines say, such as `write PATH BYTES rw,direct`; see `vmm::orders`.
    #[arg(long, value_name = "SOCKET")]
    pub orders: Option<PathBuf>,
    /// Listen on this Unix socket for orders to take and free memory of any kind; see `vmm::memory`.
    #[arg(long, value_name = "PATH")]
    pub memory_orders: Option<PathBuf>,
    /// Two threads `ping` and `pong` on this CPU that wake each other without end.
    #[arg(long, value_name = "CPU")]
    pub pingpong: Option<usize>,
    /// Delay the first KVM_RUN of vCPU k by k times this.
    #[arg(long, value_name = "DUR", default_value = "0s", value_parser = humantime::parse_duration)]
    pub late_vcpus: Duration,
    /// Run vCPU 0 in the main thread, which keeps its name; a thread `timer` then ends the VM.
    #[arg(long, conflicts_with_all = ["leader_exits", "unrun"])]
    pub main_vcpu: bool,
    /// The main thread ends by itself (a zombie leader) while the VM goes on; a thread `timer` then ends the VM.
    #[arg(long)]
    pub leader_exits: bool,

    /// Write one line {"pid":…,"vcpus":N,"tids":[…],"ready_us":…} to this open descriptor when all vCPUs have entered
    /// the guest and touched their memory (at once with --unrun); ready_us counts from the start of main.
    #[arg(long, value_name = "FD", value_parser = clap::value_parser!(i32).range(0..))]
    pub ready_fd: Option<i32>,
    /// Keep the returns of KVM_RUN by reason in this file: {"pid":…,"exits":{"mmio":…}}; replaced every 100 ms and
    /// before the end (not before a kill from outside). The last is exact for one vCPU that ends by triple-fault or
    /// halt; otherwise it may lack what other vCPUs did in the last moment.
    #[arg(long, value_name = "FILE")]
    pub count: Option<PathBuf>,
    /// Report on stderr what each vCPU's last exit was and how the VMM ends.
    #[arg(long)]
    pub verbose: bool,

    /// Start N VMMs with the other options, wait until all are ready, print {"pids":[…],"seconds":…}; kill and reap
    /// them on SIGTERM, SIGINT or the end of stdin (if that is a pipe, socket or terminal).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=20_000), conflicts_with_all = ["burst", "ready_fd"])]
    pub fleet: Option<u32>,
    /// Start N short VMMs with the other options (unless given: --lifetime 3ms --end exit0), wait for each, print
    /// {"seconds":…,"vms":[{"id":…,"pid":…,"code":N|null,"signal":N|null,"cpu_us":…}]}; cpu_us is user + system.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000), conflicts_with = "ready_fd")]
    pub burst: Option<u32>,
    /// How many VMMs of a burst live at once.
    #[arg(long, value_name = "C", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000), requires = "burst")]
    pub concurrency: u32,
}

impl Options {
    /// Checks what clap cannot: each error names the option and what to do.
    pub fn check(&self) -> Result<()> {
        let memory = self.memory;
        ensure!(memory.is_multiple_of(4096), "--memory {memory}: not a multiple of 4096 bytes; round it up");
        ensure!((MIN_MEMORY..=MAX_MEMORY).contains(&memory), "--memory {memory}: out of range; give 128K to 3G");
        ensure!(
            self.touch <= memory - TOUCH_START,
            "--touch {}: more than a VM of {memory} bytes has free; give --memory {} or more",
            self.touch,
            (self.touch + TOUCH_START).next_multiple_of(4096)
        );
        ensure!(
            !(self.unrun && self.end.is_guests()),
            "--end: with --unrun no guest runs that could end so; use exit0, exit=N, crash, abort or sigkill"
        );
        ensure!(
            self.worker_duty == 0 || self.workers > 0 || !self.named_worker.is_empty(),
            "--worker-duty: there is no worker; give --workers N"
        );
        ensure!(self.halts == 0 || self.duty < 100, "--halts: a vCPU of --duty 100 never halts; give 99 or less");
        let nics = self.nic.len() as u64;
        ensure!(nics <= self.vcpus.into(), "--nic: {nics} of them need as many vCPUs; give --vcpus {nics}");
        ensure!(
            nics == 0 || !self.end.is_guests(),
            "--end: a vCPU with a NIC does not end; use exit0, exit=N or a crash"
        );
        ensure!(
            self.touch + nics * AREA_BYTES <= memory - TOUCH_START,
            "--nic: {nics} of them and --touch need more memory; give --memory {} or more",
            (self.touch + TOUCH_START + nics * AREA_BYTES).next_multiple_of(4096)
        );
        if self.fleet.is_some() && self.count.is_some() || self.burst.is_some() && self.count.is_some() {
            bail!("--count: the VMs of a fleet or burst would overwrite one file; leave it out");
        }
        Ok(())
    }
}

/// Bytes, or a number with suffix K, M or G.
fn parse_size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.char_indices().next_back() {
        Some((at, 'K' | 'k')) => (&text[..at], 10),
        Some((at, 'M' | 'm')) => (&text[..at], 20),
        Some((at, 'G' | 'g')) => (&text[..at], 30),
        _ => (text, 0),
    };
    let number: Option<u64> = digits.parse().ok();
    number
        .and_then(|number| number.checked_mul(1 << shift))
        .filter(|bytes| *bytes <= 1 << 40)
        .ok_or_else(|| "give a number of bytes, or one with suffix K, M or G, such as 16M".into())
}

/// What the kernel keeps of a thread's name.
fn parse_thread_name(text: &str) -> Result<String, String> {
    let fits = (1..=15).contains(&text.len());
    if fits { Ok(text.to_owned()) } else { Err("give 1 to 15 bytes, which is what the kernel keeps".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(arguments: &[&str]) -> Result<Options> {
        let options = Options::try_parse_from([&["kvmeter-testvm"], arguments].concat())?;
        options.check().map(|()| options)
    }

    #[test]
    fn the_definition_is_sound() {
        use clap::CommandFactory;
        Options::command().debug_assert();
    }

    #[test]
    fn sizes_have_suffixes() {
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("16M"), Ok(16 << 20));
        assert_eq!(check(&["--memory", "1G", "--touch", "64k"]).unwrap().touch, 65536);
        for bad in ["", "M", "1.5G", "-1", "99999999999G", "1é"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_error_names_its_option() {
        for (arguments, option) in [
            (&["--memory", "5000"][..], "--memory"),
            (&["--memory", "64K"], "--memory"),
            (&["--memory", "1M", "--touch", "1M"], "--touch"),
            (&["--unrun", "--end", "halt"], "--end"),
            (&["--worker-duty", "5"], "--worker-duty"),
            (&["--duty", "101"], "--duty"),
            (&["--duty", "100", "--halts", "5"], "--halts"),
            (&["--exit-rate", "5", "--halts", "5"], "--halts"),
            (&["--named-worker", "sixteen letters!"], "--named-worker"),
            (&["--nic", "tap0,fast"], "--nic"),
            (&["--nic", "a", "--nic", "b"], "--vcpus 2"),
            (&["--nic", "tap0", "--memory", "1M"], "--memory"),
            (&["--nic", "tap0", "--end", "halt"], "--end"),
            (&["--concurrency", "2"], "--burst"),
            (&["--fleet", "2", "--count", "f"], "--count"),
            (&["--vhost-frames", "5"], "--vhost-net"),
        ] {
            let error = check(arguments).unwrap_err().to_string();
            assert!(error.contains(option), "{arguments:?}: {error}");
        }
    }
}
