//! Cumulative counters of one life, turned into what they grew by since the line that last told them.
//! A counter that falls is a fault that is told, and adds nothing until it is past where it was.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::super::input::Notes;
use super::super::{Line, Usage};
use super::amount::{NetAmounts, Quantity};
use super::stretch::Point;

const COUNTERS: usize = 8;

/// What a counter grew by, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Growth {
    pub(super) since: Point,
    pub(super) by: u128,
}

/// What each traffic class grew by, and since when.
#[derive(Debug)]
pub(super) struct NetGrowth {
    pub(super) since: Point,
    pub(super) by: Vec<(Rc<str>, NetAmounts)>,
}

#[derive(Debug, Clone, Copy)]
struct Told {
    at: Point,
    value: u128,
}

/// The counters of one life.
#[derive(Debug)]
pub(super) struct Counters {
    told: [Option<Told>; COUNTERS],
    net_since: Option<Point>,
    net: BTreeMap<Rc<str>, NetAmounts>,
}

impl Counters {
    /// All at 0 at the beginning of a life; unknown if that was not seen.
    pub(super) fn new(beginning: Option<Point>) -> Self {
        let told = beginning.map(|at| Told { at, value: 0 });
        Self { told: [told; COUNTERS], net_since: beginning, net: BTreeMap::new() }
    }

    /// What each counter of the line grew by.
    pub(super) fn grow(&mut self, line: &Line, at: Point, notes: &mut Notes) -> Vec<(Quantity, Growth)> {
        let mut grown = Vec::with_capacity(COUNTERS);
        for ((what, value), told) in values(line).into_iter().zip(&mut self.told) {
            let Some(value) = value else { continue };
            let Some(before) = told else {
                *told = Some(Told { at, value });
                continue;
            };
            if value < before.value {
                notes.fault(|| format!("{} fell from {} to {value} in line {}", what.as_str(), before.value, line.id));
            }
            grown.push((what, Growth { since: before.at, by: value.saturating_sub(before.value) }));
            *before = Told { at, value: value.max(before.value) };
        }
        grown
    }

    /// What each traffic class grew by, and since when.
    pub(super) fn grow_net(&mut self, line: &Line, at: Point, notes: &mut Notes) -> Option<NetGrowth> {
        let usage = line.fact.usage.as_ref().filter(|_| !line.trimmed.iter().any(|key| key == "usage.net"))?;
        let since = self.net_since.replace(at);
        let mut grown = Vec::new();
        for (class, now) in by_class(usage) {
            let known = self.net.get_key_value(class.as_str()).map(|(class, _)| Rc::clone(class));
            let class = known.unwrap_or_else(|| Rc::from(class.as_str()));
            let before = self.net.entry(Rc::clone(&class)).or_insert(if since.is_some() { [0; 4] } else { now });
            if now.iter().zip(&*before).any(|(now, before)| now < before) {
                notes.fault(|| format!("traffic of class {class} fell in line {}", line.id));
            }
            let mut by = [0; 4];
            for ((by, now), before) in by.iter_mut().zip(now).zip(before) {
                *by = now.saturating_sub(*before);
                *before = now.max(*before);
            }
            grown.push((class, by));
        }
        since.map(|since| NetGrowth { since, by: grown })
    }
}

fn values(line: &Line) -> [(Quantity, Option<u128>); COUNTERS] {
    let nothing = Usage::default();
    let usage = line.fact.usage.as_ref().unwrap_or(&nothing);
    let of = |value: Option<u64>| value.map(u128::from);
    [
        (Quantity::Unobserved, line.fact.coverage.map(|c| c.unobserved_ns.into())),
        (Quantity::CpuUsed, of(usage.cpu_ns())),
        (Quantity::VcpuUsed, of(usage.cpu_vcpu_ns)),
        (Quantity::Guest, of(usage.guest_ns)),
        (Quantity::RunDelay, of(usage.run_delay_ns)),
        (Quantity::MemUsed, usage.mem_byte_ns),
        (Quantity::DiskRead, of(usage.disk_read_bytes)),
        (Quantity::DiskWritten, of(usage.disk_written_bytes)),
    ]
}

/// Interfaces come and go and are told together when there are many; their sum by class is what only grows.
fn by_class(usage: &Usage) -> BTreeMap<&String, NetAmounts> {
    let mut sums: BTreeMap<&String, NetAmounts> = BTreeMap::new();
    for net in &usage.net {
        let sum = sums.entry(&net.class).or_default();
        let more = [net.receive_bytes, net.receive_packets, net.transmit_bytes, net.transmit_packets];
        for (sum, more) in sum.iter_mut().zip(more) {
            *sum = sum.saturating_add(more.into());
        }
    }
    sums
}
