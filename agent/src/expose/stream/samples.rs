//! `/v1/vms/{vm_id}/usage/stream`. A new sample wakes, the history is what is told: a reader that was away, or is slow, gets
//! what it missed from there.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

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
    /// The life of the VM it came for: another one under the same name is not its own.
    incarnation: String,
    news: watch::Receiver<()>,
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

/// Changes when a snapshot has something for readers: they are woken once a sample, not once a snapshot, of which there may
/// be many between two samples. To wake a thousand of them is the runtime's work, not that of who publishes. To be called on
/// the runtime.
pub fn news(mut snapshots: watch::Receiver<Arc<Snapshot>>) -> watch::Receiver<()> {
    let (to, news) = watch::channel(());
    let mut last = Arc::clone(&snapshots.borrow_and_update());
    tokio::spawn(async move {
        while snapshots.changed().await.is_ok() {
            let next = Arc::clone(&snapshots.borrow_and_update());
            let before = std::mem::replace(&mut last, Arc::clone(&next));
            if has_news(&before, &next) && to.send(()).is_err() {
                return;
            }
        }
    });
    news
}

/// Whether a reader of some VM has something to be told: a sample, the VM's end, or that it is shown no more. A VM that is
/// new has no reader yet: who comes looks at once. If there were snapshots in between, it may have one.
fn has_news(before: &Snapshot, next: &Snapshot) -> bool {
    if next.serial > before.serial + 1 {
        return true;
    }
    let same_vm = |(before, next): (&Arc<VmView>, &Arc<VmView>)| {
        Arc::ptr_eq(before, next) || Arc::ptr_eq(&before.fixed, &next.fixed)
    };
    if before.vms.len() == next.vms.len() && before.vms.iter().zip(&next.vms).all(same_vm) {
        return before.vms.iter().zip(&next.vms).any(|(before, next)| differs(before, next));
    }
    let next: HashMap<_, _> = next.vms.iter().map(|vm| (Arc::as_ptr(&vm.fixed), vm)).collect();
    before.vms.iter().any(|before| next.get(&Arc::as_ptr(&before.fixed)).is_none_or(|next| differs(before, next)))
}

fn differs(before: &Arc<VmView>, next: &Arc<VmView>) -> bool {
    !Arc::ptr_eq(before, next)
        && (before.latest.as_ref().map(Arc::as_ptr) != next.latest.as_ref().map(Arc::as_ptr)
            || before.end.is_some() != next.end.is_some())
}

/// A VM's samples as they are taken.
pub async fn samples(
    State(views): State<Views>,
    vm_id: Result<UrlPath<String>, PathRejection>,
    headers: HeaderMap,
) -> Response {
    let Ok(UrlPath(vm_id)) = vm_id else { return not_text() };
    let snapshot = views.snapshot();
    let Some(fixed) = api::find(&snapshot, &vm_id).map(|vm| &vm.fixed) else { return unknown(&vm_id) };
    let (since, room) = match (last_event_id(&headers), views.streams.enter()) {
        (Ok(since), Ok(room)) => (since, room),
        (Err(problem), _) | (_, Err(problem)) => return problem.into_response(),
    };
    let now_ms = clock::now().map_or(u64::MAX, |now| now.unix_ns / 1_000_000);
    let mut reader = Reader {
        vm_id,
        incarnation: fixed.incarnation.clone(),
        news: views.news.clone(),
        snapshots: views.snapshots.clone(),
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
    reader.news.mark_changed();
    if since.is_some() {
        reader.tell_too_old(fixed.started_at / 1_000_000);
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
            self.news.changed().await.ok()?;
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
        let snapshot = Arc::clone(&self.snapshots.borrow());
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
        let is = |vm: &&Arc<VmView>| vm.fixed.vm_id == self.vm_id && vm.fixed.incarnation == self.incarnation;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::snapshot::{Sample, VmEnd, VmFixed};

    fn vm(vm_id: &str) -> Arc<VmView> {
        let fixed = Arc::new(VmFixed { vm_id: vm_id.to_owned(), ..VmFixed::default() });
        Arc::new(VmView { fixed, ..VmView::default() })
    }

    fn of(vms: &[&Arc<VmView>]) -> Snapshot {
        let vms = vms.iter().map(|vm| Arc::clone(vm)).collect();
        let taken = clock::now().unwrap();
        Snapshot { taken, sampled_ns: 0, serial: 0, vms, host: Arc::default() }
    }

    #[test]
    fn a_sample_an_end_and_a_vm_that_is_gone_are_news_and_another_reading_or_a_new_vm_is_none() {
        let (a, b) = (vm("a"), vm("b"));
        let read = Arc::new(VmView { read_ns: 7, ..VmView::clone(&a) });
        let sampled = Arc::new(VmView { latest: Some(Arc::new(Sample::default())), ..VmView::clone(&a) });
        let again = Arc::new(VmView { latest: Some(Arc::new(Sample::default())), ..VmView::clone(&a) });
        let ended = Arc::new(VmView { end: Some(VmEnd::default()), ..VmView::clone(&a) });
        // Another life under the same name.
        let next_life = vm("a");
        for (before, next) in [
            (of(&[&a, &b]), of(&[&sampled, &b])),
            (of(&[&sampled, &b]), of(&[&again, &b])),
            (of(&[&a, &b]), of(&[&ended, &b])),
            (of(&[&a, &b]), of(&[&b])),
            (of(&[&a]), of(&[&next_life])),
            (of(&[&a]), of(&[&b, &sampled])),
        ] {
            assert!(has_news(&before, &next), "{:?} {:?}", before.vms, next.vms);
        }
        for (before, next) in [
            (of(&[&a, &b]), of(&[&a, &b])),
            (of(&[&a, &b]), of(&[&read, &b])),
            (of(&[&sampled]), of(&[&b, &sampled])),
            (of(&[]), of(&[&a])),
            (of(&[&a, &b]), of(&[&b, &read])),
        ] {
            assert!(!has_news(&before, &next), "{:?} {:?}", before.vms, next.vms);
            // A reader may have come for what was new in between.
            assert!(has_news(&before, &Snapshot { serial: 2, ..next }));
        }
    }
}
