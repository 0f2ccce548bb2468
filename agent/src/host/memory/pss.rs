//! The proportional set size, read beside the sample loop: the kernel walks every page of the process for it, about a
//! hundred times the cost of `status` and more the larger the VM is, so one slow reading must not delay a sample.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, channel, sync_channel};

use super::{fetch, gone_is_none, parse};

/// Readings that may wait; the rest are asked for again at a later sample.
const QUEUE: usize = 64;

/// An open `smaps_rollup`.
#[derive(Debug)]
pub struct PssFile(pub(super) File);

impl PssFile {
    fn read(&self) -> io::Result<Option<u64>> {
        Ok(gone_is_none(fetch(&self.0))?.and_then(|text| parse::pss(&text)))
    }
}

/// One answer: whose, and bytes, `None` if the process had no memory any more.
#[derive(Debug)]
pub struct PssAnswer {
    /// The process id and start it was asked for with.
    pub vm: (u32, u64),
    /// Proportional set size.
    pub bytes: io::Result<Option<u64>>,
}

/// A thread that reads one `smaps_rollup` after the other.
#[derive(Debug)]
pub struct PssReader {
    ask: SyncSender<((u32, u64), PssFile)>,
    answers: Receiver<PssAnswer>,
}

impl PssReader {
    /// Starts the thread; it ends with the reader.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start() -> io::Result<Self> {
        let (ask, asked) = sync_channel::<((u32, u64), PssFile)>(QUEUE);
        // As many answers as questions: bounded by the queue, for the engine takes them at each sample.
        let (answer, answers) = channel();
        std::thread::Builder::new().name("pss".to_owned()).spawn(move || {
            for (vm, file) in asked {
                if answer.send(PssAnswer { vm, bytes: file.read() }).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { ask, answers })
    }

    /// Asks for a reading; false when too many wait.
    pub fn ask(&self, vm: (u32, u64), file: PssFile) -> bool {
        match self.ask.try_send((vm, file)) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }

    /// An answer that is there.
    #[must_use]
    pub fn answer(&self) -> Option<PssAnswer> {
        self.answers.try_recv().ok()
    }
}

/// Whether this kernel has the file, by trying our own.
///
/// # Errors
/// The system's reason.
pub fn pss_readable(root: &Path) -> io::Result<()> {
    File::open(root.join("proc/self/smaps_rollup")).map(drop)
}
