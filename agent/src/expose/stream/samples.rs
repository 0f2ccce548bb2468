//! `/v1/vms/{vm_id}/usage/stream`. A snapshot wakes, the history is what is told: a reader that was away, or is slow, gets
//! what it missed from there.

use std::{collections::VecDeque, sync::Arc};

use axum::{
    extract::{Path as UrlPath, State, rejection::PathRejection},
    http::HeaderMap,
    response::{IntoResponse, Response, sse::Event},
};
use serde_json::{Map, Value, json};
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::{MOST_WAITING, Streams, answer, dropped, end, last_event_id};
use crate::{
    account::{
        Snapshot, VmView,
        past::{NAMES, Past, Taken},
    },
    clock::{self, rfc3339},
    expose::{
        api,
        http::{Views, not_text, unknown},
    },
};

/// Samples that are read of the history at once for a reader that comes back.
const PAGE: usize = 256;

/// One reader.
struct Reader {
    vm_id: String,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    history: Arc<dyn Past>,
    streams: Streams,
    /// Time between two samples, milliseconds.
    interval_ms: u64,
    /// The newest sample told, Unix milliseconds.
    at_ms: u64,
    /// What was missed is still being told, all of it.
    behind: bool,
    /// Where the VM was in the last snapshot.
    place: usize,
    ready: VecDeque<Event>,
    ended: bool,
    _room: OwnedSemaphorePermit,
}

/// The same snapshots, for readers: to wake a thousand of them is the runtime's work, not that of who publishes. To be
/// called on the runtime.
pub fn relayed(mut from: watch::Receiver<Arc<Snapshot>>) -> watch::Receiver<Arc<Snapshot>> {
    let (to, relayed) = watch::channel(Arc::clone(&from.borrow_and_update()));
    tokio::spawn(async move {
        while from.changed().await.is_ok() {
            let next = Arc::clone(&from.borrow_and_update());
            if to.send(next).is_err() {
                return;
            }
        }
    });
    relayed
}

/// A VM's samples as they are taken.
pub async fn samples(
    State(views): State<Views>,
    vm_id: Result<UrlPath<String>, PathRejection>,
    headers: HeaderMap,
) -> Response {
    let Ok(UrlPath(vm_id)) = vm_id else { return not_text() };
    let Some(started_ms) = api::find(&views.snapshot(), &vm_id).map(|vm| vm.fixed.started_at / 1_000_000) else {
        return unknown(&vm_id);
    };
    let (since, room) = match (last_event_id(&headers), views.streams.enter()) {
        (Ok(since), Ok(room)) => (since, room),
        (Err(problem), _) | (_, Err(problem)) => return problem.into_response(),
    };
    let now_ms = clock::now().map_or(u64::MAX, |now| now.unix_ns / 1_000_000);
    let mut reader = Reader {
        vm_id,
        snapshots: views.relayed.clone(),
        history: Arc::clone(&views.history),
        streams: views.streams.clone(),
        interval_ms: *views.history_ns.borrow() / 1_000_000,
        // An id from the time to come would keep the reader waiting for it.
        at_ms: since.unwrap_or(0).min(now_ms),
        behind: since.is_some(),
        place: 0,
        ready: VecDeque::new(),
        ended: false,
        _room: room,
    };
    reader.snapshots.mark_changed();
    if since.is_some() {
        reader.tell_too_old(started_ms);
    }
    answer(futures_util::stream::unfold(reader, |mut reader| async move { Some((reader.next().await?, reader)) }))
}

impl Reader {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.ended {
                return None;
            }
            if self.behind {
                self.catch_up();
                continue;
            }
            // Without the engine there is nothing to come.
            self.snapshots.changed().await.ok()?;
            self.look();
        }
    }

    /// What lies between the reader's last sample and the oldest that is left, as many as there is time for. A VM that
    /// began at `started_ms` has none of before.
    fn tell_too_old(&mut self, started_ms: u64) {
        let Some(oldest) = self.history.oldest_ms(&self.vm_id) else { return };
        let interval = self.interval_ms.max(1);
        if oldest.saturating_sub(self.at_ms) > interval + interval / 2 {
            let missed = oldest.saturating_sub(self.at_ms.max(started_ms)) / interval;
            self.lost(missed.saturating_sub(1).max(1));
        }
    }

    /// The next page of what was missed.
    fn catch_up(&mut self) {
        let page = self.history.after(&self.vm_id, self.at_ms, PAGE);
        self.behind = page.len() == PAGE;
        page.iter().for_each(|taken| self.tell(taken));
    }

    /// What is new; whether the VM is still there.
    fn look(&mut self) {
        let snapshot = Arc::clone(&self.snapshots.borrow_and_update());
        let Some(vm) = self.find(&snapshot) else {
            self.finish();
            return;
        };
        if let Some(latest) = &vm.latest
            && let Some(at_ms) = clock::parse_rfc3339(&latest.at).map(|ns| ns / 1_000_000)
            && at_ms > self.at_ms
        {
            // A reader that has just come begins with the newest.
            if self.at_ms > 0 {
                let (missed, between) = self.history.between(&self.vm_id, self.at_ms, at_ms, MOST_WAITING - 1);
                if missed > 0 {
                    self.lost(missed as u64);
                }
                between.iter().for_each(|taken| self.tell(taken));
            }
            self.at_ms = at_ms;
            self.ready.push_back(sample(at_ms, &json!(latest.as_ref())));
        }
        if vm.end.is_some() {
            self.finish();
        }
    }

    /// Its life in this snapshot, most times where it was before.
    fn find<'a>(&mut self, snapshot: &'a Snapshot) -> Option<&'a VmView> {
        let is = |vm: &&Arc<VmView>| vm.fixed.vm_id == self.vm_id;
        if let Some(vm) = snapshot.vms.get(self.place).filter(is) {
            return Some(vm);
        }
        self.place = snapshot.vms.iter().position(|vm| is(&vm))?;
        snapshot.vms.get(self.place).map(AsRef::as_ref)
    }

    fn finish(&mut self) {
        self.ended = true;
        self.ready.push_back(end());
    }

    fn lost(&mut self, count: u64) {
        self.streams.count_lost(count);
        self.ready.push_back(dropped(count));
    }

    fn tell(&mut self, taken: &Taken) {
        self.at_ms = taken.at_ms;
        self.ready.push_back(sample(taken.at_ms, &shown(taken)));
    }
}

fn sample(at_ms: u64, data: &Value) -> Event {
    Event::default().event("sample").id(at_ms.to_string()).data(data.to_string())
}

/// A sample as the API shows it. Sizes are whole.
fn shown(taken: &Taken) -> Value {
    let mut all = Map::new();
    all.insert("at".to_owned(), json!(rfc3339(taken.at_ms.saturating_mul(1_000_000))));
    for (name, value) in NAMES.iter().zip(taken.values) {
        let Some(value) = value else { continue };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "levels are whole and not negative"
        )]
        let shown = if name.ends_with("_bytes") { json!(value as u64) } else { json!(value) };
        all.insert((*name).to_owned(), shown);
    }
    Value::Object(all)
}
