//! What the agent answered, as rows with rates: each is made by `history`'s own arithmetic from two answers, so a VM seen
//! for the first time has none, and what was not measured is absent.

use std::{collections::HashMap, sync::Arc};

use kvmeter_common::vm::RoleTime;
use serde_json::Value;

use super::plain::{bytes, percent, plain};
use crate::{
    account::{CpuUsage, Role},
    clock,
    history::{Rates, Reading, Sample},
};

/// One VM at one instant.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// Its life.
    pub incarnation: String,
    /// Its id.
    pub vm_id: String,
    /// Its name, or else its id; safe to print.
    pub title: String,
    /// Whose it is; safe to print.
    pub tenant: String,
    /// `running`, `paused` or `stopped`.
    pub state: String,
    /// The rates of the whole VM; none at first, and none of one that has stopped.
    pub rates: Option<Arc<Sample>>,
    /// By role, those that are told.
    pub roles: Vec<Share>,
    /// By vCPU.
    pub vcpus: Vec<Share>,
    /// Whom it waited for: `cpu_delay_percent` of each share.
    pub waits: Vec<Share>,
    /// All that the agent tells of it.
    pub told: Value,
}

impl Row {
    /// As both lists show it: vCPUs, CPU and waiting in percent, memory, network in and out, disk read and written.
    #[must_use]
    pub fn numbers(&self) -> [String; 8] {
        let rates = self.rates.as_deref();
        [
            self.told["shape"]["cpu"].as_u64().map_or_else(|| "-".to_owned(), |n| n.to_string()),
            percent(rates.and_then(|r| r.cpu_percent)),
            percent(rates.and_then(|r| r.cpu_delay_percent)),
            bytes(rates.and_then(|r| r.memory_used_bytes).map(|b| b as f64)),
            bytes(rates.and_then(|r| r.network_in_bytes_per_sec)),
            bytes(rates.and_then(|r| r.network_out_bytes_per_sec)),
            bytes(rates.and_then(|r| r.disk_read_bytes_per_sec)),
            bytes(rates.and_then(|r| r.disk_write_bytes_per_sec)),
        ]
    }
}

/// A part of a VM with rates of its own.
#[derive(Clone, Debug)]
pub struct Share {
    /// Role, vCPU's thread id, or who ran instead.
    pub of: String,
    /// The vCPU's number, of a vCPU.
    pub number: Option<u64>,
    /// Its rates; only those of CPU are told.
    pub rates: Arc<Sample>,
}

/// What rates are made against.
#[derive(Debug, Default)]
struct Meters {
    whole: Rates,
    parts: HashMap<(&'static str, String), Rates>,
}

/// All VMs' meters.
#[derive(Debug, Default)]
pub struct Feed(HashMap<String, Meters>);

impl Feed {
    /// The rows of an answer to `/v1/vms?detail=true`. VMs that it no longer has are forgotten.
    pub fn rows(&mut self, answer: &Value) -> Vec<Row> {
        let vms = answer["vms"].as_array().map_or(&[][..], Vec::as_slice);
        let mut before = std::mem::take(&mut self.0);
        let mut rows = Vec::with_capacity(vms.len());
        for vm in vms {
            let incarnation = text(vm, "incarnation").to_owned();
            let meters = self.0.entry(incarnation.clone());
            let meters = meters.or_insert_with(|| before.remove(&incarnation).unwrap_or_default());
            rows.push(row(vm, meters));
        }
        rows
    }
}

fn row(vm: &Value, meters: &mut Meters) -> Row {
    let at = text(vm, "read_at");
    let at_ns = clock::parse_rfc3339(at).unwrap_or(0);
    let mut row = Row {
        incarnation: text(vm, "incarnation").to_owned(),
        vm_id: text(vm, "vm_id").to_owned(),
        title: plain([text(vm, "name"), text(vm, "vm_id")].into_iter().find(|t| !t.is_empty()).unwrap_or("?")),
        tenant: plain(text(vm, "tenant")),
        state: plain(text(vm, "state")),
        told: vm.clone(),
        ..Row::default()
    };
    if row.state == "stopped" {
        return row;
    }
    meters.whole.offer(at_ns, 1, at, whole(vm));
    row.rates = meters.whole.latest().cloned();
    let mut share = |kind: &'static str, of: &str, number: Option<u64>, cpu: RoleTime| {
        let rates = meters.parts.entry((kind, of.to_owned())).or_default();
        rates.offer(at_ns, 1, at, Reading { cpu: Some(usage(cpu)), ..Reading::default() });
        Some(Share { of: of.to_owned(), number, rates: rates.latest().cloned()? })
    };
    for role in Role::ALL.map(Role::as_label) {
        let (Some(ran), Some(waited)) = (ns(&vm["cpu_ns"][role]), ns(&vm["cpu_delay_ns"][role])) else { continue };
        row.roles.extend(share("role", role, None, RoleTime { runtime_ns: ran, run_delay_ns: waited }));
    }
    for vcpu in vm["vcpus"].as_array().into_iter().flatten() {
        let (Some(ran), Some(waited)) = (ns(&vcpu["cpu_ns"]), ns(&vcpu["cpu_delay_ns"])) else { continue };
        let (tid, number) = (vcpu["tid"].to_string(), vcpu["vcpu"].as_u64());
        row.vcpus.extend(share("vcpu", &tid, number, RoleTime { runtime_ns: ran, run_delay_ns: waited }));
    }
    row.vcpus.sort_by_key(|vcpu| vcpu.number.unwrap_or(u64::MAX));
    for (by, waited) in vm["preempted_ns"].as_object().into_iter().flatten() {
        let Some(run_delay_ns) = ns(waited) else { continue };
        row.waits.extend(share("by", by, None, RoleTime { runtime_ns: 0, run_delay_ns }));
    }
    row
}

