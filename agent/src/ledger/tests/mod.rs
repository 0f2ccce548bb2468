//! Laws of the ledger, by what they are about; facts and faulty disks to try them with.

mod bucket;
mod crash;
mod disk;
mod export;
mod faulty;
mod golden;
mod line;
mod recorder;
mod retain;
mod rollup;
mod rotate;
mod schema;
mod since;
mod strict;
mod synth;
mod tamper;
mod touched;
mod writing;

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::journal::Keeper;
use super::manifest::{Manifest, Segment};
use super::*;

const HOST: &str = "0123456789abcdef0123456789abcdef";
const BOOT: &str = "11111111-2222-3333-4444-555555555555";
const SECOND: u64 = 1_000_000_000;
/// 2026-05-20T01:02:03Z.
const T0: u64 = 1_779_238_923 * SECOND;

fn at(second: u64) -> Stamp {
    Stamp { unix_ns: T0 + second * SECOND, mono_ns: 100 * SECOND + second * SECOND }
}

fn incarnation(tgid: u32) -> String {
    format!("111111112222-{tgid}-100000000000")
}

/// A fact of VM `tgid`, `second` seconds after it began.
fn vm(kind: Kind, tgid: u32, second: u64) -> Draft {
    let now = at(second);
    let mut draft = Draft::new(kind, Subject::Incarnation(incarnation(tgid)), BOOT, now.unix_ns, now.mono_ns);
    draft.vm_id = format!("vm-{tgid}");
    draft.hypervisor = "qemu".to_owned();
    draft.shape = Shape { cpu: 2, mem_bytes: 1 << 30, storage_bytes: 0 };
    draft.usage = Some(Usage {
        cpu_vcpu_ns: Some(second * SECOND),
        cpu_vmm_ns: Some(second * 1000),
        mem_byte_ns: Some(u128::from(second) << 70),
        net: vec![NetUsage {
            interface: "tap0".into(),
            class: "host".into(),
            receive_bytes: second,
            ..NetUsage::default()
        }],
        ..Usage::default()
    });
    draft.coverage = Some(Coverage { observed_ns: second * SECOND, unobserved_ns: 0, lost_events: 0 });
    draft
}

fn agent(kind: Kind, second: u64) -> Draft {
    let now = at(second);
    let mut draft = Draft::new(kind, Subject::Ledger, BOOT, now.unix_ns, now.mono_ns);
    draft.shape = Shape { cpu: 8, mem_bytes: 64 << 30, storage_bytes: 0 };
    draft
}

fn stored(kind: Kind, id: &str, second: u64) -> Draft {
    let now = at(second);
    let mut draft = Draft::new(kind, Subject::Storage(id.to_owned()), BOOT, now.unix_ns, now.mono_ns);
    draft.shape.storage_bytes = 10 << 30;
    draft.files = vec![StoredFile { file: "a1:7:9".into(), path: format!("/pool/{id}"), bytes: Some(10 << 30) }];
    if !kind.as_str().starts_with("snap.") {
        id.clone_into(&mut draft.vm_id);
    }
    draft
}

/// A ledger's directory that does not exist yet, and what keeps it.
fn fresh_dir() -> (TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("metering");
    (root, dir)
}

fn open(dir: &Path) -> (Journal, Recovered) {
    Journal::open(dir, HOST, BOOT, at(0)).unwrap()
}

fn file(dir: &Path) -> PathBuf {
    dir.join(FILE_NAME)
}

fn lines(dir: &Path) -> Vec<Line> {
    let bytes = fs::read(file(dir)).unwrap();
    bytes.split_inclusive(|b| *b == b'\n').map(|l| Line::parse(l.strip_suffix(b"\n").unwrap()).unwrap()).collect()
}

/// A day in the life: agent up, two VMs and a disk, heartbeats, one stop with a correction, agent down.
fn day() -> Vec<Draft> {
    let mut correction = vm(Kind::Correction, 1, 30);
    correction.corrects = "0".repeat(32);
    vec![
        agent(Kind::AgentUp, 0),
        vm(Kind::VmComputeStart, 1, 0),
        stored(Kind::VmStorageStart, "vm-1", 0),
        vm(Kind::VmComputeStart, 2, 0),
        vm(Kind::VmComputeUsage, 1, 10),
        vm(Kind::VmComputeUsage, 2, 10),
        vm(Kind::VmIdentity, 2, 11),
        vm(Kind::VmComputeResize, 2, 12),
        vm(Kind::VmComputeUsage, 1, 20),
        vm(Kind::VmComputeStop, 1, 30),
        correction,
        stored(Kind::VmStorageResize, "vm-1", 31),
        stored(Kind::VmStorageStop, "vm-1", 32),
        agent(Kind::AgentGap, 33),
        agent(Kind::AgentDown, 40),
    ]
}

fn verified(dir: &Path) -> Report {
    verify_files(&[file(dir)], false, Anchor::default())
}
