//! "Did you mean": the known name nearest to a mistyped one.

/// The longest mistyped name that is compared, in bytes; it bounds the work.
const MAX_NAME: usize = 64;

/// The candidate nearest to `name`, if it is near enough to be a slip: a third of the name at most.
///
/// A path also matches by its last part, so that a key in the wrong table is found in the right one.
pub(super) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > MAX_NAME {
        return None;
    }
    candidates
        .map(|candidate| (rank(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= (name.chars().count() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn rank(name: &str, candidate: &str) -> usize {
    let last = |path: &str| path.rsplit('.').next().map_or(0, str::len);
    let tail = &name[name.len() - last(name)..];
    let candidate_tail = &candidate[candidate.len() - last(candidate)..];
    let whole = distance(name, candidate);
    if tail == candidate_tail { whole.min(1) } else { whole }
}

/// Levenshtein's edit distance, in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NAMES: [&str; 3] = ["ledger.heartbeat", "sample_interval", "history.interval"];

    fn suggestion(name: &str) -> Option<&'static str> {
        nearest(name, NAMES.into_iter())
    }

    #[test]
    fn a_slip_is_recognised_and_a_stranger_is_not() {
        assert_eq!(suggestion("ledger.hartbeat"), Some("ledger.heartbeat"));
        assert_eq!(suggestion("sample-interval"), Some("sample_interval"));
        assert_eq!(suggestion("heartbeat"), Some("ledger.heartbeat"));
        assert_eq!(suggestion("metrics.heartbeat"), Some("ledger.heartbeat"));
        assert_eq!(suggestion("colour"), None);
        assert_eq!(suggestion(&"x".repeat(9999)), None);
    }

    proptest! {
        #[test]
        fn distance_is_symmetric_and_zero_only_for_equals(a in "\\PC{0,12}", b in "\\PC{0,12}") {
            prop_assert_eq!(distance(&a, &b), distance(&b, &a));
            prop_assert_eq!(distance(&a, &b) == 0, a == b);
            let _ = rank(&a, &b);
        }
    }
}
