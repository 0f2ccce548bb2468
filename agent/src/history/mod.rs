//! The recent past of each VM: samples in compressed blocks, bounded in number and in memory, and questions to them.
//!
//! A sample is a rate between two readings (`rates`), packed as whole numbers (`column`): row by row (`open`) until
//! there are enough for a block (`block`), which is packed column by column (`part`). A line of blocks a vm_id
//! (`series`); `store` keeps all lines and the bound of all; `query` is pure and adds up buckets; `disk` has it outlive
//! the agent.

mod block;
mod column;
mod disk;
mod open;
mod part;
mod query;
mod rates;
mod series;
mod store;
mod varint;

pub use block::BLOCK;
pub use disk::{Bounds, Disk, Read, Saver};
pub use query::points;
pub use rates::{Rates, Reading, Sample};
pub use series::Row;
pub use store::{Limits, Line, Store};
