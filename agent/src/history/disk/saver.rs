//! The thread that saves: regularly, and once more when the agent ends. Nobody waits for it while the agent runs.

use std::{
    io,
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    thread::JoinHandle,
    time::Duration,
};

use super::Disk;
use crate::{account::past::Saving, cause, clock, history::store::Store};

/// The running thread.
#[derive(Debug)]
pub struct Saver {
    stop: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

impl Saver {
    /// Starts it; it saves `store` every `every`. `damaged` is what was found so at the start.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(disk: Disk, store: Arc<Store>, every: Duration, damaged: u64) -> io::Result<Self> {
        let (stop, told) = mpsc::channel();
        let saving = Saving { bytes: disk.bytes(), damaged, ..Saving::default() };
        store.tell_saving(saving.clone());
        let thread = std::thread::Builder::new().name("history".to_owned()).spawn(move || {
            let mut saves = Saves { disk, store, saving };
            while told.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                saves.save();
            }
            saves.save();
        })?;
        Ok(Self { stop, thread })
    }

    /// Saves once more and ends. Waits for the disk.
    pub fn finish(self) {
        // It may have died; then there is nobody to tell.
        let _ = self.stop.send(());
        if self.thread.join().is_err() {
            tracing::error!("the thread that saves the history died; this is a bug, please report it");
        }
    }
}

struct Saves {
    disk: Disk,
    store: Arc<Store>,
    saving: Saving,
}

impl Saves {
    fn save(&mut self) {
        let outcome = clock::now().and_then(|now| self.disk.save(&self.store, now).map(|()| now.unix_ns));
        self.saving.bytes = self.disk.bytes();
        self.saving.written = self.disk.written();
        match outcome {
            Ok(unix_ns) => {
                self.saving.saved_unix_ns = unix_ns;
                if self.saving.trouble.take().is_some() {
                    tracing::info!("the history is saved to disk again");
                }
            }
            Err(error) => {
                self.saving.failures += 1;
                // Once, not at each save.
                if self.saving.trouble.replace(cause::chain(&error)).is_none() {
                    tracing::error!(%error, "the history cannot be saved to disk; it goes on in memory, and a restart loses what was not saved");
                }
            }
        }
        self.store.tell_saving(self.saving.clone());
    }
}
