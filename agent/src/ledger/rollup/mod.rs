//! Adds ledgers up: for each VM, tenant or host and each hour or day of UTC, what was allocated and what was used.
//! Whole numbers throughout; the buckets of a life sum to the life, exactly. The same lines give the same bytes, in
//! whatever files and order they come. Only reads; holds what is open and the rows of one host (or of the whole,
//! where hosts are added up), never lines.

mod amount;
mod counter;
mod csv;
mod fold;
mod json;
mod life;
#[cfg(feature = "parquet")]
mod parquet;
mod row;
mod stretch;
mod table;

use std::io::{self, Write};
use std::path::PathBuf;

use super::Line;
use super::input::{Input, InputError, Notes, Step};
pub use amount::Quantity;
pub(in crate::ledger) use amount::{Amounts, NET_NAMES};
pub(in crate::ledger) use fold::Fold;
pub use row::Row;
pub(in crate::ledger) use stretch::Part;
pub use stretch::Period;
use table::Table;

/// Whose a number is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(in crate::ledger) struct Whose {
    /// Empty for what belongs to no VM.
    pub(in crate::ledger) vm_id: String,
    /// Of a pool image or snapshot; a VM's own disks are told with the VM.
    pub(in crate::ledger) storage_id: String,
    /// Empty as long as nobody told one.
    pub(in crate::ledger) tenant: String,
}

/// Where the fold's numbers go.
pub(in crate::ledger) trait Sink {
    /// A part of a stretch, by the line that ended it (none for what is open at the end).
    fn add(&mut self, line: Option<&Line>, owner: u32, whose: &Whose, part: &Part, amounts: &Amounts);
    /// Nothing more of this owner, who is now known.
    fn close(&mut self, owner: u32, whose: Whose);
}

/// What a row is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum By {
    /// Each VM and each stored thing of each host.
    Vm,
    /// Each tenant, over all hosts.
    Tenant,
    /// Each host.
    Host,
    /// Everything together.
    All,
}

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// Comma-separated, with a head.
    Csv,
    /// One JSON array.
    Json,
    /// A JSON object a line.
    Jsonl,
    /// Parquet.
    #[cfg(feature = "parquet")]
    Parquet,
}

/// What to add up, and how.
#[derive(Debug, Clone, Copy)]
pub struct Order {
    /// The length of a bucket.
    pub period: Period,
    /// What a row is about.
    pub by: By,
    /// How rows are written.
    pub form: Form,
    /// Only buckets that begin at or after this, Unix nanoseconds.
    pub since: Option<u64>,
    /// Only buckets that begin before this, Unix nanoseconds.
    pub until: Option<u64>,
}

/// What keeps a roll-up from being made.
#[derive(Debug, thiserror::Error)]
pub enum RollupError {
    /// The ledgers cannot be read.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The rows cannot be written.
    #[error("the rows cannot be written")]
    Output(#[from] io::Error),
    /// A number is too large for Parquet's decimals of 38 digits.
    #[cfg(feature = "parquet")]
    #[error("{0} is larger than a Parquet decimal can be")]
    TooLarge(&'static str),
    /// Parquet's writer failed.
    #[cfg(feature = "parquet")]
    #[error("the Parquet file cannot be written")]
    Parquet(#[source] ::parquet::errors::ParquetError),
}

/// One way of writing rows.
trait Rows {
    fn row(&mut self, row: &Row<'_>) -> Result<(), RollupError>;
    fn finish(self: Box<Self>) -> Result<(), RollupError>;
}

/// Adds up the ledgers in these files; rows go to `out`, in order of host, VM, stored thing, tenant, time and class.
///
/// # Errors
/// [`RollupError`]; what is wrong with the lines themselves is in the notes.
pub fn rollup<'a>(files: Vec<PathBuf>, order: Order, out: impl Write + Send + 'a) -> Result<Notes, RollupError> {
    let mut rows: Box<dyn Rows + 'a> = match order.form {
        Form::Csv => Box::new(csv::Csv::new(out)?),
        Form::Json => Box::new(json::Json::array(out)),
        Form::Jsonl => Box::new(json::Json::lines(out)),
        #[cfg(feature = "parquet")]
        Form::Parquet => Box::new(parquet::Parquet::new(out)?),
    };
    let mut input = Input::open(files)?;
    let (mut table, mut fold) = (Table::new(order), Fold::new(order.period));
    input.read(true, |step, notes| match step {
        Step::Line { line, .. } => {
            fold.accept(line, &mut table, notes);
            Ok::<(), RollupError>(())
        }
        Step::HostDone { host } => {
            std::mem::replace(&mut fold, Fold::new(order.period)).finish(&mut table, notes);
            table.host_done(host);
            match order.by {
                By::Vm => table.write(rows.as_mut()),
                _ => Ok(()),
            }
        }
    })?;
    table.write(rows.as_mut())?;
    rows.finish()?;
    Ok(input.notes)
}
