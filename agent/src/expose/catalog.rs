//! Every metric: name, type, unit, labels with their closed values, help. What is exposed is built from these rows and
//! `docs/metrics.md` is generated from them, so names cannot come apart.

use crate::{
    account::{Role, VmState, network::InterfaceKind},
    expose::connection,
    metrics::Outcome,
    vm::{exit_class, exit_reason},
};

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Only grows, until its VM's next life.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Cumulative buckets.
    Histogram,
}

impl Type {
    /// The word of the text format.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Full name.
    pub name: &'static str,
    /// What it is.
    pub kind: Type,
    /// Base unit, or what is counted.
    pub unit: &'static str,
    /// Label names, `vm_id` and `name` first on series of a VM.
    pub labels: &'static [&'static str],
    /// The help line.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($id:ident: $kind:ident $name:literal [$($label:literal),*] $unit:literal, $help:literal;)+) => {
        $(
            #[doc = $help]
            pub const $id: Metric =
                Metric { name: $name, kind: Type::$kind, unit: $unit, labels: &[$($label),*], help: $help };
        )+
        /// All of this file, in the order of the documentation.
        pub(super) const ALL: &[Metric] = &[$($id),+];
    };
}

mod cpu;
mod disk;
mod host;
mod memory;
mod network;
mod vm;

pub use {cpu::*, disk::*, host::*, memory::*, network::*, vm::*};

/// Every metric, in the order of the documentation.
pub fn all() -> impl Iterator<Item = &'static Metric> {
    [vm::ALL, cpu::ALL, memory::ALL, network::ALL, disk::ALL, host::ALL].into_iter().flatten()
}

/// A label's meaning and its closed set of values, if it has one.
#[must_use]
pub fn values(label: &str) -> String {
    match label {
        "role" => Role::ALL.map(Role::as_label).join(", "),
        "mode" => crate::account::work::MODES.join(", "),
        "by" => "vm_id of the first four others, host, other".to_owned(),
        "interface" => "name on the host; the first 16 of a VM, other".to_owned(),
        "direction" => super::network::DIRECTIONS.join(", "),
        "class" => "the configured ones, external, non_ip, unclassified".to_owned(),
        "observed" => "true, false".to_owned(),
        "vcpu" => "0, 1, 2 … in the order in which the vCPUs were seen".to_owned(),
        "state" => VmState::ALL.map(VmState::as_str).join(", "),
        "op" => crate::ledger::Op::ALL.iter().map(|op| op.as_str()).collect::<Vec<_>>().join(", "),
        "stage" => {
            let stages = kvmeter_common::loss::STAGES.iter().copied();
            stages.chain(crate::engine::OWN_STAGES).collect::<Vec<_>>().join(", ")
        }
        "feature" => {
            let programs = crate::bpf::programs::PROGRAMS.iter().map(|p| p.name);
            programs.chain(["cpu", "uevents"]).collect::<Vec<_>>().join(", ")
        }
        "program" => crate::bpf::programs::PROGRAMS.iter().map(|p| p.name).collect::<Vec<_>>().join(", "),
        "hypervisor" => "qemu, firecracker, cloud-hypervisor, crosvm, kvmtool, unknown".to_owned(),
        "vm_id" => "one a VM: its UUID, else name or VMM id, else <vmm>-<pid>-<hash>".to_owned(),
        "incarnation" => "one a life of a VM's process".to_owned(),
        "name" | "uuid" | "tenant" | "cgroup" => "free text, at most 128 bytes; empty if unknown".to_owned(),
        "listener" => connection::LISTENERS.join(", "),
        "version" | "git_commit" => "one each".to_owned(),
        _ => String::new(),
    }
}

/// Values of `reason`, which differ by metric.
#[must_use]
pub fn reasons(metric: &Metric) -> String {
    match metric.name {
        "kvmeter_vm_exits_total" => exit_class::labels().collect::<Vec<_>>().join(", "),
        "kvmeter_http_connections_cut_total" => connection::CUTS.join(", "),
        "kvmeter_vm_userspace_exits_total" => exit_reason::labels().collect::<Vec<_>>().join(", "),
        _ => {
            let all = crate::ledger::Reason::ALL.iter().map(|r| r.as_str());
            all.chain(["unknown"]).collect::<Vec<_>>().join(", ")
        }
    }
}

