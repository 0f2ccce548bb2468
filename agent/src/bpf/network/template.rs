//! The programs as they stand in the object, and making instances of them: a copy whose constants are an interface's own.

use std::{
    collections::HashSet,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use aya_obj::{Object, generated::bpf_insn};
use kvmeter_common::network::constant;

use super::{Error, writer::Writer};

/// `BPF_LD | BPF_DW | BPF_IMM`: a 64-bit constant, in two instructions.
const LOAD_64: u8 = 0x18;
/// The constant is a map (`BPF_PSEUDO_MAP_FD`).
const MAP: u8 = 1;
/// The constant is the address of a map's value (`BPF_PSEUDO_MAP_VALUE`).
const MAP_VALUE: u8 = 2;

/// What an instance is made with.
#[derive(Clone, Copy)]
pub(super) struct Constants<'a> {
    /// The interface's counters.
    pub port: BorrowedFd<'a>,
    /// The map of claims.
    pub claims: BorrowedFd<'a>,
    /// CPUs that count by themselves.
    pub lanes: u32,
    /// Whether writers are told apart.
    pub split: bool,
    /// How the process that writes is learnt.
    pub writer: Writer,
    /// The classes' table, and the mask that keeps an offset inside.
    pub table: Option<(BorrowedFd<'a>, u32)>,
}

/// Code of the four programs.
pub(super) struct Templates {
    object: Object,
}

impl Templates {
    /// Reads the object.
    pub(super) fn parse(object: &[u8]) -> Result<Self, Error> {
        let mut object = Object::parse(object).map_err(|source| Error::Object(source.to_string()))?;
        // What is out of line is put behind each program that calls it.
        let sections: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
        object.relocate_calls(&sections).map_err(|source| Error::Object(source.to_string()))?;
        object.programs.retain(|_, program| matches!(program.section, aya_obj::ProgramSection::SchedClassifier));
        let keep: Vec<_> = object.programs.values().map(aya_obj::Program::function_key).collect();
        object.functions.retain(|key, _| keep.contains(key));
        (object.btf, object.btf_ext) = (None, None);
        object.maps.clear();
        Ok(Self { object })
    }

    /// An instance of a program, ready to load.
    pub(super) fn instance(&self, name: &str, constants: &Constants<'_>) -> Result<Vec<bpf_insn>, Error> {
        let found = self.object.programs.get(name).and_then(|p| self.object.functions.get(&p.function_key()));
        let template = found.ok_or_else(|| Error::Object(format!("it has no program {name}")))?;
        let mut code = template.instructions.clone();
        fill(&mut code, constants);
        Ok(code)
    }
}

fn fill(code: &mut [bpf_insn], constants: &Constants<'_>) {
    let mut at = 0;
    while let Some([first, second]) = code.get_mut(at..at + 2).and_then(|pair| <&mut [_; 2]>::try_from(pair).ok()) {
        at += 1;
        if first.code != LOAD_64 {
            continue;
        }
        at += 1;
        let value = u64::from(first.imm.cast_unsigned()) | u64::from(second.imm.cast_unsigned()) << 32;
        let (kind, low) = match value {
            constant::PORT => (MAP_VALUE, constants.port.as_raw_fd()),
            constant::CLAIMS => (MAP, constants.claims.as_raw_fd()),
            constant::SPLIT => (0, i32::from(constants.split && constants.writer != Writer::Untold)),
            constant::LANES => (0, constants.lanes.cast_signed()),
            constant::TASK_TGID => (0, constants.writer.place().cast_signed()),
            constant::TABLE => match constants.table {
                Some((table, _)) => (MAP_VALUE, table.as_raw_fd()),
                None => (0, 0),
            },
            constant::TABLE_MASK => (0, constants.table.map_or(0, |(_, mask)| mask.cast_signed())),
            _other => continue,
        };
        first.set_src_reg(kind);
        (first.imm, second.imm) = (low, 0);
    }
}
