//! A row as every form writes it: whose and when, whole numbers, and a few of them again in units for people.
//! A row without class has everything but traffic; each class of traffic has a row of its own beside it.

use std::borrow::Cow;

use super::Whose;
use super::amount::{Amounts, NET_NAMES, Quantity};

const SECOND: u128 = 1_000_000_000;
const GIB: u128 = 1 << 30;

/// Names of the keys, in order.
pub(super) const KEYS: [&str; 7] = ["from", "to", "host", "vm_id", "storage_id", "tenant", "class"];

/// Numbers in units for people: name, what it is made of, how many base units make one. Rounded down at nine decimals,
/// so bills use the whole numbers.
pub(super) const READABLE: [(&str, Quantity, u128); 5] = [
    ("vcpu_allocated_seconds", Quantity::VcpuAllocated, SECOND),
    ("cpu_used_seconds", Quantity::CpuUsed, SECOND),
    ("mem_allocated_gib_seconds", Quantity::MemAllocated, GIB * SECOND),
    ("mem_used_gib_seconds", Quantity::MemUsed, GIB * SECOND),
    ("storage_gib_hours", Quantity::Storage, GIB * SECOND * 3600),
];

/// One row.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// Where the bucket begins, Unix nanoseconds.
    pub from: u64,
    /// Where it ends.
    pub to: u64,
    /// machine-id; empty where hosts are added up.
    pub host: &'a str,
    pub(super) whose: &'a Whose,
    /// Empty on the row that has everything but traffic.
    pub class: &'a str,
    pub(super) amounts: &'a Amounts,
}

impl<'a> Row<'a> {
    /// The keys' values, in order.
    pub(super) fn keys(&self) -> [Cow<'a, str>; 7] {
        let texts = [self.host, &self.whose.vm_id, &self.whose.storage_id, &self.whose.tenant, self.class];
        let [host, vm_id, storage_id, tenant, class] = texts.map(Cow::Borrowed);
        [instant(self.from).into(), instant(self.to).into(), host, vm_id, storage_id, tenant, class]
    }

    /// The whole numbers, by name and in order; absent ones were not measured or are another row's.
    pub(super) fn numbers(&self) -> impl Iterator<Item = (&'static str, Option<u128>)> + '_ {
        let plain = Quantity::ALL.iter().map(|what| (what.as_str(), self.quantity(*what)));
        let of_class = self.amounts.net().iter().find(|(class, _)| **class == *self.class).map(|(_, net)| *net);
        let net = of_class.filter(|_| !self.class.is_empty());
        plain.chain(NET_NAMES.into_iter().enumerate().map(move |(at, name)| (name, net.map(|net| net[at]))))
    }

    /// The same again for people.
    pub(super) fn readable(&self) -> impl Iterator<Item = (&'static str, Option<String>)> + '_ {
        READABLE.iter().map(|(name, what, unit)| (*name, self.quantity(*what).map(|value| decimal(value, *unit))))
    }

    fn quantity(&self, what: Quantity) -> Option<u128> {
        if self.class.is_empty() { self.amounts.get(what) } else { None }
    }
}

/// A bucket's rows: the one without class, then one for each class.
pub(super) fn rows(whole: Row<'_>) -> impl Iterator<Item = Row<'_>> {
    let classes = whole.amounts.net().iter().filter(|(class, _)| !class.is_empty());
    std::iter::once(whole).chain(classes.map(move |(class, _)| Row { class, ..whole }))
}

/// A whole second of UTC.
fn instant(unix_ns: u64) -> String {
    let at = std::time::UNIX_EPOCH + std::time::Duration::from_nanos(unix_ns);
    humantime::format_rfc3339_seconds(at).to_string()
}

/// `value` in `unit`s with nine decimals, rounded down.
fn decimal(value: u128, unit: u128) -> String {
    let (mut rest, mut text) = (value % unit, (value / unit).to_string());
    text.push('.');
    for _ in 0..9 {
        rest *= 10;
        text.push(char::from(b'0' + u8::try_from(rest / unit).unwrap_or(0)));
        rest %= unit;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readable_numbers_are_rounded_down_in_integers() {
        assert_eq!(decimal(1_500_000_000, SECOND), "1.500000000");
        assert_eq!(decimal(GIB * SECOND * 3600 - 1, GIB * SECOND * 3600), "0.999999999");
        assert_eq!(decimal(u128::MAX, GIB * SECOND * 3600), "88031291682515930.659493278");
    }
}
