//! What processes that were reaped had read and written in all, as `sched_process_free` left it.

use aya::{
    Ebpf,
    maps::{HashMap as BpfHashMap, MapData},
};
use kvmeter_common::disk::WORDS;

use super::{kernel::typed, maps::MapError};

/// The numbers of processes that have passed their exit hook.
pub struct Finals(BpfHashMap<MapData, [u64; 2], [u64; WORDS]>);

/// Storage I/O of a process that is gone, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FinalIo {
    /// Fetched from storage.
    pub read_bytes: u64,
    /// Made to be written to storage.
    pub written_bytes: u64,
}

impl Finals {
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self, MapError> {
        typed(ebpf, "FINALS").map(Self)
    }

    /// The numbers of the process of this id that began at `start_ns`; `None` as long as the kernel has not let it go.
    #[must_use]
    pub fn get(&self, tgid: u32, start_ns: u64) -> Option<FinalIo> {
        let [_, read_bytes, written_bytes, _, done] = self.0.get(&key(tgid, start_ns), 0).ok()?;
        (done == 1).then_some(FinalIo { read_bytes, written_bytes })
    }

    /// Lets an entry go; one that is not there is as good.
    pub fn forget(&mut self, tgid: u32, start_ns: u64) {
        let _ = self.0.remove(&key(tgid, start_ns));
    }
}

fn key(tgid: u32, start_ns: u64) -> [u64; 2] {
    [start_ns, u64::from(tgid)]
}
