//! One VM's memory: where it is read, when it was read last, what it adds up to. Decides whether a sample reads at all.
//!
//! Where the kernel programs tell which memory moved, a VM that stands still is not read: what was read last still
//! holds. It is read all the same at [`SLOW_NS`], because hugetlb passes no hook, faults can come without a change of
//! what is resident, and a program that the kernel skipped marks nothing.

use std::sync::Arc;

use crate::{
    account::{Integral, MemoryUsage},
    bpf::MemoryMarks,
    host::{MemoryFiles, MemoryGroup, ProcError, ProcFs, WhyNot, memory::PssFile},
};

/// Of how many proportional sizes that are due one is read where the VM's memory stands still: only what others map of the
/// same pages changes it then, and reading it costs more than all else of an idle VM.
const PSS_IDLE: u64 = 10;

/// How long a VM whose memory stands still goes unread, nanoseconds.
pub const SLOW_NS: u64 = 60_000_000_000;

/// Its files in `/proc`.
#[derive(Debug, Default)]
enum Files {
    /// Nobody has tried yet, or it failed: then it is tried again at each reconcile.
    #[default]
    Closed,
    /// They are open.
    Open(MemoryFiles),
    /// The process has given its memory back.
    Ended,
}

/// A VM's memory.
#[derive(Debug, Default)]
pub struct Memory {
    files: Files,
    group: Option<MemoryGroup>,
    /// Whether anyone has looked for the group yet.
    looked: bool,
    /// What the kernel programs had counted just before the last reading.
    marks: Option<MemoryMarks>,
    read_ns: u64,
    /// The newest sample at which what was read last still held.
    held_ns: u64,
    /// When the proportional size was asked for last, CLOCK_BOOTTIME nanoseconds.
    pss_ns: Option<u64>,
    /// Its moves up to then.
    pss_moves: Option<u64>,
    usage: MemoryUsage,
}

/// What came of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampled {
    /// No file failed.
    pub done: bool,
    /// Something is to be told that was not before, or no longer.
    pub changed: bool,
}

impl Memory {
    /// What is known; `None` before anything is.
    #[must_use]
    pub fn view(&self) -> Option<Arc<MemoryUsage>> {
        (self.usage != MemoryUsage::default()).then(|| Arc::new(self.usage.clone()))
    }

    /// The same, without a copy.
    #[must_use]
    pub fn usage(&self) -> &MemoryUsage {
        &self.usage
    }

    /// Byte-nanoseconds up to the newest sample at which it was looked at.
    #[must_use]
    pub fn byte_ns(&self) -> Option<u128> {
        self.usage.byte_ns(self.held_ns)
    }

    /// Goes on from what an earlier agent told.
    pub fn resume(&mut self, byte_ns: Option<u128>, peak_bytes: Option<u64>) {
        (self.usage.integral, self.usage.peak_bytes) = (Integral::after(byte_ns), peak_bytes);
    }

    /// It no longer follows the samples: what held so far is written down. False if it did not follow them anyway.
    pub fn rest(&mut self) -> bool {
        if self.usage.stands {
            self.usage.integral.hold(self.held_ns);
        }
        std::mem::take(&mut self.usage.stands)
    }

