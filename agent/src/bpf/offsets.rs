//! The kernel fields our programs read, by name, and their places in the running kernel.
//!
//! One row a global of `agent-ebpf/src/offsets.rs`. A row may name several spellings, newest first, for a field that
//! was renamed; each is a name the kernel itself confirms, never a version check.

use std::collections::BTreeMap;

use kvmeter_common::offset;

use super::btf::{Btf, BtfError};

/// A global of the kernel programs, the struct it points into, and the field's names.
pub struct Field {
    /// The global's name.
    pub global: &'static str,
    /// The kernel struct.
    pub owner: &'static str,
    /// Its field, in each spelling known, with its size in bytes.
    pub paths: &'static [(&'static str, u32)],
}

const fn field(global: &'static str, owner: &'static str, paths: &'static [(&'static str, u32)]) -> Field {
    Field { global, owner, paths }
}

/// Every field any program reads.
pub const FIELDS: &[Field] = &[
    field("TASK_PID", "task_struct", &[("pid", 4)]),
    field("TASK_TGID", "task_struct", &[("tgid", 4)]),
    field("TASK_RUNTIME", "task_struct", &[("se.sum_exec_runtime", 8)]),
    field("TASK_RUN_DELAY", "task_struct", &[("sched_info.run_delay", 8)]),
    // Renamed in 5.14 (commit 2f064a59a11f).
    field("TASK_STATE", "task_struct", &[("__state", 4), ("state", 8)]),
    // An int to 6.12, one byte in 7.2; the program reads one byte, which is the low one of either.
    field("TASK_ON_CPU", "task_struct", &[("on_cpu", 4), ("on_cpu", 1)]),
    field("TASK_SIGNAL", "task_struct", &[("signal", 8)]),
    field("TASK_LEADER", "task_struct", &[("group_leader", 8)]),
    // Renamed in 5.5 (commit cf25e24db61c).
    field("TASK_START", "task_struct", &[("start_boottime", 8), ("real_start_time", 8)]),
    field("TASK_MM", "task_struct", &[("mm", 8)]),
    field("TASK_COMM", "task_struct", &[("comm", 16)]),
    field("TASK_FLAGS", "task_struct", &[("flags", 4)]),
    field("TASK_EXIT_CODE", "task_struct", &[("exit_code", 4)]),
    field("TASK_GUEST_TIME", "task_struct", &[("gtime", 8)]),
    field("TASK_THREAD_NODE", "task_struct", &[("thread_node", 16)]),
    field("SIGNAL_LIVE", "signal_struct", &[("live", 4)]),
    field("SIGNAL_FLAGS", "signal_struct", &[("flags", 4)]),
    field("SIGNAL_THREADS", "signal_struct", &[("thread_head", 16)]),
    field("SIGNAL_EXIT_CODE", "signal_struct", &[("group_exit_code", 4)]),
    field("SIGNAL_RUNTIME", "signal_struct", &[("sum_sched_runtime", 8)]),
    field("SIGNAL_SEQUENCE", "signal_struct", &[("stats_lock.seqcount.seqcount.sequence", 4)]),
    // These four only with CONFIG_TASK_IO_ACCOUNTING, as /proc/PID/io. No program needs them: without, I/O is not told.
    field("TASK_READ_BYTES", "task_struct", &[("ioac.read_bytes", 8)]),
    field("TASK_WRITE_BYTES", "task_struct", &[("ioac.write_bytes", 8)]),
    field("SIGNAL_READ_BYTES", "signal_struct", &[("ioac.read_bytes", 8)]),
    field("SIGNAL_WRITE_BYTES", "signal_struct", &[("ioac.write_bytes", 8)]),
    field("SIGINFO_CODE", "kernel_siginfo", &[("si_code", 4)]),
    field("MM_ARG_START", "mm_struct", &[("arg_start", 8)]),
    field("MM_ARG_END", "mm_struct", &[("arg_end", 8)]),
    // With CONFIG_MEMCG only.
    field("MM_OWNER", "mm_struct", &[("owner", 8)]),
];

/// Each field's place in bytes, or why it has none.
pub type Offsets = BTreeMap<&'static str, Result<u32, String>>;

/// Looks every field up.
#[must_use]
pub fn resolve(btf: &Btf<'_>) -> Offsets {
    FIELDS.iter().map(|field| (field.global, locate(btf, field).map_err(|error| error.to_string()))).collect()
}

/// The object with the places that stand in its code. One that is not known stays as it was: the programs that need it
/// are refused.
#[must_use]
pub fn put_in(object: &[u8], places: &Offsets) -> Vec<u8> {
    let mut code = object.to_vec();
    let known: BTreeMap<i32, u32> =
        offset::ALL.iter().filter_map(|(name, mark)| Some((*mark, *places.get(name)?.as_ref().ok()?))).collect();
    for instruction in code.as_chunks_mut::<8>().0 {
        // Operation, registers, a 16-bit offset, then what is added.
        let [offset::ADD, _, 0, 0, added @ ..] = instruction else { continue };
        if let Some(place) = known.get(&i32::from_le_bytes(*added)) {
            *added = place.to_le_bytes();
        }
    }
    code
}

fn locate(btf: &Btf<'_>, field: &Field) -> Result<u32, BtfError> {
    let mut first_error = None;
    for (path, size) in field.paths {
        match btf.offset_sized(field.owner, path, *size) {
            Ok(offset) => return Ok(offset),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    Err(first_error.unwrap_or(BtfError::NoStruct(field.owner.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_global_is_named_once() {
        let names: std::collections::BTreeSet<_> = FIELDS.iter().map(|f| f.global).collect();
        assert_eq!(names.len(), FIELDS.len());
    }

    #[test]
    fn places_stand_in_the_code_where_they_are_known_and_nothing_else_is_changed() {
        let object = crate::bpf::object::OBJECT;
        let marks = |code: &[u8]| -> Vec<i32> {
            let instructions = code.as_chunks::<8>().0.iter();
            let added = instructions.filter(|i| i[0] == offset::ADD && i[2..4] == [0, 0]);
            added.map(|i| i32::from_le_bytes([i[4], i[5], i[6], i[7]])).collect()
        };
        let known: Offsets = offset::ALL.iter().map(|(name, mark)| (*name, Ok(mark.cast_unsigned() & 0xff))).collect();
        let code = put_in(object, &known);
        let (before, after) = (marks(object), marks(&code));
        assert_eq!(before.len(), after.len());
        for (name, mark) in offset::ALL {
            assert!(FIELDS.iter().any(|field| field.global == *name), "{name} is a field");
            assert!(before.contains(mark) && !after.contains(mark), "{name} is used, and is replaced");
        }
        let changed = object.iter().zip(&code).filter(|(before, after)| before != after).count();
        let places = before.iter().filter(|added| offset::ALL.iter().any(|(_, mark)| mark == *added)).count();
        assert!(changed <= 4 * places, "{changed} bytes of {places} places");
        let unknown = offset::ALL.iter().map(|(name, _)| (*name, Err("not there".to_owned()))).collect();
        assert!(put_in(object, &unknown) == object, "a place that is not known is left as it was");
    }
}
