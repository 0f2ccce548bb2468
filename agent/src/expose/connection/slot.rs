//! One connection's place: what it is doing, until when it may, and whether it would give way.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use super::counts::{Counts, Cut, Listener};

/// For the head of a request, from its first byte; at first from the connection's beginning, a handshake included.
pub(super) const HEAD: Duration = Duration::from_secs(10);
/// Between an answer and the next request's first byte. Longer than the intervals that are usual between scrapes.
pub(super) const IDLE: Duration = Duration::from_secs(120);
/// For one request, from its whole head to the last byte of its answer. No bound for streams of events.
pub(super) const REQUEST: Duration = Duration::from_secs(60);

/// The places of one listener.
#[derive(Clone, Debug)]
pub(in crate::expose) struct Places {
    pub(super) counts: Counts,
    pub(super) listener: Listener,
}

impl Places {
    /// Those of this listener.
    pub(in crate::expose) const fn of(counts: Counts, listener: Listener) -> Self {
        Self { counts, listener }
    }
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// Its client has not sent a whole request.
    Waiting { since: Instant, begun: Option<Instant>, first: bool },
    /// The agent makes the answer.
    Working { since: Instant },
    /// The answer is on its way; `ended` when all of it was handed over, `stalled` while the client takes nothing.
    Sending { since: Instant, ended: bool, stalled: Option<Instant> },
    /// Events are told as they happen, for ever.
    Streaming,
}

