//! What is told of storage beside the ledger: how each pool is, how much there is.

use super::{PlaceState, model::Counts};

/// One pool, or the files outside of all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlaceTally {
    /// The pool's directory; empty for files outside of pools.
    pub path: String,
    /// How it was at the newest look.
    pub state: PlaceState,
    /// Why it is not looked after at all: no thread.
    pub why_not: Option<String>,
    /// What there is.
    pub counts: Counts,
    /// When the newest look began, Unix nanoseconds; unset before the first.
    pub looked_at: Option<u64>,
    /// For how many seconds a look has been overdue; 0 = it is not.
    pub late_s: u64,
    /// Files of which nothing is known, and why, the first few.
    pub unknown: Vec<(String, String)>,
}

impl PlaceTally {
    /// What is wrong, in a sentence; nothing where all of it is watched.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        if let Some(why) = self.why_not.as_ref().or(self.state.why.as_ref()) {
            return Some(why.clone());
        }
        if self.late_s > 0 {
            return Some(format!("it has not answered for {} s", self.late_s));
        }
        match self.unknown.first() {
            Some((path, why)) if self.counts.unknown > 1 => {
                Some(format!("{} files are out of sight, such as {path}: {why}", self.counts.unknown))
            }
            Some((path, why)) => Some(format!("{path} is out of sight: {why}")),
            None => None,
        }
    }
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// The pools in the configuration's order, and last what is outside of them.
    pub places: Vec<PlaceTally>,
    /// Everywhere.
    pub counts: Counts,
    /// Open intervals of VMs of which the ledger names no file.
    pub lost: u64,
    /// What runs has not been asked yet, so what is not there may be held.
    pub unsettled: bool,
}
