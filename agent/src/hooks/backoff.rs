//! How long a hook waits before it tries again. Pure.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

/// The longest pause.
const LONGEST: Duration = Duration::from_secs(600);

/// The pause before try number `attempt` (the first repeat is 2), doubled from `base` each time, less up to a half by
/// what is told: many hosts that lost one receiver do not come back to it in step.
#[must_use]
pub fn pause(base: Duration, attempt: u32, told: &str) -> Duration {
    let doublings = attempt.saturating_sub(2).min(31);
    let whole = base.saturating_mul(1 << doublings).min(LONGEST);
    let mut hash = DefaultHasher::new();
    (told, attempt).hash(&mut hash);
    let share = (hash.finish() >> 32) as f64 / f64::from(u32::MAX);
    whole.mul_f64(1.0 - share / 2.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_pause_doubles_and_stays_between_half_and_whole(
            base_ms in 10u64..300_000, attempt in 2u32..40, told in ".{0,32}",
        ) {
            let base = Duration::from_millis(base_ms);
            let whole = base.saturating_mul(1 << (attempt - 2).min(20)).min(LONGEST);
            let pause = pause(base, attempt, &told);
            prop_assert!(pause >= whole / 2 - Duration::from_nanos(1) && pause <= whole, "{pause:?} of {whole:?}");
        }
    }
}
