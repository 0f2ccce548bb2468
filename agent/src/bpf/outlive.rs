//! The running kernel side seen as something that outlives its agents: what was there before this one, what it leaves.

use std::path::PathBuf;

use kvmeter_common::{loss, vm::Kept};

use super::kernel::Kernel;

/// Whether programs and tables outlive the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pinning {
    /// The configuration does not want it, or there is no ledger to count for.
    Unwanted,
    /// It was wanted and cannot be: why.
    Refused(String),
    /// They do.
    Pinned {
        /// Where they are pinned.
        dir: PathBuf,
        /// Since when these tables are counted into, CLOCK_BOOTTIME nanoseconds.
        since_ns: u64,
        /// Programs that end with the agent all the same, each with the reason.
        without: Vec<(&'static str, String)>,
    },
}

/// What an agent finds that goes on with the tables of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Since when they are counted into, CLOCK_BOOTTIME nanoseconds.
    pub since_ns: u64,
    /// When they were read last, CLOCK_BOOTTIME nanoseconds.
    pub read_ns: u64,
    /// What could not be kept since then, by stage.
    pub lost: Vec<(&'static str, u64)>,
}

impl Kernel {
    /// Whether programs and tables outlive the agent.
    #[must_use]
    pub fn pinning(&self) -> Pinning {
        match (&self.pins, &self.unpinned) {
            (Some(pins), _) => Pinning::Pinned {
                dir: pins.dir().to_owned(),
                since_ns: pins.header().since_ns,
                without: self.links.unpinned.clone(),
            },
            (None, Some(why)) => Pinning::Refused(why.clone()),
            (None, None) => Pinning::Unwanted,
        }
    }

    /// What an earlier agent left; `None` where counting began with this one.
    #[must_use]
    pub fn found(&self) -> Option<Found> {
        let pins = self.pins.as_ref().filter(|pins| pins.found())?;
        let header = pins.header();
        let stages = loss::STAGES.iter().zip(0u32..).zip(header.losses);
        let lost = stages.filter_map(|((stage, index), seen)| {
            let more = self.losses.get(index)?.saturating_sub(seen);
            (more > 0).then_some((*stage, more))
        });
        Some(Found { since_ns: header.since_ns, read_ns: header.read_ns, lost: lost.collect() })
    }

    /// Whether an earlier agent left tables that this one could not go on with.
    #[must_use]
    pub fn closed_others(&self) -> bool {
        self.pins.as_ref().is_some_and(super::pin::Pins::closed)
    }

    /// Where what counts at interfaces is pinned, where it can be.
    #[must_use]
    pub fn network_pins(&self) -> Option<PathBuf> {
        self.pins.as_ref().map(super::pin::Pins::network_dir)
    }

    /// Whether what is in the slots outlives this agent.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        self.pins.is_some()
    }

    /// Leaves word that the tables were read at `now_ns` (CLOCK_BOOTTIME), and what was lost until then.
    pub fn note_read(&mut self, now_ns: u64) {
        if let Some(pins) = &mut self.pins {
            pins.note(now_ns, (0u32..).map_while(|index| self.losses.get(index)));
        }
    }

    /// What an earlier agent added to a slot's numbers; `None` where none has said so.
    #[must_use]
    pub fn kept(&self, slot: u32) -> Option<Kept> {
        self.slots.kept(slot).filter(|_| self.is_pinned())
    }

    /// Leaves for a later agent what this one adds to a slot's numbers.
    pub fn keep(&mut self, slot: u32, kept: Kept) {
        if self.is_pinned() {
            self.slots.keep(slot, kept);
        }
    }
}
