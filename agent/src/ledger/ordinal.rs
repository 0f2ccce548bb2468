//! Counts the lines of every subject and kind, so that `id`s go on over restarts.
//! A VM process that ended gets nothing but corrections, so it shrinks to twelve bytes: a hash and their number.

use std::collections::HashMap;

use super::digest::short;
use super::{Kind, Subject};

/// Earlier lines by subject and kind. Heartbeats and the ledger's own lines take their ordinal from elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ordinals {
    live: HashMap<String, [u32; Kind::COUNT]>,
    ended: HashMap<u64, u32>,
}

impl Ordinals {
    /// How many lines of this subject and kind were noted.
    pub(super) fn count(&self, subject: &Subject, kind: Kind) -> u64 {
        let (Subject::Incarnation(text) | Subject::Storage(text) | Subject::Snapshot(text)) = subject else {
            return 0;
        };
        match self.live.get(text) {
            Some(counts) => counts.get(kind as usize).copied().map_or(0, u64::from),
            None if kind == Kind::Correction => self.ended.get(&short(text)).copied().map_or(0, u64::from),
            None => 0,
        }
    }

    /// Whether this VM process has a stop line.
    pub(super) fn has_ended(&self, incarnation: &str) -> bool {
        self.ended.contains_key(&short(incarnation))
    }

    /// Counts one line.
    pub(super) fn note(&mut self, subject: &Subject, kind: Kind) {
        let (Subject::Incarnation(text) | Subject::Storage(text) | Subject::Snapshot(text)) = subject else {
            return;
        };
        if kind.is_heartbeat() {
            return;
        }
        if matches!(subject, Subject::Incarnation(_)) && kind == Kind::VmComputeStop {
            let corrections = self.live.remove(text).map_or(0, |counts| counts[Kind::Correction as usize]);
            self.ended.entry(short(text)).or_insert(corrections);
            return;
        }
        if kind == Kind::Correction && !self.live.contains_key(text) && self.has_ended(text) {
            *self.ended.entry(short(text)).or_insert(0) += 1;
            return;
        }
        let counts = self.live.entry(text.clone()).or_insert([0; Kind::COUNT]);
        counts[kind as usize] = counts[kind as usize].saturating_add(1);
    }
}
