//! Starts and stops over which somebody's statement was laid: from these a returning agent knows which of the statements
//! that waited have been used. Fed with every line; the newest 4,096 are kept, as many as can wait.

use std::collections::VecDeque;

use super::{Kind, Line, Subject};

/// How many are kept.
const KEPT: usize = 4_096;

/// A start or stop that names who annotated it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaidOver {
    /// The line's number.
    pub seq: u64,
    /// `vm.compute.start` or `vm.compute.stop`.
    pub kind: Kind,
    /// The VM's id.
    pub vm_id: String,
    /// Its UUID; empty if it has none.
    pub uuid: String,
    /// Which life.
    pub incarnation: String,
}

/// The newest of them, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Laid(VecDeque<LaidOver>);

impl Laid {
    /// Takes the next line.
    pub(super) fn note(&mut self, line: &Line) {
        let fact = &line.fact;
        let Subject::Incarnation(incarnation) = &fact.subject else { return };
        let is_transition = matches!(fact.kind, Kind::VmComputeStart | Kind::VmComputeStop);
        if !is_transition || fact.evidence.annotated_by.is_none() {
            return;
        }
        if self.0.len() >= KEPT {
            self.0.pop_front();
        }
        self.0.push_back(LaidOver {
            seq: line.seq,
            kind: fact.kind,
            vm_id: fact.vm_id.clone(),
            uuid: fact.uuid.clone(),
            incarnation: incarnation.clone(),
        });
    }

    /// All of them, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &LaidOver> {
        self.0.iter()
    }
}

impl FromIterator<LaidOver> for Laid {
    fn from_iter<I: IntoIterator<Item = LaidOver>>(all: I) -> Self {
        Self(all.into_iter().collect())
    }
}
