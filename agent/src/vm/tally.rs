//! Keeping count of KVM's uevents: what KVM has, and how many events we missed. Pure.
//!
//! KVM counts under its lock and sends afterwards (virt/kvm/kvm_main.c, `kvm_uevent_notify_change`), so events of
//! several CPUs arrive out of order. `2·CREATED − COUNT` grows by one with every creation and every destruction: it
//! numbers the events.

/// What the events told so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    first: Option<u64>,
    newest: u64,
    seen: u64,
    created: u64,
    count: u64,
}

impl Tally {
    /// Takes one event's totals.
    pub fn take(&mut self, created: u64, count: u64) {
        let number = created.saturating_mul(2).saturating_sub(count);
        self.seen += 1;
        self.first = Some(self.first.map_or(number, |first| first.min(number)));
        if number >= self.newest {
            (self.newest, self.created, self.count) = (number, created, count);
        }
    }

    /// The newest event's number.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.newest
    }

    /// VM objects made since KVM was loaded.
    #[must_use]
    pub fn created(&self) -> Option<u64> {
        self.first.map(|_| self.created)
    }

    /// VM objects there are.
    #[must_use]
    pub fn count(&self) -> Option<u64> {
        self.first.map(|_| self.count)
    }

    /// Events between the first and the newest that have not arrived; those under way count for a moment.
    #[must_use]
    pub fn missing(&self) -> u64 {
        self.first.map_or(0, |first| (self.newest - first + 1).saturating_sub(self.seen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Totals after each event: true = creation.
    fn story(events: &[bool]) -> Vec<(u64, u64)> {
        let (mut created, mut count) = (100, 5);
        let mut totals = Vec::new();
        for create in events {
            if *create {
                created += 1;
                count += 1;
            } else if count > 0 {
                count -= 1;
            } else {
                continue;
            }
            totals.push((created, count));
        }
        totals
    }

    proptest! {
        #[test]
        fn events_out_of_order_are_none_missing_and_a_lost_one_is(
            events in proptest::collection::vec(any::<bool>(), 3..60), lost in 1usize..58, swap in 0usize..58,
        ) {
            let mut totals = story(&events);
            let end = totals.last().copied();
            let length = totals.len();
            if length < 3 { return Ok(()); }
            totals.swap(swap % (length - 1), swap % (length - 1) + 1);
            let mut tally = Tally::default();
            for (created, count) in &totals { tally.take(*created, *count); }
            prop_assert_eq!(tally.missing(), 0);
            prop_assert_eq!(tally.created().zip(tally.count()), end);
            let mut gapped = Tally::default();
            let inner = 1 + lost % (length - 2);
            let mut ordered = story(&events);
            ordered.remove(inner);
            for (created, count) in ordered { gapped.take(created, count); }
            prop_assert_eq!(gapped.missing(), 1);
        }
    }

    #[test]
    fn nothing_heard_is_nothing_known() {
        assert_eq!((Tally::default().count(), Tally::default().missing()), (None, 0));
    }
}
