//! What a VM is: who it is, where its numbers come from, whether it lives. Owns no clock and no file.

mod arrival;
pub mod disk;
pub mod exit_class;
pub mod exit_reason;
mod group_io;
pub mod identity;
mod line;
pub mod memory;
mod origin;
pub mod owner;
mod pause;
pub mod record;
pub mod registry;
pub mod sockets;
pub mod source;
pub mod tally;
pub mod thread;

pub use arrival::Arrival;
pub use line::Line;
pub use memory::Memory;
pub use origin::Origin;
pub use owner::{Owner, Owners, Teller};
pub use pause::Pause;
pub use record::Vm;
pub use registry::Registry;
pub use tally::Tally;
