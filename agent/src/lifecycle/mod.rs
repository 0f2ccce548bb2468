//! Births and deaths of VMs: what they mean, and the ledger lines that tell them.

pub mod annotation;
pub mod draft;
pub mod reason;
pub mod start;

pub use reason::{Ending, Shutoff, Verdict, verdict};
pub use start::{Start, start};
