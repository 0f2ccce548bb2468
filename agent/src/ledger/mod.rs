//! The metering ledger: one fact a line, append-only, durable before anything acts on it.
//!
//! Owns the encoding of a line (`record`, `line`, `wire`, `fit`), the files and their lock (`store`, `lock`, `opening`,
//! `standing`, `journal`, `files`, `manifest`), when old ones go (`retention`, `reader`, `carry`), what a returning agent learns from it (`recover`, `interval`, `torn`), the thread that writes (`writer`,
//! `pump`, `spool`), what else can record (`recorder`, `stream`) and the readers (`verify`, `show`, `rollup`, `export`). Facts come in as [`Draft`]s from the lifecycle bus; lines go
//! out to one file at a time.
//! Refuses: to skip damage, to write beside another agent, to forget a fact without counting it, to read a clock.

mod boots;
mod carry;
mod digest;
mod error;
mod export;
mod fact;
mod files;
mod fit;
mod input;
mod interval;
mod journal;
mod kind;
mod laid;
mod lately;
mod line;
mod lock;
mod manifest;
mod opening;
mod ordinal;
mod past;
mod pump;
mod reader;
mod record;
mod recorder;
mod recover;
mod retention;
mod rollup;
mod scan;
mod schema;
mod show;
mod since;
mod spool;
mod standing;
mod stats;
mod store;
mod stream;
mod torn;
mod usage;
mod verify;
mod wire;
mod writer;

#[cfg(test)]
mod tests;

pub(crate) use digest::sum as line_sum;
pub use error::{LedgerError, LineError, Op};
pub use export::{Cursor, CursorError, Event, ExportError, ExportFormat, Exporter, FollowError, Follower, export};
pub use fact::{Coverage, Evidence, Mark, Shape, Stamp, StoredFile, Subject, TimeQuality};
pub use files::Listing;
pub use input::{InputError, Notes, ledger_files};
pub use interval::{OpenInterval, OpenStorage};
pub use journal::{Committed, Journal, Keeping, Look, Space, Written};
pub use kind::{Kind, ParseKindError, ParseReasonError, Reason};
pub use laid::{Laid, LaidOver};
pub use lately::{Lately, Told};
pub use line::Line;
pub use lock::{WriteLock, is_written};
pub use past::{Before, HIBERNATE, Past, Whose};
pub use reader::acknowledge;
pub use record::{Draft, Encoded, Place, encode};
pub use recorder::{DiscardRecorder, Entry, MemoryRecorder, Recorder};
pub use recover::{Recovered, recover};
pub use rollup::{By, Form, Order, Period, Quantity, RollupError, Row, rollup};
pub use scan::{LINE_MAX_BYTES, RawLine, Scanner};
pub use schema::schema;
pub use show::{Filter, Format, Shown, show, show_head};
pub use since::{Since, since};
pub use spool::{Refusal, Refused};
pub use stats::Stats;
pub use store::{FileStore, Standing, Store};
pub use stream::StreamStore;
pub use torn::Torn;
pub use usage::{NetUnobserved, NetUsage, Usage};
pub use verify::{Anchor, Fault, Open, OpenStored, Report, Tail, Verifier, verify_dir, verify_file, verify_files};
pub use writer::{Clock, OnCommit, Options, Ticket, Undrained, Writer, WriterHandle};

/// The live file's name inside the metering directory.
pub const FILE_NAME: &str = "ledger.jsonl";

/// The lock file's name inside the metering directory; it holds the writer's pid as text.
pub const LOCK_NAME: &str = "lock";
