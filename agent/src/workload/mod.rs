//! What a VM's workload says of itself: requests a second and the 95th percentile of their latency, from a Prometheus
//! endpoint of its own whose address stands in one of the VM's labels.
//!
//! Nothing here is metering: a workload may say what it likes, and whatever goes wrong is "no signal". A VM is asked
//! when a sample of it is taken; the answer belongs to the next one, so that no sample waits for a guest.

mod ask;
mod signal;
mod text;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::sync::{Semaphore, mpsc};

use crate::{account::Workload, config};

use ask::Target;
use text::Scrape;

pub use signal::{Signal, milliseconds};

/// Asked at the same time: one that hangs holds a place for the time limit, and others go on.
const AT_ONCE: usize = 128;
/// VMs that wait to be asked.
const QUEUE: usize = 4_096;

/// Asks workloads. Nothing is asked once it is dropped.
#[derive(Debug)]
pub struct Asker {
    label: String,
    queue: mpsc::Sender<Arc<Place>>,
}

/// One VM's: where it is asked, and what it said.
#[derive(Debug)]
pub struct Place {
    target: Option<Target>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    under_way: bool,
    /// When the newest answer had come, and what it said.
    last: Option<(Instant, Scrape)>,
    /// Of the answer that no sample has yet.
    signal: Option<Signal>,
    told: Arc<Workload>,
}

impl Asker {
    /// One that asks in tasks of the runtime it is called on; none where no label says whom.
    #[must_use]
    pub fn start(settings: config::Workload) -> Option<Self> {
        let label = settings.label.clone()?;
        let (queue, mut waiting) = mpsc::channel::<Arc<Place>>(QUEUE);
        let (settings, room) = (Arc::new(settings), Arc::new(Semaphore::new(AT_ONCE)));
        tokio::spawn(async move {
            while let Some(place) = waiting.recv().await {
                // Closed by nobody.
                let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
                let settings = Arc::clone(&settings);
                tokio::spawn(async move {
                    place.ask(&settings).await;
                    drop(permit);
                });
            }
        });
        Some(Self { label, queue })
    }

    /// The label whose value is the address.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// What came of the last question, and the next one asked, of the workload at `address`; `None` is no signal. Waits
    /// for nothing.
    pub fn turn(&self, place: &mut Option<Arc<Place>>, address: Option<&str>) -> Option<Signal> {
        let Some(address) = address else {
            *place = None;
            return None;
        };
        let place = match place {
            Some(place) if place.state().told.address == address => place,
            _ => place.insert(Arc::new(Place::at(address))),
        };
        let mut state = place.state();
        let signal = state.signal.take();
        if place.target.is_some() && !state.under_way {
            state.under_way = self.queue.try_send(Arc::clone(place)).is_ok();
            if !state.under_way {
                state.fail("too many workloads wait to be asked");
            }
        }
        signal
    }
}

impl Place {
    fn at(text: &str) -> Self {
        let target = text.parse::<Target>();
        let error = target.as_ref().err().map(ToString::to_string);
        let told = Arc::new(Workload { address: text.to_owned(), error, ..Workload::default() });
        let state = State { under_way: false, last: None, signal: None, told };
        Self { target: target.ok(), state: Mutex::new(state) }
    }

    /// Whether it answers, and what was found there.
    #[must_use]
    pub fn told(&self) -> Arc<Workload> {
        Arc::clone(&self.state().told)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(&self, settings: &config::Workload) {
        let Some(target) = &self.target else { return };
        let answer = tokio::time::timeout(settings.timeout, ask::ask(target, settings)).await;
        let mut state = self.state();
        state.under_way = false;
        match answer {
            Ok(Ok((at, scrape))) => state.take(at, scrape, settings),
            Ok(Err(error)) => state.fail(&crate::cause::chain(&error)),
            Err(_) => {
                let limit = humantime::format_duration(settings.timeout);
                state.fail(&format!("no whole answer within {limit}"));
            }
        }
    }
}

impl State {
    /// What was said before a failure is no beginning for a rate: what happened in between is not known.
    fn fail(&mut self, why: &str) {
        (self.last, self.signal) = (None, None);
        if self.told.error.as_deref() != Some(why) {
            self.told = Arc::new(Workload { error: Some(why.to_owned()), ..Workload::clone(&self.told) });
        }
    }

    fn take(&mut self, at: Instant, scrape: Scrape, settings: &config::Workload) {
        let name = |place: Option<usize>, names: &[String]| place.and_then(|place| names.get(place)).cloned();
        let told = Workload {
            address: self.told.address.clone(),
            requests: name(scrape.requests_from(), &settings.requests),
            latency: name(scrape.latency_from(), &settings.latency),
            error: None,
        };
        if *self.told != told {
            self.told = Arc::new(told);
        }
        self.signal = self.last.as_ref().map(|(since, before)| {
            let seconds = at.saturating_duration_since(*since).as_secs_f64();
            signal::between(before, &scrape, seconds, &settings.latency)
        });
        self.last = Some((at, scrape));
    }
}
