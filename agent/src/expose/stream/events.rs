//! `/v1/events`: ledger lines as they become durable. A reader holds the number of its last line; the ring has what is
//! new, the ledger's files what it missed. One that did not take what waited for a second, and for which more waits than
//! the bound, is slow: it goes on with the newest and is told how many it lost.

use std::{
    collections::VecDeque,
    io,
    str::FromStr as _,
    time::{Duration, Instant},
};

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    http::HeaderMap,
    response::{IntoResponse, Response, sse::Event},
};
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::{Lines, MOST_WAITING, Streams, Told, answer, dropped, last_event_id};
use crate::{
    expose::{http::Views, problem::Problem},
    ledger::Kind,
    lifecycle::Interest,
};

/// Whoever takes what waits within this is not slow, however much comes at once.
const SLOW: Duration = Duration::from_secs(1);

/// Parameters as they stand in the URL.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventsQuery {
    kinds: Option<String>,
}

/// One reader.
struct Reader {
    interest: Interest,
    streams: Streams,
    newest: watch::Receiver<u64>,
    /// The newest line told, or passed over.
    seq: u64,
    /// What it comes back for, up to this number, is told whole, however slow it is.
    owed: u64,
    ready: VecDeque<Told>,
    lost: u64,
    /// When it took the last line.
    took: Instant,
    /// It did not take what waited for it, until it has all there is or was told what it lost.
    slow: bool,
    _room: OwnedSemaphorePermit,
}

/// Lines of the files.
struct Read {
    /// Those of interest: the first ones, or of a slow reader the last ones.
    lines: VecDeque<Told>,
    /// How many are not among them, though they are of interest or not there any more.
    lost: u64,
    /// The number of the last line looked at.
    upto: u64,
}

