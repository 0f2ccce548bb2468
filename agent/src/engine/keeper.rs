//! Keeps statements that wait in a file, so that they outlive this agent. A thread writes and syncs it and gives the answers,
//! because the engine waits for no disk: who is told that a statement was taken can rely on it.

mod file;

use std::{
    path::{Path, PathBuf},
    sync::mpsc,
    thread::JoinHandle,
    time::Duration,
};

use tokio::sync::oneshot;

pub(in crate::engine) use file::Change;
use file::KeptFile;

use super::{Control, Refused, Remote};
use crate::{
    cause,
    clock::Instant2,
    ledger::{Laid, Ticket, WriterHandle},
    lifecycle::annotation::{Store, kept},
};

/// How long a line of the ledger is waited for before that is told; while the ledger cannot be written, not at all.
const LINE: Duration = Duration::from_secs(3);

/// Takes what became of a statement.
pub(super) type Answer = oneshot::Sender<Result<(), Refused>>;

/// A statement that was taken, and what has to be durable before that is said.
pub(super) struct Taken {
    /// What of it waits.
    pub(super) change: Option<Change>,
    /// The lines it made.
    pub(super) ticket: Option<Ticket>,
    /// Who asks.
    pub(super) answer: Answer,
}

enum Job {
    Take(Taken),
    Note(Vec<Change>),
}

/// The thread's other end. Dropped, it writes what was handed over and ends.
pub(super) struct Keeper {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Hands one over that was taken; false if nobody keeps it.
    pub(super) fn take(&self, taken: Taken) -> bool {
        self.jobs.as_ref().is_some_and(|jobs| jobs.send(Job::Take(taken)).is_ok())
    }

    /// Hands over what has become of others.
    pub(super) fn note(&self, changes: Vec<Change>) {
        if let Some(jobs) = &self.jobs {
            // A thread that is gone has said so.
            let _ = jobs.send(Job::Note(changes));
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // It has nothing to say.
            let _ = thread.join();
        }
    }
}

/// What an earlier agent kept, and how many lines of it cannot be read. A file that is not sound is put aside.
pub(super) fn find(path: &Path, laid: &Laid, boot_id: &str, now: Instant2) -> (Store, u64) {
    let (bytes, more) = match file::read(path) {
        Ok(read) => read,
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "annotations that waited cannot be read; none is known");
            put_aside(path);
            return (Store::default(), 1);
        }
    };
    let found = kept::read(&bytes, boot_id, now);
    let unread = found.unread + u64::from(more);
    if unread > 0 {
        let (file, waiting) = (path.display(), found.waiting.len());
        tracing::error!(%file, unread, waiting, "not all of the annotations that waited are as they were written");
        put_aside(path);
    }
    if found.torn_bytes > 0 {
        let bytes = found.torn_bytes;
        tracing::warn!(bytes, "an annotation was being taken when the agent died; nobody was told that it was");
    }
    let (expired, gone) = (found.expired, found.gone);
    let store = Store::resume(found.waiting, found.last_id, laid);
    let waiting = store.waiting().len();
    if waiting > 0 || expired > 0 || gone > 0 {
        tracing::info!(waiting, expired, gone, "annotations of an earlier agent");
    }
    (store, unread)
}

fn put_aside(path: &Path) {
    match file::put_aside(path) {
        Ok(aside) => tracing::error!(aside = %aside.display(), "that file was put aside"),
        Err(error) => tracing::error!(path = %path.display(), %error, "that file cannot be put aside"),
    }
}

/// Starts the thread over what waits now.
///
/// # Errors
/// When there can be none.
pub(super) fn start(
    path: PathBuf,
    lines: Vec<(u64, Vec<u8>)>,
    ledger: WriterHandle,
    remote: Remote,
) -> std::io::Result<Keeper> {
    let mut file = KeptFile::new(path, lines.into_iter().collect());
    if let Err(error) = file.write_anew() {
        tracing::error!(%error, "annotations cannot be kept; none that waits is taken until they can be");
    }
    let (jobs, given) = mpsc::channel();
    let work = move || {
        while let Ok(job) = given.recv() {
            let more = std::iter::from_fn(|| given.try_recv().ok());
            settle(&mut file, std::iter::once(job).chain(more), &ledger, &remote);
        }
    };
    let thread = std::thread::Builder::new().name("annotations".to_owned()).spawn(work)?;
    Ok(Keeper { jobs: Some(jobs), thread: Some(thread) })
}

/// Writes what these say in one go, and answers.
fn settle(file: &mut KeptFile, jobs: impl Iterator<Item = Job>, ledger: &WriterHandle, remote: &Remote) {
    let (mut changes, mut answers) = (Vec::new(), Vec::new());
    for job in jobs {
        match job {
            Job::Take(Taken { change, ticket, answer }) => {
                answers.push((change.as_ref().map(|change| change.id), ticket, answer));
                changes.extend(change);
            }
            Job::Note(noted) => changes.extend(noted),
        }
    }
    let sync = answers.iter().any(|(id, ..)| id.is_some());
    let written = if changes.is_empty() { Ok(()) } else { file.change(changes, sync) };
    if let Err(error) = &written {
        tracing::error!(%error, "annotations cannot be kept");
    }
    for (id, ticket, answer) in answers {
        let told = match (&written, id) {
            (Err(error), Some(id)) => {
                // One that ends has nothing to forget.
                let _ = remote.tell(Control::Unkept(id));
                Err(Refused::NotKept(cause::chain(error)))
            }
            _ => line_is_durable(ledger, ticket),
        };
        // Who asked may be gone.
        let _ = answer.send(told);
    }
}

/// Whether the lines a statement made are durable.
fn line_is_durable(ledger: &WriterHandle, ticket: Option<Ticket>) -> Result<(), Refused> {
    let Some(ticket) = ticket else { return Ok(()) };
    let patience = if ledger.is_degraded() { Duration::ZERO } else { LINE };
    if ledger.wait_durable(ticket, patience) { Ok(()) } else { Err(Refused::NotWritten) }
}
