//! The thread of one place: waits for events, its interval or other wishes, looks, and tells what it found.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::{absence, header::Headers, walk, watch::Watches};
use crate::clock::{self, Instant2};
use crate::storage::{FileId, FileState, Found, Name, Place, PlaceState, Pool, Report, Wanted};

/// What happens together is looked at together.
const TOGETHER: Duration = Duration::from_millis(100);
/// So many times as long as a look took nothing is looked at again, so that a large pool costs a fifth of a CPU at most.
const REST: u32 = 4;
const SECTOR: u64 = 512;

/// The engine's end of a place's thread.
#[derive(Debug)]
pub struct Looker {
    orders: Sender<Vec<Wanted>>,
    waker: Arc<EventFd>,
    reports: Receiver<Report>,
    sent: Vec<Wanted>,
}

impl Looker {
    /// Starts the thread of a pool, or of single files. `wake` is told of each report.
    ///
    /// # Errors
    /// The system's, of the thread.
    pub fn start(place: Place, pool: Option<Pool>, interval: Duration, wake: Arc<EventFd>) -> std::io::Result<Self> {
        let waker = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?);
        let ((orders, asked), (tell, reports)) = (channel(), channel());
        let own = Arc::clone(&waker);
        let work = move || {
            Look::new(place, pool).run(interval, &own, &asked, &|report| {
                // An engine that has ended wants nothing any more; a full counter still wakes.
                let told = tell.send(report).is_ok();
                let _ = wake.write(1);
                told
            })
        };
        std::thread::Builder::new().name("storage".to_owned()).spawn(work)?;
        Ok(Self { orders, waker, reports, sent: Vec::new() })
    }

    /// Names the files that are looked for beside those that a walk finds.
    pub fn want(&mut self, wanted: Vec<Wanted>) {
        if wanted != self.sent {
            self.sent.clone_from(&wanted);
            if self.orders.send(wanted).is_ok() {
                // A full counter still wakes.
                let _ = self.waker.write(1);
            }
        }
    }

    /// What it found since it was asked.
    pub fn reports(&self) -> impl Iterator<Item = Report> + '_ {
        self.reports.try_iter()
    }
}

impl Drop for Looker {
    fn drop(&mut self) {
        let (orders, _) = channel();
        self.orders = orders;
        let _ = self.waker.write(1);
    }
}

/// One look at a pool by itself; nothing is watched after it.
#[must_use]
pub fn look_once(pool: &Pool) -> Option<Report> {
    Look::new(Place::Pool(0), Some(pool.clone())).look().ok()
}

/// A file that is known here.
struct Tracked {
    path: PathBuf,
    name: Option<Name>,
    via: Option<PathBuf>,
    last: Option<Found>,
}

/// What the thread owns.
struct Look {
    place: Place,
    pool: Option<Pool>,
    watches: Watches,
    headers: Headers,
    tracked: BTreeMap<FileId, Tracked>,
    wanted: BTreeMap<FileId, Wanted>,
    freed: BTreeMap<FileId, Instant2>,
    /// Something could not be told yet.
    again: bool,
}

impl Look {
    fn new(place: Place, pool: Option<Pool>) -> Self {
        let (tracked, wanted, freed) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { place, pool, watches: Watches::new(), headers: Headers::default(), tracked, wanted, freed, again: false }
    }

    fn run(
        mut self,
        interval: Duration,
        waker: &EventFd,
        asked: &Receiver<Vec<Wanted>>,
        tell: &dyn Fn(Report) -> bool,
    ) {
        let mut due = Instant::now();
        // Looks that come from events keep this distance.
        let mut rested = due;
        loop {
            let now = Instant::now();
            if now >= due {
                let began = Instant::now();
                match self.look() {
                    Ok(report) => {
                        if !tell(report) {
                            return;
                        }
                    }
                    Err(error) => tracing::warn!(%error, "the clock cannot be read"),
                }
                let took = began.elapsed();
                rested = Instant::now() + took * REST;
                due = Instant::now() + interval;
                if std::mem::take(&mut self.again) {
                    due = rested.max(Instant::now() + TOGETHER);
                }
            }
            self.wait(waker, due.saturating_duration_since(Instant::now()));
            let soon = (Instant::now() + TOGETHER).max(rested);
            match asked.try_recv() {
                Ok(wanted) => {
                    // Only the newest counts.
                    let wanted = asked.try_iter().last().unwrap_or(wanted);
                    self.wanted = wanted.into_iter().map(|one| (one.id, one)).collect();
                    due = due.min(soon);
                }
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => return,
            }
            if self.drain() {
                due = due.min(soon);
            }
        }
    }

