//! `[workload]`: which label is the address of a workload's own metrics, and what is read there.

use std::time::Duration;

use super::{raw::Value, resolved::Workload, take::Taker};
use crate::workload::milliseconds;

/// Names of each list.
const MOST_NAMES: usize = 16;
/// Bytes of a metric's or label's name.
const NAME_BYTES: usize = 128;

/// Takes the section.
pub(super) fn workload(taker: &mut Taker, default: &Workload) -> Workload {
    let allowed = "must be the name of a label, of at most 128 bytes, or \"\" for none";
    let label =
        taker.text("workload.label", allowed, |text| text.len() <= NAME_BYTES && !text.contains(char::is_control));
    Workload {
        label: label.filter(|label| !label.is_empty()),
        requests: names(taker, "workload.requests", &default.requests, "", |_| true),
        latency: names(
            taker,
            "workload.latency",
            &default.latency,
            " that end in their unit, _seconds, _milliseconds, _ms or _microseconds,",
            |name| milliseconds(name).is_some(),
        ),
        timeout: taker.duration(
            "workload.timeout",
            default.timeout,
            Duration::from_millis(100),
            Duration::from_secs(60),
        ),
    }
}

fn names(taker: &mut Taker, key: &str, default: &[String], which: &str, fits: fn(&str) -> bool) -> Vec<String> {
    let like = default.first().map(String::as_str).unwrap_or_default();
    let allowed = format!("must be a list of at most {MOST_NAMES} names of metrics{which} such as {like:?}");
    let is_name = |name: &str| {
        let tail = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b':';
        (1..=NAME_BYTES).contains(&name.len()) && name.bytes().all(tail) && !name.as_bytes()[0].is_ascii_digit()
    };
    taker
        .take(key, &allowed, |value| match value {
            Value::List(names) if names.len() <= MOST_NAMES => {
                names.iter().all(|name| is_name(name) && fits(name)).then(|| names.clone())
            }
            _ => None,
        })
        .unwrap_or_else(|| default.to_vec())
}
