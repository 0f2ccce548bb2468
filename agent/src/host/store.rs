//! Looks after files that are stored for VMs: pools' directories, and single files outside of them.
//!
//! One thread a place, because a file system that hangs must not stop anything else. A look compares what is there with
//! what was; events of inotify bring it forward, and losing one costs time only. What no event can make good is told by
//! the event alone: a watch on a file itself fires when the kernel lets the file go, its last name and its last
//! descriptor gone, and keeps neither the file's space nor its mount from being let go, as an open descriptor would.

mod absence;
mod header;
mod ident;
mod thread;
mod walk;
mod watch;

pub use ident::file_id;
pub use thread::{Looker, look_once};

#[cfg(test)]
mod tests;