    fn wait(&self, waker: &EventFd, left: Duration) {
        let millis = left.as_millis().saturating_add(1).min(60_000);
        let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
        let mut fds = vec![PollFd::new(waker.as_fd(), PollFlags::POLLIN)];
        fds.extend(self.watches.fd().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        // Whatever it is, the loop looks at everything.
        let _ = poll(&mut fds, timeout);
        let _ = waker.read();
    }

    /// Takes events; true if a look is worth while. What was let go was so just now.
    fn drain(&mut self) -> bool {
        let told = self.watches.drain();
        if let Ok(now) = clock::now() {
            self.freed.extend(told.freed.into_iter().map(|id| (id, now)));
        }
        told.dirty
    }

    fn look(&mut self) -> std::io::Result<Report> {
        let (at, began) = (clock::now()?, Instant::now());
        let freed = std::mem::take(&mut self.freed);
        let mut state = PlaceState::default();
        let (mut files, mut seen): (Vec<Found>, BTreeSet<FileId>) = Default::default();
        if let Some(pool) = &self.pool {
            let walked = walk::walk(pool);
            state = walked.state;
            state.skipped.unwatched += self.watches.watch_dirs(&walked.dirs);
            let mut entries = walked.files;
            // Of a file with several names the one it was known by, then the first.
            entries.sort_by_key(|entry| self.tracked.get(&entry.id).is_none_or(|known| known.path != entry.path));
            for entry in entries {
                // What was let go and is there again, of a file system without births, is told one after the other.
                if freed.contains_key(&entry.id) {
                    self.again = true;
                } else if seen.insert(entry.id) {
                    files.push(self.found(&entry, &mut state));
                }
            }
        }
        for (id, wanted) in &self.wanted {
            let known = self.tracked.entry(*id).or_insert_with(|| Tracked {
                path: PathBuf::from(&wanted.path),
                name: None,
                via: None,
                last: None,
            });
            known.via = wanted.via.as_ref().map(PathBuf::from);
            if self.pool.is_none() {
                known.path = PathBuf::from(&wanted.path);
            }
        }
        let absent: Vec<FileId> = self.tracked.keys().filter(|id| !seen.contains(id)).copied().collect();
        for id in absent {
            let found = self.absent(&id, freed.get(&id).copied(), &mut state);
            files.extend(found);
        }
        self.forget(&files);
        state.took_ns = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Ok(Report { place: self.place, at, files, state })
    }

    /// A file that a walk found.
    fn found(&mut self, entry: &walk::Entry, state: &mut PlaceState) -> Found {
        if !self.watches.watch_file(&entry.id, &entry.path, false) {
            state.skipped.unwatched += 1;
        }
        let contents = self.headers.of(&entry.id, &entry.path, &entry.stat);
        let found = Found {
            id: entry.id,
            path: entry.path.to_string_lossy().into_owned(),
            name: Some(entry.name.clone()),
            capacity_bytes: contents.capacity_bytes,
            allocated_bytes: entry.stat.blocks().saturating_mul(SECTOR),
            backing: contents.backing,
            state: FileState::There,
        };
        let (path, name, last) = (entry.path.clone(), Some(entry.name.clone()), Some(found.clone()));
        self.tracked.insert(entry.id, Tracked { path, name, via: None, last });
        found
    }

    /// A file that no walk found, or that is looked for by itself.
    fn absent(&mut self, id: &FileId, freed: Option<Instant2>, state: &mut PlaceState) -> Option<Found> {
        let tracked = self.tracked.get(id)?;
        let (path, via) = (tracked.path.clone(), tracked.via.clone());
        let by_path = || absence::look(id, &path);
        let what = match freed {
            Some(at) => FileState::Freed(at),
            None if self.pool.is_none() => match by_path() {
                FileState::There => FileState::There,
                other => self.nameless(id, via.as_deref()).unwrap_or(other),
            },
            None => self.nameless(id, via.as_deref()).unwrap_or_else(by_path),
        };
        if what == FileState::There && !self.watches.watch_file(id, &path, false) && !self.watch_via(id, via.as_deref())
        {
            state.skipped.unwatched += 1;
        }
        let tracked = self.tracked.get(id)?;
        let mut found = tracked.last.clone().unwrap_or_else(|| Found {
            id: *id,
            path: path.to_string_lossy().into_owned(),
            name: tracked.name.clone(),
            capacity_bytes: None,
            allocated_bytes: 0,
            backing: None,
            state: what.clone(),
        });
        found.state = what;
        if found.state == FileState::There
            && let Ok(stat) = fs::symlink_metadata(&path)
        {
            found.path = path.to_string_lossy().into_owned();
            found.allocated_bytes = stat.blocks().saturating_mul(SECTOR);
            if stat.is_file() {
                found.backing = self.headers.of(id, &path, &stat).backing;
            }
        }
        Some(found)
    }

    fn watch_via(&mut self, id: &FileId, via: Option<&Path>) -> bool {
        via.is_some_and(|via| self.watches.watch_file(id, via, true))
    }

    fn nameless(&mut self, id: &FileId, via: Option<&Path>) -> Option<FileState> {
        (self.watches.has(id) || self.watch_via(id, via)).then_some(FileState::Nameless)
    }

    /// Keeps what there is, and what is asked for.
    fn forget(&mut self, files: &[Found]) {
        let over = |file: &&Found| matches!(file.state, FileState::Freed(_) | FileState::Gone { .. });
        let stays: BTreeSet<FileId> = files.iter().filter(|file| !over(file)).map(|file| file.id).collect();
        let (loose, wanted) = (self.pool.is_none(), &self.wanted);
        self.tracked.retain(|id, _| stays.contains(id) && (!loose || wanted.contains_key(id)));
        let tracked = &self.tracked;
        self.watches.keep(|id| tracked.contains_key(id));
        self.headers.keep(|id| tracked.contains_key(id));
    }
}
