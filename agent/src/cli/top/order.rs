//! Which rows are shown, and in what order.

use super::{feed::Row, plain::plain};
use crate::history::Sample;

/// What rows are sorted by: numbers from the greatest down, names up; what was not measured comes last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Sort {
    /// CPU use.
    #[default]
    Cpu,
    /// Time runnable but not running.
    Delay,
    /// Resident memory.
    Memory,
    /// Bytes into and out of the guest.
    Network,
    /// Bytes read from and written to storage.
    Disk,
    /// Name.
    Name,
}

impl Sort {
    /// All of them, in the order of the columns.
    pub const ALL: [Self; 6] = [Self::Name, Self::Cpu, Self::Delay, Self::Memory, Self::Network, Self::Disk];

    /// The one that lies `by` columns further on; the first comes after the last.
    #[must_use]
    pub fn step(self, by: isize) -> Self {
        let at = Self::ALL.iter().position(|sort| *sort == self).unwrap_or(0);
        let count = Self::ALL.len();
        Self::ALL[at.wrapping_add_signed(by).wrapping_add(count) % count]
    }

    fn key(self, rates: &Sample) -> Option<f64> {
        let both = |a: Option<f64>, b: Option<f64>| a.zip(b).map(|(a, b)| a + b);
        match self {
            Self::Cpu => rates.cpu_percent,
            Self::Delay => rates.cpu_delay_percent,
            Self::Memory => rates.memory_used_bytes.map(|bytes| bytes as f64),
            Self::Network => both(rates.network_in_bytes_per_sec, rates.network_out_bytes_per_sec),
            Self::Disk => both(rates.disk_read_bytes_per_sec, rates.disk_write_bytes_per_sec),
            Self::Name => None,
        }
    }
}

/// The rows that pass the filter, sorted; those that are alike by name and then by life, so that none jumps about.
#[must_use]
pub fn shown<'a>(rows: &'a [Row], filter: &str, sort: Sort, reverse: bool) -> Vec<&'a Row> {
    let wanted = filter.to_lowercase();
    let has = |text: &str| text.to_lowercase().contains(&wanted);
    let mut shown: Vec<&Row> = rows
        .iter()
        .filter(|row| [&row.title, &row.vm_id, &row.tenant, &row.state].iter().any(|text| has(text)))
        .collect();
    let key = |row: &Row| row.rates.as_deref().and_then(|rates| sort.key(rates));
    shown.sort_by(|a, b| {
        let names = || (&a.title, &a.incarnation).cmp(&(&b.title, &b.incarnation));
        match (key(a), key(b)) {
            (Some(a), Some(b)) if reverse => a.total_cmp(&b).then_with(names),
            (Some(a), Some(b)) => b.total_cmp(&a).then_with(names),
            (None, None) if reverse && sort == Sort::Name => names().reverse(),
            // Also when reversed: what was not measured is not the least.
            (a, b) => b.is_some().cmp(&a.is_some()).then_with(names),
        }
    });
    shown
}

/// One who waits, and for whom.
#[derive(Clone, Debug)]
pub struct Wait<'a> {
    /// Who waits.
    pub victim: &'a Row,
    /// A vm_id, `host` or `other`.
    pub by: &'a str,
    /// The same as it is called; safe to print.
    pub title: String,
    /// Percent of one thread's time.
    pub percent: f64,
}

/// Who of `rows` waits for whom of `all`, the longest first; what did not happen is left out.
#[must_use]
pub fn waits<'a>(rows: &[&'a Row], all: &[Row]) -> Vec<Wait<'a>> {
    let title = |by: &str| all.iter().find(|row| row.vm_id == by).map_or_else(|| plain(by), |row| row.title.clone());
    let mut waits = Vec::new();
    for &victim in rows {
        for wait in &victim.waits {
            if let Some(percent) = wait.rates.cpu_delay_percent.filter(|percent| *percent > 0.0) {
                waits.push(Wait { victim, by: &wait.of, title: title(&wait.of), percent });
            }
        }
    }
    waits.sort_by(|a, b| b.percent.total_cmp(&a.percent));
    waits
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn row(title: &str, cpu: Option<f64>) -> Row {
        let rates = Sample { cpu_percent: cpu, ..Sample::default() };
        Row { title: title.into(), incarnation: title.into(), rates: Some(Arc::new(rates)), ..Row::default() }
    }

    fn titles(rows: &[Row], sort: Sort, reverse: bool) -> String {
        shown(rows, "", sort, reverse).iter().map(|row| row.title.as_str()).collect()
    }

    #[test]
    fn what_was_not_measured_comes_last_either_way() {
        let rows = [row("a", None), row("b", Some(1.0)), row("c", Some(2.0)), row("d", Some(0.0))];
        assert_eq!(titles(&rows, Sort::Cpu, false), "cbda");
        assert_eq!(titles(&rows, Sort::Cpu, true), "dbca");
        assert_eq!(titles(&rows, Sort::Name, false), "abcd");
        assert_eq!(titles(&rows, Sort::Name, true), "dcba");
    }

    #[test]
    fn every_sort_key_is_reached_either_way_round() {
        for by in [1, -1] {
            let all = (0..6).scan(Sort::Cpu, |sort, _| {
                let now = *sort;
                *sort = now.step(by);
                Some(now)
            });
            let mut names: Vec<_> = all.map(|sort| format!("{sort:?}")).collect();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), 6);
        }
    }
}
