//! What a VM is: who it is, where its numbers come from, whether it lives. Owns no clock and no file.

pub mod disk;
pub mod exit_class;
pub mod exit_reason;
pub mod identity;
mod line;
pub mod memory;
pub mod owner;
pub mod record;
pub mod registry;
pub mod sockets;
pub mod source;
pub mod tally;
pub mod thread;

pub use line::Line;
pub use memory::Memory;
pub use owner::{Owner, Owners, Teller};
pub use record::{Origin, Vm};
pub use registry::Registry;
pub use tally::Tally;
