//! The values of a sample as whole numbers that compress: 0 is absent, so a value that was not measured costs nothing
//! and can never be taken for a zero.
//!
//! Levels are exact. Rates keep 13 significant bits: at most 1 part in 8,192 off, far less than a sampled rate is
//! worth, and a third of the memory of an exact one.

use super::Sample;
use crate::account::past::COLUMNS;

/// Whether a column is a level in whole bytes; else it is a rate.
const LEVEL: [bool; COLUMNS] = [false, false, true, true, false, false, false, false, false, false];

/// Low bits of a single-precision number that a rate is kept without: 24 significant ones less 13.
const DROPPED: u32 = 11;

/// The values of a sample.
#[must_use]
pub fn codes(sample: &Sample) -> [u64; COLUMNS] {
    [
        rate(sample.cpu_percent),
        rate(sample.cpu_delay_percent),
        level(sample.memory_used_bytes),
        level(sample.memory_limit_bytes),
        rate(sample.network_in_bytes_per_sec),
        rate(sample.network_out_bytes_per_sec),
        rate(sample.disk_read_bytes_per_sec),
        rate(sample.disk_write_bytes_per_sec),
        rate(sample.requests_per_sec),
        rate(sample.latency_p95_ms),
    ]
}

/// What a column's number means; `None` if it was not measured.
#[must_use]
pub fn value(column: usize, code: u64) -> Option<f64> {
    let number = code.checked_sub(1)?;
    if LEVEL.get(column).copied().unwrap_or(false) {
        return Some(number as f64);
    }
    let bits = u32::try_from(number).ok()?.checked_shl(DROPPED)?;
    Some(f64::from(f32::from_bits(bits)))
}

fn level(value: Option<u64>) -> u64 {
    value.map_or(0, |value| value.saturating_add(1))
}

/// Rounded to the nearest that is kept. What is no rate (negative, not a number) is absent.
fn rate(value: Option<f64>) -> u64 {
    let Some(value) = value.filter(|value| value.is_finite() && *value >= 0.0) else { return 0 };
    #[expect(clippy::cast_possible_truncation, reason = "rounding is what is wanted here")]
    let single = (value as f32).min(f32::MAX);
    let half = 1u64 << (DROPPED - 1);
    let kept = (u64::from(single.to_bits()) + half) >> DROPPED;
    // Rounding up the greatest would give infinity.
    kept.min(u64::from(f32::MAX.to_bits() >> DROPPED)) + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn absent_is_absent_and_zero_is_zero() {
        assert_eq!(value(0, rate(None)), None);
        assert_eq!(value(0, rate(Some(0.0))), Some(0.0));
        assert_eq!(value(2, level(Some(0))), Some(0.0));
        for no_rate in [f64::NAN, f64::INFINITY, -1.0] {
            assert_eq!(value(0, rate(Some(no_rate))), None, "{no_rate}");
        }
    }

    proptest! {
        #[test]
        fn a_rate_is_kept_to_one_part_in_8192(given in 0.0..1e30f64) {
            let kept = value(0, rate(Some(given))).unwrap();
            // Below the smallest normal number a rate is one byte in an age.
            prop_assert!((kept - given).abs() <= given / 8192.0 + 1e-37, "{given} became {kept}");
        }

        #[test]
        fn a_level_is_kept_to_the_byte(given in 0u64..1 << 53) {
            prop_assert_eq!(value(2, level(Some(given))), Some(given as f64));
        }

        #[test]
        fn no_number_panics(column in 0usize..20, code in any::<u64>()) {
            let _ = value(column, code);
        }
    }
}
