//! What somebody states of a VM: whose it is, snapshots, the reason of its next start or stop. Pure.
//!
//! `request` reads and checks a statement, `store` keeps those whose transition is still to come, for a time that ends
//! and in a number that is bounded, `kept` is what they look like in a file. Who may state anything is decided by whoever takes the request.

pub mod kept;
mod request;
mod store;

use std::time::Duration;

pub use request::{BadRequest, MAX_BODY, PARAMETERS, parse};
pub use store::{Keeping, MAX_PENDING, Names, Pending, Store, Whom};

use crate::{
    ledger::{Draft, Kind, Reason},
    lifecycle::{Start, Verdict},
    vm::Owner,
};

/// How long a statement waits for its transition, if it does not say.
pub const DEFAULT_TTL: Duration = Duration::from_secs(600);
/// The longest it may wait.
pub const MAX_TTL: Duration = Duration::from_secs(86_400);

/// Whom a statement is about, as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A vm_id.
    VmId(String),
    /// A UUID, canonical.
    Uuid(String),
    /// A process of the host.
    Pid(u32),
}

/// One statement, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Whom it is about.
    pub target: Target,
    /// Whose that is.
    pub owner: Owner,
    /// What is said of its next start.
    pub start: Stated,
    /// What is said of its next stop.
    pub stop: Stated,
    /// How long it waits.
    pub ttl: Duration,
}

/// What is said of a transition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stated {
    /// Why.
    pub reason: Option<Reason>,
    /// Of a start, what it starts from; of a stop, what its state is kept in.
    pub snapshot: Option<String>,
    /// Who said so; set by whoever takes the request.
    pub by: String,
}

impl Stated {
    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.reason.is_none() && self.snapshot.is_none()
    }

    /// Lays a later statement over this one.
    fn lay(&mut self, later: Self) {
        if !later.is_empty() {
            self.reason = later.reason.or(self.reason);
            self.snapshot = later.snapshot.or_else(|| self.snapshot.take());
            self.by = later.by;
        }
    }

    /// Lays it over what evidence says of a start.
    pub fn over_start(self, start: &mut Start) {
        if self.is_empty() {
            return;
        }
        start.reason = self.reason.or(start.reason);
        if let Some(snapshot) = self.snapshot {
            start.source_snapshot_id = snapshot;
        }
        start.annotated_by = Some(self.by);
    }

    /// Lays it over what evidence says of a stop.
    pub fn over_stop(self, verdict: &mut Verdict) {
        if self.is_empty() {
            return;
        }
        verdict.reason = self.reason.or(verdict.reason);
        verdict.snapshot_id = self.snapshot.unwrap_or_default();
        verdict.evidence.annotated_by = Some(self.by);
    }

    /// Lays it over the stop line of a VM whose end nobody saw.
    pub fn over_line(self, stop: &mut Draft) {
        if self.is_empty() {
            return;
        }
        stop.reason = self.reason.or(stop.reason);
        stop.snapshot_id = self.snapshot.unwrap_or_default();
        stop.evidence.annotated_by = Some(self.by);
    }
}

/// The line that takes a line's place, with what was stated after it was written. `line` must be the only one of its
/// subject and kind.
#[must_use]
pub fn correction(line: &Draft, stated: Stated, owner: Option<(Owner, String)>) -> Draft {
    let mut draft = Draft { kind: Kind::Correction, corrects: line.sole_id(), ..line.clone() };
    draft.reason = stated.reason.or(draft.reason);
    if let Some(snapshot) = stated.snapshot.clone() {
        let place =
            if line.kind == Kind::VmComputeStart { &mut draft.source_snapshot_id } else { &mut draft.snapshot_id };
        *place = snapshot;
    }
    if !stated.is_empty() {
        draft.evidence.annotated_by = Some(stated.by);
    }
    if let Some((owner, by)) = owner {
        draft.tenant = owner.tenant.unwrap_or(draft.tenant);
        draft.name = owner.name.unwrap_or(draft.name);
        draft.labels.extend(owner.labels);
        draft.evidence.annotated_by = Some(by);
    }
    draft
}
