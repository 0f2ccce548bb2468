//! The machine that the figures are of.

use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use anyhow::Result;

use super::load::cpus;

/// A list of what matters for the figures.
pub fn description() -> Result<String> {
    let lines = [
        ("CPU", format!("{}, {} to use", cpu().unwrap_or_else(unknown), cpus()?.len())),
        ("memory", memory().unwrap_or_else(unknown)),
        ("kernel", read("/proc/sys/kernel/osrelease").unwrap_or_else(unknown)),
        ("KVM back end", back_end()),
        ("BPF", bpf()),
        ("date", humantime::format_rfc3339_seconds(SystemTime::now()).to_string()),
        ("commit", commit().unwrap_or_else(unknown)),
        ("load at the start", read("/proc/loadavg").unwrap_or_else(unknown)),
    ];
    Ok(lines.into_iter().map(|(what, is)| format!("* {what}: {is}\n")).collect())
}

fn unknown() -> String {
    "unknown".to_owned()
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn value(file: &str, key: &str) -> Option<String> {
    let text = read(file)?;
    let found = text.lines().find_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix(':'));
    found.map(|value| value.trim().to_owned())
}

fn cpu() -> Option<String> {
    let model = value("/proc/cpuinfo", "model name")?;
    let guest = value("/proc/cpuinfo", "flags")?.split(' ').any(|flag| flag == "hypervisor");
    Some(if guest { format!("{model} (itself a virtual machine)") } else { model })
}

fn memory() -> Option<String> {
    let kib: u64 = value("/proc/meminfo", "MemTotal")?.trim_end_matches(" kB").parse().ok()?;
    Some(format!("{} MiB", kib >> 10))
}

/// Which module or built-in serves `/dev/kvm`, as far as sysfs shows it.
fn back_end() -> String {
    let names = ["kvm_intel", "kvm_amd", "kvm_pvm"];
    let found = names.into_iter().find(|name| Path::new("/sys/module").join(name).exists());
    match found {
        Some(name) => name.to_owned(),
        None if Path::new("/sys/module/kvm").exists() => "kvm, of which no back end shows as a module".to_owned(),
        None => "built in, which one does not show".to_owned(),
    }
}

fn bpf() -> String {
    let jit = match read("/proc/sys/net/core/bpf_jit_enable").as_deref() {
        Some("0") => "interpreted",
        Some(_) => "compiled to machine code",
        None => "compiler unknown",
    };
    let clock = read("/sys/devices/system/clocksource/clocksource0/current_clocksource").unwrap_or_else(unknown);
    format!("{jit}, clock source {clock}")
}

fn commit() -> Option<String> {
    let ran = |arguments: &[&str]| Command::new("git").args(arguments).output().ok().filter(|out| out.status.success());
    let commit = String::from_utf8(ran(&["rev-parse", "--short=12", "HEAD"])?.stdout).ok()?;
    let changed = !ran(&["status", "--porcelain", "--untracked-files=no"])?.stdout.is_empty();
    Some(format!("{}{}", commit.trim(), if changed { ", with changes that are not committed" } else { "" }))
}
