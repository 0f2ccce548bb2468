//! When a ledger's oldest file may go: once it is old or all are too large, and every reader has acknowledged it; or,
//! where the operator has set a hard bound, beyond that in any case. Pure.

use super::Keeping;
use super::manifest::Entry;

/// The oldest file goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Due {
    /// Lines of it that some reader has not acknowledged.
    pub(super) unread: u64,
}

/// Whether the oldest of `entries` goes now; `acknowledged` has the number each reader has come to.
pub(super) fn next(
    entries: &[Entry],
    live_bytes: u64,
    now_ns: u64,
    acknowledged: &[(String, u64)],
    keeping: &Keeping,
) -> Option<Due> {
    let oldest = entries.first()?;
    let total = entries.iter().map(|entry| entry.bytes).sum::<u64>() + live_bytes;
    let exceeds = |bound: Option<u64>| bound.is_some_and(|bound| total > bound);
    let is_old = keeping.retain_ns.is_some_and(|retain| now_ns.saturating_sub(oldest.until) >= retain);
    let slowest = acknowledged.iter().map(|(_, seq)| *seq).min().unwrap_or(u64::MAX);
    let unread = oldest.last.saturating_sub(slowest.max(oldest.first.saturating_sub(1)));
    let wanted = is_old || exceeds(keeping.max_total_bytes);
    ((wanted && unread == 0) || exceeds(keeping.max_unread_bytes)).then_some(Due { unread })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(first: u64, last: u64) -> Entry {
        let (name, sha256, head) = (String::new(), String::new(), String::new());
        Entry { name, first, last, bytes: 100, sha256, head, until: last * 1000 }
    }

    fn due(readers: &[u64], keeping: &Keeping) -> Option<u64> {
        let acknowledged: Vec<_> = readers.iter().map(|seq| ("r".to_owned(), *seq)).collect();
        next(&[entry(11, 20), entry(21, 30)], 50, 40_000, &acknowledged, keeping).map(|due| due.unread)
    }

    #[test]
    fn a_file_goes_once_it_is_old_or_all_are_too_large() {
        let keeping = Keeping::default();
        assert_eq!(due(&[], &keeping), None);
        assert_eq!(due(&[], &Keeping { retain_ns: Some(20_000), ..keeping.clone() }), Some(0));
        assert_eq!(due(&[], &Keeping { retain_ns: Some(20_001), ..keeping.clone() }), None);
        assert_eq!(due(&[], &Keeping { max_total_bytes: Some(249), ..keeping.clone() }), Some(0));
        assert_eq!(due(&[], &Keeping { max_total_bytes: Some(250), ..keeping.clone() }), None);
        assert_eq!(next(&[], 1 << 40, u64::MAX, &[], &Keeping { max_total_bytes: Some(0), ..keeping }), None);
    }

    #[test]
    fn a_file_that_the_slowest_reader_has_not_acknowledged_stays_up_to_the_hard_bound() {
        let keeping = Keeping { retain_ns: Some(0), max_total_bytes: Some(0), ..Keeping::default() };
        assert_eq!(due(&[99, 20], &keeping), Some(0));
        assert_eq!(due(&[99, 19], &keeping), None);
        let hard = |bytes| Keeping { max_unread_bytes: Some(bytes), ..keeping.clone() };
        assert_eq!(due(&[99, 19], &hard(250)), None);
        assert_eq!(due(&[99, 19], &hard(249)), Some(1), "told how many lines that are");
        assert_eq!(due(&[0], &hard(249)), Some(10), "those of this file alone");
    }
}
