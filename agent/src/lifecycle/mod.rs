//! Births and deaths of VMs: what they mean, the ledger lines that tell them, and the bus that carries durable ones on.

pub mod annotation;
pub mod bus;
pub mod draft;
pub mod event;
pub mod reason;
pub mod start;

pub use bus::{Bus, Interest, Subscription};
pub use event::{Event, Happening};
pub use reason::{Ending, Shutoff, Verdict, verdict};
pub use start::{Start, start};