    /// Whether its files still have to be opened.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self.files, Files::Closed)
    }

    /// Takes over its files, or why there are none.
    pub fn open(&mut self, files: Result<MemoryFiles, ProcError>) {
        (self.files, self.usage.why_not) = match files {
            Ok(files) => (Files::Open(files), None),
            Err(error) if error.is_gone() => (Files::Ended, None),
            Err(error) => (Files::Closed, Some(error.to_string().into())),
        };
    }

    /// Whether its control group was looked for.
    #[must_use]
    pub fn has_looked(&self) -> bool {
        self.looked
    }

    /// Takes over its control group, or why it has none of its own.
    pub fn follow(&mut self, group: Result<MemoryGroup, WhyNot>) {
        (self.group, self.usage.cgroup_why_not) = match group {
            Ok(group) => (Some(group), None),
            Err(why) => (None, Some(why.to_string().into())),
        };
        self.looked = true;
        self.read_group();
    }

    /// Once a sample, at `at_ns`: reads if something has moved since the last reading, if that was long ago, or if
    /// nobody tells (`marks`, taken just before, are `None`). `clock` is asked when a reading is taken.
    pub fn sample(
        &mut self,
        procfs: &ProcFs,
        at_ns: u64,
        marks: Option<MemoryMarks>,
        clock: impl FnOnce() -> u64,
    ) -> Sampled {
        if !matches!(self.files, Files::Open(_)) {
            return Sampled { done: true, changed: self.rest() };
        }
        if marks.is_some() && marks == self.marks && at_ns.saturating_sub(self.read_ns) < SLOW_NS {
            self.held_ns = self.held_ns.max(at_ns);
            return Sampled { done: true, changed: !std::mem::replace(&mut self.usage.stands, true) };
        }
        self.rest();
        self.usage.on_change = marks.is_some();
        Sampled { done: self.read(procfs, at_ns, marks, clock), changed: true }
    }

    /// Reads its files; false when one could not be read.
    fn read(&mut self, procfs: &ProcFs, at_ns: u64, marks: Option<MemoryMarks>, clock: impl FnOnce() -> u64) -> bool {
        let Files::Open(files) = &mut self.files else { return true };
        let now_ns = clock().max(at_ns);
        let read = files.read(procfs);
        let done = read.is_ok();
        match read {
            Ok(Some(reading)) => {
                self.usage.take(&reading);
                match self.usage.used_bytes() {
                    Some(bytes) => self.usage.integral.read(now_ns, bytes),
                    None => self.usage.integral.gap(),
                }
                (self.marks, self.read_ns, self.held_ns) = (marks, now_ns, at_ns);
                self.usage.stands = marks.is_some();
            }
            // What was read last stands, up to the end if nothing moved until then.
            Ok(None) => self.files = Files::Ended,
            Err(_) => {
                self.usage.integral.gap();
                self.marks = None;
            }
        }
        self.read_group();
        done
    }

    fn read_group(&mut self) {
        // A group that is gone is looked for again at the next reconcile.
        self.usage.cgroup_bytes = self.group.as_ref().and_then(|group| group.read().ok().flatten());
    }

    /// What its guest's faults are now; `None` where they are not told. True if that is news.
    pub fn take_guest_faults(&mut self, faults: Option<u64>) -> bool {
        std::mem::replace(&mut self.usage.guest_faults, faults) != faults
    }

    /// Whether its memory has moved since its proportional size was asked for. False before it ever was.
    #[must_use]
    pub fn pss_moved(&self) -> bool {
        let moves = self.marks.map(|marks| marks.moves);
        self.pss_ns.is_some() && (moves.is_none() || moves != self.pss_moves)
    }

    /// The file to read its proportional size from, if that is due.
    pub fn pss_due(&mut self, at_ns: u64, every_ns: u64) -> Option<PssFile> {
        let every_ns = if self.pss_moved() { every_ns } else { every_ns.saturating_mul(PSS_IDLE) };
        let due = self.pss_ns.is_none_or(|last| at_ns.saturating_sub(last) >= every_ns);
        let Files::Open(files) = &mut self.files else { return None };
        if !due {
            return None;
        }
        (self.pss_ns, self.pss_moves) = (Some(at_ns), self.marks.map(|marks| marks.moves));
        files.pss_file().ok().flatten()
    }

    /// Nobody could read it now: it is due again.
    pub fn pss_refused(&mut self) {
        self.pss_ns = None;
    }

    /// The proportional size, as it was read; `None` if it could not be, or is not wanted any more. True if that is news.
    pub fn take_pss(&mut self, bytes: Option<u64>) -> bool {
        std::mem::replace(&mut self.usage.pss_bytes, bytes) != bytes
    }

    /// Its process ended, with its memory there until `until_ns` for certain: what was read last held so long if nothing
    /// moved; else the time since the last reading stays out. What the kernel takes to free it is charged to nobody.
    pub fn end(&mut self, until_ns: u64, marks: Option<MemoryMarks>) {
        self.rest();
        let moves = |marks: Option<MemoryMarks>| marks.map(|marks| marks.moves);
        if moves(marks).is_some() && moves(marks) == moves(self.marks) {
            self.usage.integral.hold(until_ns);
        }
        self.usage.integral.gap();
        (self.files, self.group) = (Files::Ended, None);
    }
}