/// Values of `outcome`, which differ by metric.
#[must_use]
pub fn outcomes(metric: &Metric) -> String {
    match metric.name {
        "kvmeter_identity_cache_total" => "hit, miss".to_owned(),
        _ => Outcome::ALL.map(Outcome::as_label).join(", "),
    }
}

/// Values of `kind`, which differ by metric.
#[must_use]
pub fn kinds(metric: &Metric) -> String {
    match metric.name {
        "kvmeter_vm_network_interfaces" => InterfaceKind::ALL.map(InterfaceKind::as_str).join(", "),
        _ => crate::ledger::Kind::ALL.iter().map(|k| k.as_str()).collect::<Vec<_>>().join(", "),
    }
}

/// Values of `type`, which differ by metric.
#[must_use]
pub fn types(metric: &Metric) -> &'static str {
    match metric.name {
        "kvmeter_vm_page_faults_total" => "minor, major",
        _ => "anon, file, shmem",
    }
}

/// Values of `source`, which differ by metric.
#[must_use]
pub fn sources(metric: &Metric) -> String {
    match metric.name {
        "kvmeter_kvm_vm_objects" => "uevent, held".to_owned(),
        _ => crate::engine::SOURCES.join(", "),
    }
}

/// The catalogue as Markdown, which is `docs/metrics.md`.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from(
        "# Metrics\n\nGenerated by `cargo xtask docs` from the catalogue in `agent/src/expose/catalog/`; do not edit.\n\n\
         | metric | type | unit | labels | |\n|---|---|---|---|---|\n",
    );
    for metric in all() {
        let labels = metric.labels.iter().map(|l| format!("`{l}`")).collect::<Vec<_>>().join(" ");
        text += &format!(
            "| `{}` | {} | {} | {labels} | {} |\n",
            metric.name,
            metric.kind.as_str(),
            metric.unit,
            metric.help
        );
    }
    text += "\n## Labels\n\n| label | on | values |\n|---|---|---|\n";
    let mut seen: Vec<(String, String)> = Vec::new();
    for metric in all() {
        for label in metric.labels {
            let (on, values) = match *label {
                "reason" => (format!("`{}`", metric.name), reasons(metric)),
                "kind" => (format!("`{}`", metric.name), kinds(metric)),
                "source" => (format!("`{}`", metric.name), sources(metric)),
                "outcome" => (format!("`{}`", metric.name), outcomes(metric)),
                "type" => (format!("`{}`", metric.name), types(metric).to_owned()),
                _ => ("all".to_owned(), values(label)),
            };
            if !seen.contains(&((*label).to_owned(), on.clone())) {
                text += &format!("| `{label}` | {on} | {values} |\n");
                seen.push(((*label).to_owned(), on));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_and_every_label_of_it_occurs_once_and_is_one_prometheus_takes() {
        let word = |text: &str| {
            text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
                && text.starts_with(|c: char| c.is_ascii_lowercase())
        };
        for metric in all() {
            assert_eq!(all().filter(|other| other.name == metric.name).count(), 1, "{}", metric.name);
            assert!(word(metric.name) && metric.labels.iter().all(|label| word(label)), "{}", metric.name);
            let labels: std::collections::BTreeSet<_> = metric.labels.iter().collect();
            assert_eq!(labels.len(), metric.labels.len(), "{}", metric.name);
        }
    }

    #[test]
    fn names_follow_the_fields_conventions() {
        for metric in all() {
            assert!(metric.name.starts_with("kvmeter_"), "{}", metric.name);
            assert_eq!(metric.kind == Type::Counter, metric.name.ends_with("_total"), "{}", metric.name);
            assert!(metric.help.ends_with('.'), "{}", metric.name);
        }
    }

    #[test]
    fn no_label_holds_a_pid_path_timestamp_or_free_text() {
        let free = ["name", "tenant", "cgroup", "uuid", "vm_id", "incarnation", "version", "git_commit"];
        for metric in all() {
            for label in metric.labels {
                assert!(!["pid", "tgid", "path", "time", "error"].contains(label));
                let closed = free.contains(label)
                    || ["reason", "source", "kind", "type", "outcome"].contains(label)
                    || !values(label).is_empty();
                assert!(closed, "{}: {label} has no set of values", metric.name);
            }
        }
    }
}
