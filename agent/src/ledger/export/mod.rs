//! The ledger in other forms: the old eight keys, CloudEvents, and the events of two metering services.
//! Every event has an id that is the same however often and from whatever copy of the ledger it is made, so that
//! sending it again is harmless. Only reads; holds what is open, never lines.

mod cloudevent;
mod cocoon;
mod cursor;
mod follow;
mod form;
mod metered;

use std::io::{self, Write};
use std::path::PathBuf;

use super::Line;
use super::input::{Input, InputError, Notes, Step};
pub use cursor::{Cursor, CursorError};
pub use follow::{FollowError, Follower};
pub use form::ExportFormat;

use cocoon::Cocoon;
use metered::Metered;

/// One event: JSON without a newline, and the id by which its receiver knows a repetition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The line's `id`, with what tells several events of one line apart.
    pub id: String,
    /// The event.
    pub json: Vec<u8>,
}

/// What keeps an export from being made.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The ledgers cannot be read.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The events cannot be written.
    #[error("the events cannot be written")]
    Output(#[from] io::Error),
}

/// Makes events of lines, which come in the ledger's order, all of them from the first one there is.
#[derive(Debug)]
pub struct Exporter {
    how: How,
    corrections_left_out: u64,
}

#[derive(Debug)]
enum How {
    Cocoon(Cocoon),
    Cloudevents,
    Metered(Box<Metered>),
}

impl Exporter {
    /// Nothing seen yet.
    #[must_use]
    pub fn new(format: ExportFormat) -> Self {
        let how = match format {
            ExportFormat::Cocoon => How::Cocoon(Cocoon::default()),
            ExportFormat::Cloudevents | ExportFormat::CloudeventsBatch => How::Cloudevents,
            ExportFormat::Openmeter | ExportFormat::Lago => How::Metered(Box::new(Metered::new(format))),
        };
        Self { how, corrections_left_out: 0 }
    }

    /// The events of a line; `bytes` are its own.
    pub fn accept(&mut self, line: &Line, bytes: &[u8], notes: &mut Notes) -> Vec<Event> {
        let carries_corrections = matches!(self.how, How::Cloudevents);
        self.corrections_left_out += u64::from(line.fact.kind == super::Kind::Correction && !carries_corrections);
        match &mut self.how {
            How::Cocoon(cocoon) => cocoon.accept(line),
            How::Cloudevents => vec![cloudevent::of(line, bytes)],
            How::Metered(metered) => metered.accept(line, notes),
        }
    }

    /// Another host's lines follow.
    pub fn host_done(&mut self, notes: &mut Notes) {
        match &mut self.how {
            How::Cocoon(cocoon) => *cocoon = Cocoon::default(),
            How::Cloudevents => {}
            How::Metered(metered) => metered.finish(notes),
        }
    }

    /// Corrections that came and that the form has no word for.
    #[must_use]
    pub const fn corrections_left_out(&self) -> u64 {
        self.corrections_left_out
    }
}

/// Writes all lines of these files as events, `batch` at most to an array where the form has arrays.
///
/// # Errors
/// [`ExportError`]; what is wrong with the lines themselves is in the notes.
pub fn export(
    files: Vec<PathBuf>,
    format: ExportFormat,
    batch: usize,
    out: &mut dyn Write,
) -> Result<(Notes, u64), ExportError> {
    let mut input = Input::open(files)?;
    let (mut exporter, mut waiting) = (Exporter::new(format), Vec::new());
    // A form that cannot tell corrections is given corrected lines, except the old one, whose readers saw the first.
    let corrected = matches!(format, ExportFormat::Openmeter | ExportFormat::Lago);
    input.read(corrected, |step, notes| {
        match step {
            Step::Line { line, bytes } => waiting.append(&mut exporter.accept(line, bytes, notes)),
            Step::HostDone { .. } => exporter.host_done(notes),
        }
        while waiting.len() >= batch.max(1) {
            let rest = waiting.split_off(batch.max(1));
            out.write_all(&format.lines(&std::mem::replace(&mut waiting, rest)))?;
        }
        Ok::<(), ExportError>(())
    })?;
    out.write_all(&format.lines(&waiting))?;
    out.flush()?;
    Ok((input.notes, if corrected { 0 } else { exporter.corrections_left_out() }))
}
