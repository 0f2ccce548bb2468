//! Rows as they grow: by owner while a life is under way, because its tenant may become known late, then by what the
//! roll-up is asked to tell apart.

use std::collections::{BTreeMap, HashMap};

use super::super::Line;
use super::amount::Amounts;
use super::row::{Row, rows};
use super::stretch::Part;
use super::{By, Order, RollupError, Rows, Sink, Whose};

type Buckets = BTreeMap<u64, Amounts>;

/// All rows that are not written yet.
pub(super) struct Table {
    order: Order,
    open: HashMap<u32, Buckets>,
    of_host: BTreeMap<Whose, Buckets>,
    done: BTreeMap<(String, Whose), Buckets>,
}

impl Table {
    pub(super) fn new(order: Order) -> Self {
        Self { order, open: HashMap::new(), of_host: BTreeMap::new(), done: BTreeMap::new() }
    }

    /// The host is named only now: its rows go where they belong.
    pub(super) fn host_done(&mut self, host: &str) {
        let host = if matches!(self.order.by, By::Vm | By::Host) { host } else { "" };
        for (whose, buckets) in std::mem::take(&mut self.of_host) {
            merge(self.done.entry((host.to_owned(), whose)).or_default(), buckets);
        }
    }

    /// Writes all rows there are, and forgets them.
    pub(super) fn write(&mut self, to: &mut dyn Rows) -> Result<(), RollupError> {
        for ((host, whose), buckets) in std::mem::take(&mut self.done) {
            for (bucket, amounts) in buckets {
                if self.order.since.is_some_and(|since| bucket < since) {
                    continue;
                }
                if self.order.until.is_some_and(|until| bucket >= until) {
                    continue;
                }
                let until = bucket.saturating_add(self.order.period.ns());
                let one = Row { from: bucket, to: until, host: &host, whose: &whose, class: "", amounts: &amounts };
                rows(one).try_for_each(|row| to.row(&row))?;
            }
        }
        Ok(())
    }
}

impl Sink for Table {
    fn add(&mut self, _: Option<&Line>, owner: u32, _: &Whose, part: &Part, amounts: &Amounts) {
        self.open.entry(owner).or_default().entry(part.bucket).or_default().merge(amounts);
    }

    fn close(&mut self, owner: u32, whose: Whose) {
        let whose = match self.order.by {
            By::Vm => whose,
            By::Tenant => Whose { tenant: whose.tenant, ..Whose::default() },
            By::Host | By::All => Whose::default(),
        };
        if let Some(buckets) = self.open.remove(&owner) {
            merge(self.of_host.entry(whose).or_default(), buckets);
        }
    }
}

fn merge(into: &mut Buckets, from: Buckets) {
    if into.is_empty() {
        *into = from;
        return;
    }
    for (bucket, amounts) in from {
        into.entry(bucket).or_default().merge(&amounts);
    }
}
