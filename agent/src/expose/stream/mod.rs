//! Server-sent events: the samples of a VM (`samples`) and durable ledger lines (`events`). A stream holds a place and no
//! queue: it is asked only when its reader can take more, so a slow reader costs nobody anything, and is told what it
//! lost.

mod events;
mod ring;
mod samples;

use std::{
    convert::Infallible,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{
    http::HeaderMap,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::Stream;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Problem;
use crate::{
    ledger::Kind,
    lifecycle::{Bus, Interest},
};

use ring::Ring;

pub use events::events;
pub use ring::Told;
pub use samples::{news, samples};

/// What waits for a slow reader at most.
const MOST_WAITING: usize = 64;
/// Streams at the same time, of each listener.
pub(super) const MOST_STREAMS: usize = 2_048;
/// A comment this often, so that who reads knows that the agent lives.
const BEAT: Duration = Duration::from_secs(15);
/// Where it is counted what the ring did not get; readers get it from the ledger's files.
const QUEUE_STAGE: &str = "stream_queue";
/// Lines that wait for the ring.
const QUEUE: usize = 4_096;

/// Lines that were written before, in order.
pub type Lines = Box<dyn Iterator<Item = io::Result<Told>> + Send>;
/// The lines with numbers in `(after, upto]`.
pub type Reread = Arc<dyn Fn(u64, u64) -> io::Result<Lines> + Send + Sync>;

/// What streams are made from beside the snapshot and the history.
#[derive(Clone)]
pub struct Streams {
    ring: Arc<Ring>,
    reread: Reread,
    room: Arc<Semaphore>,
    dropped: Arc<AtomicU64>,
    most: usize,
}

impl Streams {
    /// Of this bus, which nothing was published on yet; lines of before come from `reread`, the newest of which is
    /// `before`. To be called on the runtime.
    #[must_use]
    pub fn new(bus: &Bus, reread: Reread, before: u64) -> Self {
        let ring = Ring::new(before);
        let subscription = bus.attach("streams", QUEUE_STAGE, Interest::of(Kind::ALL), QUEUE);
        tokio::spawn(Arc::clone(&ring).fill(subscription));
        let room = Arc::new(Semaphore::new(MOST_STREAMS));
        Self { ring, reread, room, most: MOST_STREAMS, dropped: Arc::default() }
    }

    /// The same with places of their own.
    pub(super) fn apart(&self, most: usize) -> Self {
        Self { room: Arc::new(Semaphore::new(most)), most, ..self.clone() }
    }

    /// A place for one more.
    fn enter(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let full = |_| Problem::unavailable(format!("{} streams are open, which is the most", self.most));
        Arc::clone(&self.room).try_acquire_owned().map_err(full)
    }

    fn count_lost(&self, count: u64) {
        self.dropped.fetch_add(count, Relaxed);
    }

    /// What readers were too slow for so far.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}

/// The `Last-Event-ID` that a reader comes back with.
fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    const NAME: &str = "Last-Event-ID";
    let Some(value) = headers.get(NAME) else { return Ok(None) };
    // A reader that has seen no event yet may send an empty one.
    let text = value.to_str().map(str::trim).unwrap_or("?");
    match text.parse() {
        _ if text.is_empty() => Ok(None),
        Ok(id) => Ok(Some(id)),
        Err(_) => Err(Problem::parameter(NAME, format!("{NAME} {text:?} is the id of no event"))),
    }
}

/// So many were lost.
fn dropped(count: u64) -> Event {
    Event::default().event("dropped").data(json!({ "count": count }).to_string())
}

/// Nothing more will come.
fn end() -> Event {
    Event::default().event("end").data("{}")
}

fn answer(events: impl Stream<Item = Event> + Send + 'static) -> Response {
    use futures_util::StreamExt as _;
    let beat = KeepAlive::new().interval(BEAT);
    Sse::new(events.map(Ok::<_, Infallible>)).keep_alive(beat).into_response()
}
