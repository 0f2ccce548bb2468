//! Corrections, known before the lines they correct are read: the newest of each `id` counts, and one that was itself
//! corrected gives way to what corrects it.

use std::collections::HashMap;

use super::super::{Draft, Kind, Line};
use super::Notes;

/// A correction of a correction of a correction is followed this far.
const STEPS: usize = 16;

#[derive(Debug)]
struct Correction {
    id: String,
    newness: (u64, u64),
    fact: Draft,
    used: bool,
}

/// By the `id` they replace.
#[derive(Debug, Default)]
pub(in crate::ledger) struct Corrections(HashMap<String, Correction>);

impl Corrections {
    /// Takes a correction line.
    pub(super) fn add(&mut self, line: Line) {
        let newness = (line.recorded_at, line.seq);
        let newest = self.0.get(&line.fact.corrects).is_none_or(|known| known.newness < newness);
        if newest {
            let key = line.fact.corrects.clone();
            self.0.insert(key, Correction { id: line.id, newness, fact: line.fact, used: false });
        }
    }

    /// The line as it stands after all corrections: of the same kind and about the same subject, with all other keys
    /// of the correction.
    pub(super) fn apply(&mut self, mut line: Line, notes: &mut Notes) -> Line {
        if line.fact.kind == Kind::Correction {
            return line;
        }
        let (mut id, mut found) = (line.id.clone(), None);
        for _ in 0..STEPS {
            let Some(correction) = self.0.get_mut(&id) else { break };
            correction.used = true;
            id.clone_from(&correction.id);
            found = Some(correction.fact.clone());
        }
        let Some(fact) = found else { return line };
        if fact.subject == line.fact.subject {
            notes.corrected += 1;
            line.fact = Draft { kind: line.fact.kind, corrects: String::new(), ..fact };
        } else {
            notes.fault(|| format!("a correction of {} is about another subject and is not used", line.id));
        }
        line
    }

    /// Tells corrections of lines that are not there.
    pub(super) fn tell_unused(&self, notes: &mut Notes) {
        let mut unused: Vec<_> = self.0.iter().filter(|(_, c)| !c.used).map(|(id, _)| id).collect();
        unused.sort();
        for id in unused {
            notes.fault(|| format!("line {id} is corrected but is not in these files"));
        }
    }
}
