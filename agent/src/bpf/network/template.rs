//! The programs as they stand in the object, and making instances of them: a copy whose constants are an interface's own.

use std::{
    collections::HashSet,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use aya_obj::{Object, generated::bpf_insn};
use kvmeter_common::network::{ACCOUNTS, BLOCK_BYTES, LANE_BYTES, RECEIVED, TRANSMITTED, constant, operand};

use super::{Error, carrier::Carrier, writer::Writer};

/// `BPF_LD | BPF_DW | BPF_IMM`: a 64-bit constant, in two instructions.
const LOAD_64: u8 = 0x18;
/// `BPF_JMP | BPF_CALL`
const CALL: u8 = 0x85;
/// The call is of a function of the kernel's own (`BPF_PSEUDO_KFUNC_CALL`).
const KERNEL_FUNCTION: u8 = 2;
/// `BPF_JMP | BPF_JA`: by 0, it does nothing.
const JUMP: u8 = 0x05;
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
    /// How carrier changes are read, if they are.
    pub carrier: Carrier,
    /// Whether which task runs is read directly.
    pub direct: bool,
    /// The map of openers.
    pub openers: BorrowedFd<'a>,
    /// Where the interface's notes begin, in bytes, if programs keep them.
    pub notes: Option<usize>,
    /// Whether there may be CPUs that do not count by themselves.
    pub others: bool,
}

/// Code of the programs.
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
        object.programs.retain(|_, program| {
            use aya_obj::ProgramSection::{SchedClassifier, SocketFilter};
            matches!(program.section, SchedClassifier | SocketFilter)
        });
        let keep: Vec<_> = object.programs.values().map(aya_obj::Program::function_key).collect();
        object.functions.retain(|key, _| keep.contains(key));
        (object.btf, object.btf_ext) = (None, None);
        object.maps.clear();
        Ok(Self { object })
    }

    /// An instance of a program, ready to load.
    pub(super) fn instance(&self, name: &str, constants: &Constants<'_>) -> Result<Vec<bpf_insn>, Error> {
        self.filled(name, |constant| value(constant, constants), |mark| operand(mark, constants))
    }

    /// The filter that notes who opens interfaces.
    pub(super) fn filter(
        &self,
        name: &str,
        listeners: BorrowedFd<'_>,
        openers: BorrowedFd<'_>,
        writer: Writer,
    ) -> Result<Vec<bpf_insn>, Error> {
        let value = |constant| match constant {
            constant::LISTENERS => Some((MAP, listeners.as_raw_fd(), 0)),
            constant::OPENERS => Some((MAP, openers.as_raw_fd(), 0)),
            constant::TASK_TGID => Some((0, writer.place().cast_signed(), 0)),
            _other => None,
        };
        self.filled(name, value, |_mark| None)
    }

    /// `value`: kind and both halves of what is put in place of a constant.
    fn filled(
        &self,
        name: &str,
        value: impl Fn(u64) -> Option<(u8, i32, i32)>,
        operand: impl Fn(i32) -> Option<Operand>,
    ) -> Result<Vec<bpf_insn>, Error> {
        let found = self.object.programs.get(name).and_then(|p| self.object.functions.get(&p.function_key()));
        let template = found.ok_or_else(|| Error::Object(format!("it has no program {name}")))?;
        let mut code = template.instructions.clone();
        put_operands(&mut code, operand);
        fill(&mut code, value);
        Ok(code)
    }
}

/// What is put in place of an operand's mark.
enum Operand {
    Number(u32),
    /// A function of the kernel's own.
    Call(u32),
    /// The instruction does nothing.
    Nothing,
}

fn operand(mark: i32, constants: &Constants<'_>) -> Option<Operand> {
    let (carrier, lanes) = (constants.carrier, constants.lanes as usize);
    let running = carrier.direct.running;
    let number = |value: usize| Operand::Number(u32::try_from(value).unwrap_or(0));
    match mark {
        operand::LIMIT if constants.others => Some(number(lanes)),
        operand::LIMIT => Some(Operand::Nothing),
        operand::PLACES => Some(number(lanes.saturating_sub(1) * LANE_BYTES + (ACCOUNTS - 1) * BLOCK_BYTES)),
        operand::CARRIER_UPS => Some(Operand::Number(carrier.ups)),
        operand::CURRENT => Some(Operand::Number(running.current.wrapping_sub(running.switches))),
        operand::CAST => Some(Operand::Call(carrier.direct.cast)),
        operand::CONTEXT => Some(Operand::Call(carrier.direct.context)),
        _other => None,
    }
}

