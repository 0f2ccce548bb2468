//! The newest starts and stops of VMs, as they stand with their corrections: what is stated shortly after one of them is about
//! it, also where another agent wrote it. Fed with every line; the newest 1,024 are kept.

use std::collections::VecDeque;

use super::{Draft, Kind, Line};

/// How many are kept.
const KEPT: usize = 1_024;

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// When it was written, Unix nanoseconds.
    pub recorded_at: u64,
    /// What it says.
    pub fact: Draft,
    id: String,
}

/// All of them, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lately(VecDeque<Told>);

impl Lately {
    /// Takes the next line.
    pub(super) fn note(&mut self, line: &Line) {
        match line.fact.kind {
            Kind::VmComputeStart | Kind::VmComputeStop => {
                if self.0.len() >= KEPT {
                    self.0.pop_front();
                }
                let (id, fact) = (line.id.clone(), line.fact.clone());
                self.0.push_back(Told { recorded_at: line.recorded_at, fact, id });
            }
            Kind::Correction => {
                if let Some(told) = self.0.iter_mut().rev().find(|told| told.id == line.fact.corrects) {
                    let kind = told.fact.kind;
                    told.fact = Draft { kind, corrects: String::new(), ..line.fact.clone() };
                }
            }
            _ => {}
        }
    }

    /// Those written after an instant, Unix nanoseconds, oldest first.
    pub fn since(&self, unix_ns: u64) -> impl Iterator<Item = &Told> {
        self.0.iter().filter(move |told| told.recorded_at > unix_ns)
    }
}