/// The cumulative numbers of a whole VM.
fn whole(vm: &Value) -> Reading {
    let sum = |key: &str| Some(vm[key].as_object()?.values().filter_map(ns).sum::<u64>());
    let cpu = sum("cpu_ns").zip(sum("cpu_delay_ns"));
    Reading {
        cpu: cpu.map(|(runtime_ns, run_delay_ns)| usage(RoleTime { runtime_ns, run_delay_ns })),
        disk: ns(&vm["disk_read_bytes"]).zip(ns(&vm["disk_written_bytes"])),
        network: network(vm),
        memory_used: vm["memory"]["used_bytes"].as_u64(),
        memory_limit: vm["shape"]["mem_bytes"].as_u64(),
        workload: None,
    }
}

/// Bytes into and out of the guest over all its interfaces that are counted; absent where there is none.
fn network(vm: &Value) -> Option<(u64, u64)> {
    let interfaces = vm["network"].as_array()?.iter();
    let classes = interfaces.filter_map(|interface| interface["classes"].as_array()).flatten();
    let each = classes.filter_map(|class| ns(&class["receive_bytes"]).zip(ns(&class["transmit_bytes"])));
    each.reduce(|(into, out), (more_in, more_out)| (into + more_in, out + more_out))
}

/// How much is whose does not matter to the sum.
fn usage(time: RoleTime) -> CpuUsage {
    let mut usage = CpuUsage::default();
    *usage.of_mut(Role::Vcpu) = time;
    usage
}

/// A decimal string, as the API writes nanoseconds and bytes.
fn ns(value: &Value) -> Option<u64> {
    value.as_str()?.parse().ok()
}

fn text<'a>(vm: &'a Value, key: &str) -> &'a str {
    vm[key].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answer(second: u64, cpu_s: u64, waited_s: u64) -> Value {
        let ns = |s: u64| (s * 1_000_000_000).to_string();
        json!({"vms": [{
            "vm_id": "a", "incarnation": "i", "name": "", "state": "running", "shape": {"cpu": 1},
            "read_at": clock::rfc3339((1_700_000_000 + second) * 1_000_000_000),
            "cpu_ns": {"vcpu": ns(cpu_s), "vmm": ns(0)}, "cpu_delay_ns": {"vcpu": ns(waited_s), "vmm": ns(0)},
            "preempted_ns": {"b": ns(waited_s), "host": ns(0)},
            "vcpus": [{"vcpu": 0, "tid": 7, "cpu_ns": ns(cpu_s), "cpu_delay_ns": ns(waited_s)}],
            "network": [{"interface": "t", "classes": [
                {"class": "x", "receive_bytes": (100 * second).to_string(), "transmit_bytes": "0"},
                {"class": "y", "receive_bytes": (200 * second).to_string(), "transmit_bytes": "0"}]}],
        }]})
    }

    #[test]
    fn rates_are_what_lies_between_two_answers_and_the_first_has_none() {
        let mut feed = Feed::default();
        let first = feed.rows(&answer(0, 10, 5));
        assert!(first[0].rates.is_none() && first[0].vcpus.is_empty());
        let second = feed.rows(&answer(2, 11, 6));
        let rates = second[0].rates.as_deref().unwrap();
        assert_eq!((rates.cpu_percent, rates.cpu_delay_percent), (Some(50.0), Some(50.0)));
        assert_eq!((rates.network_in_bytes_per_sec, rates.disk_read_bytes_per_sec), (Some(300.0), None));
        assert_eq!(second[0].vcpus[0].rates.cpu_percent, Some(50.0));
        let by: Vec<_> = second[0].waits.iter().map(|w| (w.of.as_str(), w.rates.cpu_delay_percent)).collect();
        assert_eq!(by, [("b", Some(50.0)), ("host", Some(0.0))]);
    }

    #[test]
    fn another_life_of_an_id_has_no_rate_against_the_one_before() {
        let mut feed = Feed::default();
        feed.rows(&answer(0, 10, 5));
        let mut next = answer(2, 11, 6);
        next["vms"][0]["incarnation"] = json!("j");
        assert!(feed.rows(&next)[0].rates.is_none());
        assert_eq!(feed.0.len(), 1, "the one that is gone is forgotten");
    }
}