fn put_operands(code: &mut [bpf_insn], put: impl Fn(i32) -> Option<Operand>) {
    let mut wide = false;
    for one in code {
        // The second half of a wide constant is no instruction.
        let skip = std::mem::replace(&mut wide, one.code == LOAD_64);
        if skip || wide {
            continue;
        }
        match put(one.imm) {
            None => {}
            Some(Operand::Number(number)) => one.imm = number.cast_signed(),
            Some(Operand::Call(function)) => {
                one.imm = function.cast_signed();
                one.set_src_reg(KERNEL_FUNCTION);
            }
            Some(Operand::Nothing) => {
                (one.code, one.off, one.imm) = (JUMP, 0, 0);
                one.set_dst_reg(0);
                one.set_src_reg(0);
            }
        }
    }
}

fn value(constant: u64, constants: &Constants<'_>) -> Option<(u8, i32, i32)> {
    let number = |value: u32| Some((0, value.cast_signed(), 0));
    let port = |place: usize| Some((MAP_VALUE, constants.port.as_raw_fd(), i32::try_from(place).unwrap_or(i32::MAX)));
    let direct = constants.carrier.direct;
    match constant {
        constant::PORT => port(0),
        constant::TRANSMITTED => port(TRANSMITTED),
        constant::RECEIVED => port(RECEIVED),
        constant::NOTES => constants.notes.map_or_else(|| number(0), port),
        constant::CLAIMS => Some((MAP, constants.claims.as_raw_fd(), 0)),
        constant::SPLIT => number(u32::from(constants.split && constants.writer != Writer::Untold)),
        constant::LANES => number(constants.lanes),
        constant::QUICK => number(if constants.table.is_none() { constants.lanes } else { 0 }),
        constant::TASK_TGID => number(constants.writer.place()),
        constant::TABLE => match constants.table {
            Some((table, _)) => Some((MAP_VALUE, table.as_raw_fd(), 0)),
            None => number(0),
        },
        constant::TABLE_MASK => number(constants.table.map_or(0, |(_, mask)| mask)),
        constant::CARRIER => number(constants.carrier.way),
        constant::DEVICE | constant::AT_DEVICE => number(constants.carrier.device),
        constant::CARRIER_UPS => number(constants.carrier.ups),
        constant::WORD => number(direct.word),
        constant::CAST => Some((KERNEL_FUNCTION, direct.cast.cast_signed(), 0)),
        constant::CONTEXT => Some((KERNEL_FUNCTION, direct.context.cast_signed(), 0)),
        constant::DIRECT => number(u32::from(constants.direct)),
        constant::TASK => number(direct.running.task),
        constant::AT_TGID => number(direct.running.tgid),
        constant::FAIR => number(direct.running.fair),
        constant::RUNQUEUE => number(direct.running.runqueue),
        constant::CURRENT => number(direct.running.current),
        constant::OPENERS => Some((MAP, constants.openers.as_raw_fd(), 0)),
        _other => None,
    }
}

fn fill(code: &mut [bpf_insn], put: impl Fn(u64) -> Option<(u8, i32, i32)>) {
    let mut at = 0;
    while let Some([first, second, rest @ ..]) = code.get_mut(at..) {
        at += 1;
        if first.code != LOAD_64 {
            continue;
        }
        at += 1;
        let value = u64::from(first.imm.cast_unsigned()) | u64::from(second.imm.cast_unsigned()) << 32;
        let Some((kind, low, high)) = put(value) else { continue };
        match value {
            // Not loaded where it is not called, so whatever stands there is taken.
            constant::CAST | constant::CONTEXT if low == 0 => {}
            constant::CAST | constant::CONTEXT => {
                (first.code, first.imm) = (CALL, low);
                first.set_dst_reg(0);
                first.set_src_reg(kind);
                (second.code, second.imm) = (JUMP, 0);
            }
            constant::AT_DEVICE | constant::AT_TGID => {
                if let [load, ..] = rest {
                    // Before a structure there is nothing that the verifier lets be loaded.
                    load.off = i16::try_from(low).unwrap_or(i16::MIN);
                }
                for one in [first, second] {
                    (one.code, one.imm) = (JUMP, 0);
                    one.set_dst_reg(0);
                }
            }
            _other => {
                first.set_src_reg(kind);
                (first.imm, second.imm) = (low, high);
            }
        }
    }
}
