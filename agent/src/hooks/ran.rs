//! What became of one try.

use crate::metrics::Outcome;

/// How a try ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ran {
    /// In one word.
    pub(super) outcome: Outcome,
    /// Why, where it did not succeed.
    pub(super) said: String,
    /// The beginning of what it printed or answered.
    pub(super) printed: String,
    /// Whether another try could end otherwise.
    pub(super) again: bool,
}

impl Ran {
    /// One that came to nothing.
    pub(super) fn failure(said: String) -> Self {
        Self { outcome: Outcome::Failure, said, printed: String::new(), again: true }
    }
}
