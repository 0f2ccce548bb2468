//! What is stored on this host for VMs, and when it began and ended: names in pools (`pattern`, `pool`), what a look at
//! files found (`look`), and the model that makes ledger lines of it (`model`).
//!
//! Pure: no file is opened and no clock is read here; `host::store` looks, the engine carries.

mod id;
pub mod look;
pub mod model;
pub mod pattern;
pub mod pool;
pub mod tally;

pub use id::{FileId, ParseFileIdError};
pub use look::{FileState, Found, Place, PlaceState, Report, Skipped};
pub use model::{Counts, Disk, Holder, Model, Wanted, names_whose};
pub use pattern::{Name, Pattern, PatternError, Use};
pub use pool::Pool;
