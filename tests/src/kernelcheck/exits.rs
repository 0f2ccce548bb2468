//! Exits by reason against the kernel's own trace of the same guest run, and what the VMM itself counted.
//!
//! The trace's words are translated by a table of this file's own: the agent's vocabulary would agree with itself.

use std::{
    collections::BTreeMap,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use super::check::{Bench, Verdict};
use crate::{
    metrics::Metrics,
    trace::{Record, Trace},
    vmm::spawn,
};

const EXITS: &str = "kvmeter_vm_exits_total";
const USERSPACE_EXITS: &str = "kvmeter_vm_userspace_exits_total";
/// The program that counts them.
const EXIT_PROGRAM: &str = "kvm_exit_reason";
const PATIENCE: Duration = Duration::from_secs(60);

/// Guests that leave for different reasons; each ends by itself, so that both sides count the same run.
const RUNS: [(&str, &[&str]); 4] = [
    ("spins", &["--duty", "100", "--lifetime", "800ms"]),
    ("touches", &["--duty", "20", "--vcpus", "2", "--touch", "1M", "--lifetime", "800ms"]),
    ("faults", &["--duty", "50", "--exit-rate", "100", "--lifetime", "600ms", "--end", "triple-fault"]),
    ("halts", &["--duty", "30", "--lifetime", "600ms", "--end", "halt"]),
];

/// What words of `kvm_exit`'s record on SVM are called by kvmeter; every other word is `other`.
const WORDS: [(&str, &[&str]); 13] = [
    ("external_interrupt", &["interrupt"]),
    ("page_fault", &["npf"]),
    ("halt", &["hlt", "mwait", "idle-halt"]),
    ("io", &["io"]),
    ("msr", &["msr", "efer_write_trap"]),
    ("cpuid", &["cpuid"]),
    ("hypercall", &["hypercall", "vmgexit"]),
    ("interrupt_window", &["vintr", "iret"]),
    ("exception_nmi", &["nmi"]),
    ("pause", &["pause"]),
    ("shutdown", &["shutdown"]),
    ("apic", &["avic_incomplete_ipi", "avic_unaccelerated_access"]),
    ("nested_virtualization", &["invlpga", "vmrun", "vmload", "vmsave", "stgi", "clgi", "skinit"]),
];

type Counts = BTreeMap<String, u64>;

/// A run's trace and the agent's last word on it.
pub(super) fn run(bench: &Bench, id: &str, args: &[&str], events: &[&str]) -> Result<(Vec<Record>, Metrics)> {
    let agent = &bench.agent;
    let trace = Trace::start("run", events)?;
    // Not waited for until it is ready: on a slow machine its short life may be over by then.
    let ended = Command::new(spawn::binary()?).args(["--id", id]).args(args).stdin(Stdio::null()).status()?;
    ensure!(ended.success(), "{id} ended with {ended}");
    agent.ended(id)?;
    agent.wait_until("its end", PATIENCE, |agent| {
        Ok(agent.metrics()?.one("kvmeter_vm_running", &[("vm_id", id)]) == Some(0.0))
    })?;
    Ok((trace.so_far()?, agent.metrics()?))
}

/// `kvm_exit`, by kvmeter's words.
pub fn by_reason(bench: &Bench) -> Result<Verdict> {
    if let Some(why) = bench.programs.absence(EXIT_PROGRAM) {
        return Ok(Verdict::Absent(why));
    }
    let runs = |attempt| RUNS.iter().map(|(id, args)| reasons(bench, &format!("{id}{attempt}"), args)).collect();
    let told: Vec<String> = bench.unskipped(EXIT_PROGRAM, runs)?;
    Ok(Verdict::Holds(told.join("; ")))
}

fn reasons(bench: &Bench, id: &str, args: &[&str]) -> Result<String> {
    let (records, scrape) = run(bench, id, args, &["kvm_exit"])?;
    let mut due = Counts::new();
    for record in records.iter().filter(|record| record.event == "kvm_exit") {
        *due.entry(label(&record.text)?).or_default() += 1;
    }
    compare(id, &due, &counts(&scrape, EXITS, id))?;
    Ok(format!("{id} {}", listed(&due)))
}

/// `kvm_userspace_exit`, by the kernel's words; and the VMM counted the same.
pub fn to_user_space(bench: &Bench) -> Result<Verdict> {
    if let Some(why) = bench.programs.absence("kvm_userspace_exit") {
        return Ok(Verdict::Absent(why));
    }
    bench.unskipped("kvm_userspace_exit", |attempt| leaves(bench, &format!("leaves{attempt}"))).map(Verdict::Holds)
}

fn leaves(bench: &Bench, id: &str) -> Result<String> {
    let dir = TempDir::new()?;
    let file = dir.path().join("count");
    let path = file.to_str().context("no path")?;
    let args = ["--duty", "50", "--exit-rate", "100", "--lifetime", "800ms", "--end", "triple-fault", "--count", path];
    let (records, scrape) = run(bench, id, &args, &["kvm_userspace_exit"])?;
    let mut due = Counts::new();
    for record in &records {
        *due.entry(userspace_label(&record.text)?).or_default() += 1;
    }
    compare(id, &due, &counts(&scrape, USERSPACE_EXITS, id))?;
    let own: Value = serde_json::from_str(&std::fs::read_to_string(&file)?)?;
    for (ours, theirs) in [("mmio", "mmio"), ("shutdown", "shutdown"), ("intr", "interrupted")] {
        let counted = due.get(theirs).copied().unwrap_or_default();
        ensure!(own["exits"][ours] == counted, "{theirs}: the VMM counted {own}, the kernel {due:?}");
    }
    Ok(listed(&due))
}

fn counts(scrape: &Metrics, name: &str, vm_id: &str) -> Counts {
    let labels = [("vm_id", vm_id)];
    let series = scrape.all(name, &labels).filter(|series| series.value > 0.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a counter of whole numbers")]
    series.filter_map(|s| Some((s.labels.get("reason")?.clone(), s.value as u64))).collect()
}

fn compare(id: &str, due: &Counts, told: &Counts) -> Result<()> {
    ensure!(!due.is_empty(), "{id}: the kernel traced nothing");
    ensure!(due == told, "{id}: the kernel traced {due:?}, the agent tells {told:?}");
    Ok(())
}

fn listed(counts: &Counts) -> String {
    counts.iter().map(|(reason, count)| format!("{reason} {count}")).collect::<Vec<_>>().join(", ")
}

/// `reason WORD rip …`, and `vcpu N reason WORD rip …` since about 6.1; the words may be two, as in `PF excp`.
fn label(text: &str) -> Result<String> {
    let (_, rest) = text.split_once("reason ").with_context(|| format!("no reason: {text}"))?;
    let (word, _) = rest.split_once(" rip ").with_context(|| format!("no end of the reason: {text}"))?;
    let known = WORDS.iter().find(|(_, words)| words.contains(&word)).map(|(label, _)| *label);
    let label = match known {
        Some(label) => label,
        None if word.contains("excp") => "exception_nmi",
        None if ["read_cr", "write_cr", "cr0_sel_"].iter().any(|start| word.starts_with(start)) => "cr_access",
        None => "other",
    };
    Ok(label.to_owned())
}

/// `reason KVM_EXIT_MMIO (6)`, or `reason error (4)` and `reason restart (4)` of a run that a signal cut short.
fn userspace_label(text: &str) -> Result<String> {
    let word = text.strip_prefix("reason ").and_then(|rest| rest.split(' ').next());
    let word = word.with_context(|| format!("no reason: {text}"))?;
    Ok(match word.strip_prefix("KVM_EXIT_") {
        Some(name) => name.to_ascii_lowercase(),
        None => "interrupted".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_traces_words_of_old_and_new_kernels_have_kvmeters_labels() {
        for (text, due) in [
            ("reason interrupt rip 0x1 info 0 0", "external_interrupt"),
            ("vcpu 0 reason npf rip 0x1 info1 0x1 info2 0x2 intr_info 0x0 error_code 0x0", "page_fault"),
            ("vcpu 1 reason PF excp rip 0x1 info1 0x1", "exception_nmi"),
            ("reason write_cr0 rip 0x1 info 0 0", "cr_access"),
            ("reason rdtscp rip 0x1 info 0 0", "other"),
        ] {
            assert_eq!(label(text).unwrap(), due);
        }
        assert!(label("vcpu 0").is_err());
    }

    #[test]
    fn a_run_cut_short_has_no_valid_reason() {
        assert_eq!(userspace_label("reason KVM_EXIT_MMIO (6)").unwrap(), "mmio");
        assert_eq!(userspace_label("reason restart (4)").unwrap(), "interrupted");
    }
}
