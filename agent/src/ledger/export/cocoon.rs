//! The old form: eight keys and six kinds alone, for readers that refuse what they do not know. A resize is a stop of
//! the old size and a start of the new one at the same instant; heartbeats, identity and the ledger's own lines have
//! no word in it.

use std::collections::HashMap;

use serde::Serialize;

use super::super::wire::{When, absent};
use super::super::{Kind, Line, Reason, Shape, Subject};
use super::Event;

/// The eight keys, in their order.
#[derive(Serialize)]
struct Old<'a> {
    kind: Kind,
    #[serde(skip_serializing_if = "str::is_empty")]
    vm_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    snapshot_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    source_snapshot_id: &'a str,
    #[serde(skip_serializing_if = "absent")]
    reason: Option<Reason>,
    #[serde(skip_serializing_if = "str::is_empty")]
    hypervisor: &'a str,
    shape: Shape,
    emitted_at: When,
}

/// The sizes of what is open.
#[derive(Debug, Default)]
pub(super) struct Cocoon {
    shapes: HashMap<Subject, Shape>,
}

impl Cocoon {
    pub(super) fn accept(&mut self, line: &Line) -> Vec<Event> {
        let (fact, subject) = (&line.fact, &line.fact.subject);
        match fact.kind {
            Kind::VmComputeStart | Kind::VmStorageStart | Kind::SnapStorageStart => {
                self.shapes.insert(subject.clone(), fact.shape);
                vec![event(line, fact.kind, "", fact.reason, fact.shape)]
            }
            Kind::VmComputeStop | Kind::VmStorageStop | Kind::SnapStorageStop => {
                self.shapes.remove(subject);
                vec![event(line, fact.kind, "", fact.reason, fact.shape)]
            }
            Kind::VmComputeResize => self.resize(line, Kind::VmComputeStop, Kind::VmComputeStart),
            Kind::VmStorageResize => self.resize(line, Kind::VmStorageStop, Kind::VmStorageStart),
            Kind::SnapStorageResize => self.resize(line, Kind::SnapStorageStop, Kind::SnapStorageStart),
            _ => Vec::new(),
        }
    }

    /// No reason of the closed set is one of a resize, so there is none.
    fn resize(&mut self, line: &Line, stop: Kind, start: Kind) -> Vec<Event> {
        let new = line.fact.shape;
        let old = self.shapes.insert(line.fact.subject.clone(), new).unwrap_or_default();
        vec![event(line, stop, "/stop", None, old), event(line, start, "/start", None, new)]
    }
}

fn event(line: &Line, kind: Kind, mark: &str, reason: Option<Reason>, shape: Shape) -> Event {
    let fact = &line.fact;
    let old = Old {
        kind,
        vm_id: &fact.vm_id,
        snapshot_id: &fact.snapshot_id,
        source_snapshot_id: &fact.source_snapshot_id,
        reason,
        hypervisor: &fact.hypervisor,
        shape,
        emitted_at: When(fact.emitted_at),
    };
    // Texts, numbers and instants always serialise.
    Event { id: format!("{}{mark}", line.id), json: serde_json::to_vec(&old).unwrap_or_default() }
}
