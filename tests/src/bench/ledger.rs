//! How fast a ledger is proved, and in how much memory: `kvmeter ledger verify` over ledgers of heartbeats that the agent's
//! own journal wrote, one four times as long as the other.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use kvmeter::ledger::{Coverage, Draft, Journal, Kind, Shape, Stamp, Subject, Usage};
use nix::sys::resource::{UsageWho, getrusage};
use tempfile::TempDir;

use super::{
    options::Options,
    spread::Spread,
    table::{Row, Section},
};
use crate::{command::binary, memory::kilobytes};

const BOOT: &str = "11111111-2222-3333-4444-555555555555";
const SECOND: u64 = 1_000_000_000;
const T0: u64 = 1_779_238_923 * SECOND;
const VMS: u64 = 100;
const MIB: f64 = 1_048_576.0;
const GB: f64 = 1e9;

fn at(second: u64) -> Stamp {
    Stamp { unix_ns: T0 + second * SECOND, mono_ns: (100 + second) * SECOND }
}

/// A line of a VM as an agent writes it.
fn line(kind: Kind, vm: u64, second: u64) -> Draft {
    let now = at(second);
    let mut draft =
        Draft::new(kind, Subject::Incarnation(format!("111111112222-{vm}-1")), BOOT, now.unix_ns, now.mono_ns);
    (draft.vm_id, draft.hypervisor) = (format!("6f1f0f6e-9d0c-4b8e-8f0a-{vm:012}"), "qemu".to_owned());
    draft.shape = Shape { cpu: 4, mem_bytes: 8 << 30, storage_bytes: 0 };
    let used = second * SECOND / 2;
    draft.usage = Some(Usage {
        cpu_vcpu_ns: Some(used),
        cpu_vmm_ns: Some(used / 20),
        guest_ns: Some(used),
        run_delay_ns: Some(used / 100),
        mem_byte_ns: Some(u128::from(second * SECOND) * 4_000_000_000),
        mem_peak_bytes: Some(4_000_000_000),
        disk_read_bytes: Some(second * 1_000),
        disk_written_bytes: Some(second * 3_000),
        ..Usage::default()
    });
    draft.coverage = Some(Coverage { observed_ns: second * SECOND, ..Coverage::default() });
    draft
}

/// Writes so many heartbeats of each VM; bytes in all.
fn write(dir: &Path, beats: u64) -> Result<u64> {
    let (mut journal, _) = Journal::open(dir, "0123456789abcdef0123456789abcdef", BOOT, at(0))?;
    let mut append = |kind: Kind, second: u64| -> Result<()> {
        let all: Vec<Draft> = (1..=VMS).map(|vm| line(kind, vm, second)).collect();
        journal.append(&all, at(second)).map(drop).context("cannot write the ledger")
    };
    append(Kind::VmComputeStart, 0)?;
    (1..=beats).try_for_each(|beat| append(Kind::VmComputeUsage, beat * 60))?;
    let sizes = std::fs::read_dir(dir)?.map(|entry| Ok(entry?.metadata()?.len()));
    sizes.sum()
}

/// What one proof took.
struct Took {
    wall_s: f64,
    cpu_s: f64,
    memory_bytes: u64,
}

fn children_s() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

/// The most memory a process has had, looked at until it ends.
fn watch(child: &mut Child) -> Result<u64> {
    let mut most = 0;
    loop {
        // It may have none any more.
        most = kilobytes(&format!("/proc/{}/status", child.id()), "VmHWM").unwrap_or(0).max(most);
        if let Some(status) = child.try_wait()? {
            ensure!(status.success(), "kvmeter ledger verify: {status}");
            return Ok(most);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn verify(dir: &Path) -> Result<Took> {
    let (began, cpu_s) = (Instant::now(), children_s()?);
    let mut command = Command::new(binary()?);
    command.env_clear().args(["ledger", "verify"]).arg(dir).stdin(Stdio::null()).stdout(Stdio::null());
    let memory_bytes = watch(&mut command.spawn()?)?;
    Ok(Took { wall_s: began.elapsed().as_secs_f64(), cpu_s: children_s()? - cpu_s, memory_bytes })
}

/// Measures it.
pub fn section(options: &Options) -> Result<Section> {
    let (beats, rounds) = options.ledger();
    let (short, long) = (TempDir::new()?, TempDir::new()?);
    let (short_bytes, long_bytes) = (write(short.path(), beats / 4)?, write(long.path(), beats)?);
    let (mut wall, mut cpu, mut memory) = (Vec::new(), Vec::new(), [Vec::new(), Vec::new()]);
    for _ in 0..rounds {
        memory[0].push(verify(short.path())?.memory_bytes as f64 / MIB);
        let took = verify(long.path())?;
        memory[1].push(took.memory_bytes as f64 / MIB);
        wall.push(long_bytes as f64 / took.wall_s / GB);
        cpu.push(long_bytes as f64 / took.cpu_s / GB);
    }
    let size = |bytes: u64| format!("{:.0} MB", bytes as f64 / 1e6);
    let [little, much] = memory.map(|all| Spread::of(&all));
    Ok(Section {
        title: "Proving a ledger",
        method: format!(
            "`kvmeter ledger verify` over {} lines ({}) of {VMS} VMs that the agent's own journal wrote, read from the page \
             cache by one thread; and over a quarter of them.",
            (beats + 1) * VMS,
            size(long_bytes)
        ),
        rows: vec![
            Row::new("by CPU time", "GB/s", Spread::of(&cpu)),
            Row::new("by wall time", "GB/s", Spread::of(&wall)),
            Row::new(format!("memory for {}", size(short_bytes)), "MiB", little),
            Row::new(format!("memory for {}", size(long_bytes)), "MiB", much)
                .note("constant: it grows with open VMs alone"),
        ],
    })
}
