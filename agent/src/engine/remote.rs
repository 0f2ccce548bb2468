//! What others tell a running engine, and how: a channel, and a wake-up. It takes them up between two turns.

use std::{
    path::PathBuf,
    sync::{Arc, mpsc},
};

use nix::sys::eventfd::EventFd;

use super::Annotate;
use crate::account::{class::Classes, snapshot::Detail};

/// What can change while it runs; all lengths in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Between two samples.
    pub sample_ns: u64,
    /// Between two points of a VM's history.
    pub history_ns: u64,
    /// How long a stopped VM's samples are kept.
    pub keep_ns: u64,
    /// Between two heartbeats in the ledger.
    pub heartbeat_ns: u64,
    /// How long a stopped VM is shown.
    pub linger_ns: u64,
    /// Between two full scans of `/proc`.
    pub scan_ns: u64,
    /// Between two readings of a VM's proportional memory; 0 = none.
    pub pss_ns: u64,
    /// How much of each VM the metrics show.
    pub detail: Detail,
}

/// What the engine is told while it runs.
pub enum Control {
    /// New settings.
    Settings(Settings),
    /// Other classes of traffic.
    Classes(Classes),
    /// Somebody states something of a VM.
    Annotate(Box<Annotate>),
    /// One that was taken cannot be kept.
    Unkept(u64),
    /// Another inventory, or none.
    Inventory(Option<PathBuf>),
    /// End in order.
    Stop,
}

/// How others reach the engine.
#[derive(Clone)]
pub struct Remote {
    pub(super) sender: mpsc::Sender<Control>,
    pub(super) waker: Arc<EventFd>,
}

impl Remote {
    /// Tells the engine something; false when it has ended.
    #[must_use]
    pub fn tell(&self, control: Control) -> bool {
        let told = self.sender.send(control).is_ok();
        told && self.waker.write(1).is_ok()
    }
}