/// Lines as they become durable.
pub async fn events(
    State(views): State<Views>,
    query: Result<Query<EventsQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Response {
    let asked = query.map_err(|error| Problem::parameter("query", error.body_text()));
    let asked = asked.and_then(|Query(query)| kinds(query.kinds.as_deref()));
    let (kinds, since, room) = match (asked, last_event_id(&headers), views.streams.enter()) {
        (Ok(kinds), Ok(since), Ok(room)) => (kinds, since, room),
        (Err(problem), _, _) | (_, Err(problem), _) | (_, _, Err(problem)) => return problem.into_response(),
    };
    let streams = views.streams.clone();
    let newest = streams.ring.newest();
    let owed = *newest.borrow();
    let reader = Reader {
        interest: Interest::of(&kinds),
        streams,
        newest,
        // A number of the time to come would keep the reader waiting for it.
        seq: since.unwrap_or(owed).min(owed),
        owed,
        ready: VecDeque::new(),
        lost: 0,
        took: Instant::now(),
        slow: false,
        _room: room,
    };
    answer(futures_util::stream::unfold(reader, |mut reader| async move { Some((reader.next().await?, reader)) }))
}

/// The kinds asked for; without any all but heartbeats.
fn kinds(asked: Option<&str>) -> Result<Vec<Kind>, Problem> {
    let Some(asked) = asked else { return Ok(Kind::ALL.iter().copied().filter(|kind| !kind.is_heartbeat()).collect()) };
    let each = asked.split(',').map(|kind| Kind::from_str(kind.trim()));
    each.collect::<Result<_, _>>().map_err(|error| {
        let known = Kind::ALL.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(" ");
        Problem::parameter("kinds", format!("{error}; kinds are {known}"))
    })
}

impl Reader {
    async fn next(&mut self) -> Option<Event> {
        self.slow |= self.took.elapsed() > SLOW;
        loop {
            if self.lost > 0 {
                self.streams.count_lost(self.lost);
                return Some(dropped(std::mem::take(&mut self.lost)));
            }
            if let Some(told) = self.ready.pop_front() {
                self.took = Instant::now();
                return Some(line(&told));
            }
            let newest = *self.newest.borrow_and_update();
            if self.seq < newest {
                self.fetch(newest).await;
            } else {
                // It has all there is. Without a ledger there is nothing to come.
                self.slow = false;
                self.newest.changed().await.ok()?;
            }
        }
    }

    /// What comes next, a bounded part of it.
    async fn fetch(&mut self, newest: u64) {
        let slow = self.seq >= self.owed && std::mem::take(&mut self.slow);
        let read = match self.streams.ring.between(self.seq, newest, &self.interest) {
            Some(lines) => bounded(lines.into_iter().map(Ok), self.seq, newest, slow, None),
            None => self.reread(newest, slow).await,
        };
        match read {
            Ok(read) => {
                (self.seq, self.lost) = (read.upto, read.lost);
                self.ready = read.lines;
            }
            Err(error) => {
                tracing::warn!(%error, "the ledger cannot be read for a stream");
                (self.lost, self.seq) = (newest - self.seq, newest);
            }
        }
    }

    async fn reread(&self, newest: u64, slow: bool) -> io::Result<Read> {
        let (reread, after, interest) = (self.streams.reread.clone(), self.seq, self.interest.clone());
        let read = move || -> io::Result<Read> {
            let lines: Lines = reread(after, newest)?;
            bounded(lines, after, newest, slow, Some(&interest))
        };
        tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
    }
}

/// Takes the first lines of those behind `after`, or the last of a slow reader's. `whole` is given where all lines come,
/// so that a hole in the numbers is a loss, and says which are of interest.
fn bounded(
    lines: impl Iterator<Item = io::Result<Told>>,
    after: u64,
    newest: u64,
    slow: bool,
    whole: Option<&Interest>,
) -> io::Result<Read> {
    let mut read = Read { lines: VecDeque::with_capacity(MOST_WAITING), lost: 0, upto: newest };
    let mut before = after;
    for told in lines {
        let told = told?;
        let wanted = whole.is_none_or(|interest| interest.takes(told.kind));
        let full = wanted && read.lines.len() >= MOST_WAITING;
        if full && !slow {
            // The rest comes later.
            read.upto = before;
            return Ok(read);
        }
        if whole.is_some() {
            read.lost += told.seq.saturating_sub(before + 1);
        }
        if full {
            read.lines.pop_front();
            read.lost += 1;
        }
        before = told.seq;
        if wanted {
            read.lines.push_back(told);
        }
    }
    if whole.is_some() {
        read.lost += newest.saturating_sub(before);
    }
    Ok(read)
}

fn line(told: &Told) -> Event {
    Event::default().event(told.kind.as_str()).id(told.seq.to_string()).data(String::from_utf8_lossy(&told.line))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn told(seq: u64) -> io::Result<Told> {
        let kind = if seq.is_multiple_of(3) { Kind::VmComputeUsage } else { Kind::VmComputeStart };
        Ok(Told { seq, kind, line: b"{}"[..].into() })
    }

    proptest! {
        #[test]
        fn told_and_lost_are_all_there_were_and_no_more_than_the_bound_waits(
            there in proptest::collection::btree_set(1u64..400, 0..300), after in 0u64..100, slow in any::<bool>(),
        ) {
            let interest = Interest::of(&[Kind::VmComputeStart]);
            let (mut at, mut got, mut lost) = (after, Vec::new(), 0);
            let due: Vec<u64> = there.iter().copied().filter(|seq| *seq > after).collect();
            while at < 400 {
                let lines = due.iter().filter(|seq| **seq > at).map(|seq| told(*seq));
                let read = bounded(lines, at, 400, slow, Some(&interest)).unwrap();
                prop_assert!(read.lines.len() <= MOST_WAITING && read.upto > at);
                got.extend(read.lines.iter().map(|told| told.seq));
                (at, lost) = (read.upto, lost + read.lost);
            }
            let wanted: Vec<u64> = due.iter().copied().filter(|seq| !seq.is_multiple_of(3)).collect();
            let gone = (400 - after) - due.len() as u64;
            prop_assert_eq!(got.len() as u64 + lost, wanted.len() as u64 + gone);
            prop_assert!(wanted.ends_with(&got));
            if !slow {
                prop_assert_eq!(got, wanted);
            }
        }
    }
}
