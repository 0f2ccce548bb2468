//! What bounds of connections cost, counted where it happened.

use std::{
    array,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::Semaphore;

use crate::expose::{
    catalog,
    family::{Family, MetricFamily},
};

/// Where a connection came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::expose) enum Listener {
    /// The network's.
    Tcp,
    /// The operator's.
    Unix,
}

/// Why a connection was closed against its client's will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// It kept the agent waiting while all places were taken.
    Crowded,
    /// Its request did not come in time.
    SlowRequest,
    /// Its answer was not taken in time.
    SlowAnswer,
}

/// The words of label `listener`.
pub const LISTENERS: [&str; 2] = ["tcp", "unix"];
/// The words of label `reason` of what was cut.
pub const CUTS: [&str; 3] = ["crowded", "slow_request", "slow_answer"];

/// Counters of both listeners.
#[derive(Clone, Debug)]
pub struct Counts(Arc<[Kept; 2]>);

#[derive(Debug)]
struct Kept {
    cut: [AtomicU64; 3],
    most: usize,
    room: Arc<Semaphore>,
}

impl Counts {
    /// All zero, with room for so many connections over TCP and over the Unix socket.
    pub(in crate::expose) fn new(most: [usize; 2]) -> Self {
        let kept = most.map(|most| Kept {
            cut: array::from_fn(|_| AtomicU64::new(0)),
            most,
            room: Arc::new(Semaphore::new(most)),
        });
        Self(Arc::new(kept))
    }

    pub(super) fn room(&self, listener: Listener) -> Arc<Semaphore> {
        Arc::clone(&self.of(listener).room)
    }

    pub(super) fn cut(&self, listener: Listener, why: Cut) {
        self.of(listener).cut[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn of(&self, listener: Listener) -> &Kept {
        &self.0[listener as usize]
    }

    /// As a scrape shows them.
    #[must_use]
    pub fn families(&self) -> [MetricFamily; 2] {
        let mut open = Family::new(&catalog::HTTP_CONNECTIONS);
        let mut cut = Family::new(&catalog::HTTP_CUT);
        for (kept, listener) in self.0.iter().zip(LISTENERS) {
            open.push(&[listener], kept.most.saturating_sub(kept.room.available_permits()) as f64);
            for (count, why) in kept.cut.iter().zip(CUTS) {
                cut.push(&[listener, why], count.load(Ordering::Relaxed) as f64);
            }
        }
        [open.done(), cut.done()]
    }
}