/// The place of a connection.
#[derive(Debug)]
pub(in crate::expose) struct Slot {
    places: Places,
    phase: Mutex<Phase>,
    permit: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Slot {
    /// Of a connection that begins now.
    pub(super) fn new(places: &Places, permit: OwnedSemaphorePermit) -> Arc<Self> {
        let now = Instant::now();
        let phase = Mutex::new(Phase::Waiting { since: now, begun: Some(now), first: true });
        Arc::new(Self { places: places.clone(), phase, permit: Mutex::new(Some(permit)) })
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes came.
    pub(super) fn received(&self) {
        if let Phase::Waiting { begun: begun @ None, .. } = &mut *self.phase() {
            *begun = Some(Instant::now());
        }
    }

    /// A whole head came.
    pub(super) fn working(&self) {
        *self.phase() = Phase::Working { since: Instant::now() };
    }

    /// The answer is ready to be sent.
    pub(super) fn sending(&self) {
        let mut phase = self.phase();
        if let Phase::Working { since } = *phase {
            *phase = Phase::Sending { since, ended: false, stalled: None };
        }
    }

    /// The answer is a stream of events, which needs no place here.
    pub(super) fn streaming(&self) {
        *self.phase() = Phase::Streaming;
        self.leave();
    }

    /// All of the answer was handed over.
    pub(super) fn sent(&self) {
        if let Phase::Sending { ended, .. } = &mut *self.phase() {
            *ended = true;
        }
    }

    /// The client took something, or everything that was `flushed`.
    pub(super) fn taken(&self, flushed: bool) {
        let mut phase = self.phase();
        match &mut *phase {
            Phase::Sending { ended: true, .. } if flushed => {
                *phase = Phase::Waiting { since: Instant::now(), begun: None, first: false };
            }
            Phase::Sending { stalled, .. } => *stalled = None,
            _ => {}
        }
    }

    /// The client takes nothing.
    pub(super) fn stalled(&self) {
        if let Phase::Sending { stalled: stalled @ None, .. } = &mut *self.phase() {
            *stalled = Some(Instant::now());
        }
    }

    /// Gives the place back.
    pub(super) fn leave(&self) {
        drop(self.permit.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Whether it still holds one.
    pub(super) fn holds_place(&self) -> bool {
        self.permit.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// When the connection is closed unless something happens; `None` for a stream.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match *self.phase() {
            Phase::Waiting { begun: Some(begun), .. } => Some(begun + HEAD),
            Phase::Waiting { since, begun: None, .. } => Some(since + IDLE),
            Phase::Working { since } | Phase::Sending { since, .. } => Some(since + REQUEST),
            Phase::Streaming => None,
        }
    }

    /// The deadline passed. An idle connection that is closed is no loss to anybody.
    pub(super) fn count_late(&self) {
        let why = match *self.phase() {
            Phase::Waiting { begun: None, .. } | Phase::Streaming => return,
            Phase::Waiting { .. } => Cut::SlowRequest,
            // A body that does not come, and a handler without end, which has a bound of its own, do not get here.
            Phase::Working { .. } | Phase::Sending { .. } => Cut::SlowAnswer,
        };
        self.places.counts.cut(self.places.listener, why);
    }

    /// Since when it has kept the agent waiting: for a request before for taking an answer; `None` if it does not, and for its
    /// first request not within the `grace`.
    pub(super) fn gives_way(&self, grace: Duration) -> Option<(u8, Instant)> {
        match *self.phase() {
            Phase::Waiting { since, first: true, .. } if since.elapsed() < grace => None,
            Phase::Waiting { since, .. } => Some((0, since)),
            Phase::Sending { stalled: Some(since), .. } => Some((1, since)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot() -> (Counts, Arc<Slot>) {
        let counts = Counts::new([1, 1]);
        let places = Places::of(counts.clone(), Listener::Tcp);
        let permit = counts.room(Listener::Tcp).try_acquire_owned().unwrap();
        (counts, Slot::new(&places, permit))
    }

    #[test]
    fn only_who_keeps_the_agent_waiting_gives_way_and_a_request_is_waited_for_less_than_an_answer() {
        let (_, slot) = slot();
        let first = slot.gives_way(Duration::ZERO);
        assert!(matches!(first, Some((0, _))));
        slot.received();
        assert_eq!(slot.gives_way(Duration::ZERO), first, "bytes that are no request win no time");
        slot.working();
        assert_eq!(slot.gives_way(Duration::ZERO), None);
        slot.sending();
        assert_eq!(slot.gives_way(Duration::ZERO), None);
        slot.stalled();
        assert!(matches!(slot.gives_way(Duration::ZERO), Some((1, _))));
        slot.taken(false);
        assert_eq!(slot.gives_way(Duration::ZERO), None);
        slot.sent();
        slot.stalled();
        assert!(matches!(slot.gives_way(Duration::ZERO), Some((1, _))), "what was handed over is not taken yet");
        slot.taken(true);
        assert!(matches!(slot.gives_way(Duration::ZERO), Some((0, _))));
    }

    #[test]
    fn who_has_just_come_gives_way_to_nobody_until_the_first_answer_and_nobody_else_has_such_time() {
        let (_, slot) = slot();
        let grace = Duration::from_secs(60);
        assert_eq!(slot.gives_way(grace), None);
        slot.received();
        assert_eq!(slot.gives_way(grace), None);
        slot.working();
        slot.sending();
        slot.stalled();
        assert!(matches!(slot.gives_way(grace), Some((1, _))));
        slot.sent();
        slot.taken(true);
        assert!(matches!(slot.gives_way(grace), Some((0, _))));
    }

    #[test]
    fn the_time_for_a_head_begins_with_its_first_byte_and_goes_on_whatever_else_comes() {
        let (_, slot) = slot();
        let first = slot.deadline().unwrap();
        slot.received();
        assert_eq!(slot.deadline(), Some(first), "a connection begins with a head that is due");
        slot.working();
        slot.sending();
        slot.sent();
        slot.taken(true);
        let idle = slot.deadline().unwrap();
        slot.received();
        let begun = slot.deadline().unwrap();
        assert!(begun < idle, "idle may last longer than a head");
        slot.received();
        assert_eq!(slot.deadline(), Some(begun), "a byte now and then wins no time");
    }

    #[test]
    fn a_stream_gives_its_place_back_and_has_no_end() {
        let (counts, slot) = slot();
        let room = counts.room(Listener::Tcp);
        assert_eq!((room.available_permits(), slot.holds_place()), (0, true));
        slot.working();
        slot.streaming();
        assert_eq!((room.available_permits(), slot.holds_place()), (1, false));
        assert_eq!((slot.deadline(), slot.gives_way(Duration::ZERO)), (None, None));
        slot.leave();
        assert_eq!(room.available_permits(), 1, "once");
    }
}
