//! The lines of many files, of one host or many, as one stream: each line once, however often and in whatever files it
//! lies. Files are looked through once for what they hold (`run`) and read a second time in order (`merge`).
//! Refuses: to guess. What is damaged, missing, or told in two ways under one id is noted and never smoothed over.
//! Memory grows with files, corrections and torn-apart stretches of lines, not with lines.

mod correction;
mod find;
mod merge;
mod notes;
mod run;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use super::Line;
pub(super) use correction::Corrections;
pub use find::ledger_files;
pub use notes::Notes;

use merge::HostStream;
use run::Run;

/// What keeps files from being read as ledgers at all.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// A file or directory cannot be read.
    #[error("{path} cannot be read")]
    Io {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The lines lie in no order, so that following them would take a file handle for each.
    #[error("{path} is shuffled: its lines are in more than {limit} pieces; sort them by `ledger` and `seq` first")]
    Shuffled {
        /// The file at which it was too much.
        path: PathBuf,
        /// How many pieces all files may have.
        limit: usize,
    },
}

/// Files that were looked through.
#[derive(Debug)]
pub struct Input {
    files: Vec<PathBuf>,
    /// By machine-id, then by ledger, in the order of their numbers.
    hosts: BTreeMap<String, BTreeMap<String, Vec<Run>>>,
    corrections: Corrections,
    /// What was found wrong so far.
    pub notes: Notes,
}

impl Input {
    /// Looks through files; the order they are named in makes no difference.
    ///
    /// # Errors
    /// [`InputError`].
    pub fn open(files: Vec<PathBuf>) -> Result<Self, InputError> {
        let mut input =
            Self { files, hosts: BTreeMap::new(), corrections: Corrections::default(), notes: Notes::default() };
        let mut runs = 0;
        for at in 0..input.files.len() {
            for run in run::scan(&input.files[at], at, runs, &mut input.corrections, &mut input.notes)? {
                runs += 1;
                let ledgers = input.hosts.entry(run.host.clone()).or_default();
                ledgers.entry(run.ledger.clone()).or_default().push(run);
            }
        }
        input.notes.files = input.files.len() as u64;
        input.notes.hosts = input.hosts.len() as u64;
        run::tell_holes(&mut input.hosts, &mut input.notes);
        Ok(input)
    }

    /// Calls `each` with every line of every host, hosts in order of their ids and lines in order of time within each
    /// ledger; with what a correction made of them where `corrected`. `host_done` is called after each host.
    ///
    /// # Errors
    /// What the readers say, or what `each` and `host_done` return.
    pub fn read<E: From<InputError>>(
        &mut self,
        corrected: bool,
        mut each: impl FnMut(Step<'_>, &mut Notes) -> Result<(), E>,
    ) -> Result<(), E> {
        for (host, ledgers) in std::mem::take(&mut self.hosts) {
            let mut stream = HostStream::new(&self.files, ledgers);
            while let Some((line, bytes)) = stream.next(&mut self.notes)? {
                self.notes.note(&line);
                let line = if corrected { self.corrections.apply(line, &mut self.notes) } else { line };
                each(Step::Line { line: &line, bytes: &bytes }, &mut self.notes)?;
            }
            each(Step::HostDone { host: &host }, &mut self.notes)?;
        }
        if corrected {
            self.corrections.tell_unused(&mut self.notes);
        }
        Ok(())
    }
}

/// One step through the input.
#[derive(Debug)]
pub enum Step<'a> {
    /// The next line, and its bytes as they lie in the file.
    Line {
        /// What it says, corrected where that was asked for.
        line: &'a Line,
        /// As it was written.
        bytes: &'a [u8],
    },
    /// No more lines of this host.
    HostDone {
        /// Its machine-id.
        host: &'a str,
    },
}
