//! An interface's own two programs: copies of the templates with its constants in them, loaded.

use std::{
    fmt::Write as _,
    os::fd::{AsFd as _, OwnedFd},
};

use aya_obj::generated::bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS;
use sha2::{Digest as _, Sha256};

use kvmeter_common::network::{BLOCK_BYTES, carrier};

use super::{
    Error, NetworkPrograms, attachment::Pair, port::Port, syscall, table::Table, template::Constants, writer::Writer,
};
use crate::{account::class::ClassTable, bpf::object::OBJECT};

impl NetworkPrograms {
    /// Differs where programs made now would do another thing than those of another agent, constants of single
    /// interfaces aside.
    #[must_use]
    pub fn code(&self, table: Option<&ClassTable>) -> String {
        let mut hash = Sha256::new();
        hash.update(OBJECT);
        hash.update(format!(
            "{:?} {:?} {} {} {}\n",
            self.writer,
            self.carrier,
            self.lanes,
            self.tasks.is_empty(),
            self.quick
        ));
        hash.update(table.map_or_else(Vec::new, ClassTable::bytes));
        hash.finalize().iter().take(8).fold(String::new(), |mut text, byte| {
            // Writing into a text cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// An interface's two programs.
    pub(super) fn pair(&self, port: &Port, table: Option<&Table>) -> Result<Pair, Error> {
        let (names, codes) = self.names(port, table.is_some());
        let mut constants = self.constants(port, table, !self.tasks.is_empty());
        if codes[0] == names[0] {
            // Nobody reads them.
            constants.notes = None;
        }
        let program = |at: usize| self.program_of(names[at], codes[at], &constants);
        Ok(Pair { programs: [program(0)?, program(1)?], names })
    }

    /// What its programs are called in the kernel, and among the templates.
    pub(super) fn names(&self, port: &Port, has_table: bool) -> ([&'static str; 2], [&'static str; 2]) {
        if port.reversed {
            let names = ["macvtap_receive", "macvtap_transmit"];
            return (names, names);
        }
        let names = ["tap_transmit", "tap_receive"];
        let constants = self.constants(port, None, !self.tasks.is_empty());
        let quick = self.quick && !has_table && port.lanes.is_power_of_two();
        let writes = quick && constants.notes.is_some() && port.split && self.writer != Writer::Untold;
        let receives = quick && constants.carrier.way == carrier::LOADED;
        let codes = [
            if writes { "tap_transmit_quick" } else { names[0] },
            if receives { "tap_receive_quick" } else { names[1] },
        ];
        (names, codes)
    }

    /// What programs of an interface are made with.
    pub(super) fn constants<'a>(&'a self, port: &'a Port, table: Option<&'a Table>, direct: bool) -> Constants<'a> {
        Constants {
            port: port.map(),
            claims: self.claims.as_fd(),
            lanes: port.lanes,
            split: port.split,
            writer: self.writer,
            table: table.map(|table| (table.fd.as_fd(), table.mask)),
            carrier: if port.follows.is_some() { self.carrier } else { self.carrier.unread() },
            direct,
            openers: self.watches.openers(),
            notes: port.notes.filter(|_| direct && self.carrier.direct.running.switches != 0).map(|block| {
                // The page has them, so this is far below the limit.
                block as usize * BLOCK_BYTES
            }),
            // A page of an earlier agent may have been made for fewer CPUs.
            others: self.last_cpu.is_none_or(|last| last >= port.lanes),
        }
    }

    pub(super) fn program(&self, name: &'static str, constants: &Constants<'_>) -> Result<OwnedFd, Error> {
        self.program_of(name, name, constants)
    }

    /// `code`: what it is called among the templates.
    fn program_of(&self, name: &'static str, code: &str, constants: &Constants<'_>) -> Result<OwnedFd, Error> {
        let code = self.templates.instance(code, constants)?;
        syscall::load(BPF_PROG_TYPE_SCHED_CLS, name, &code, None).map_err(|source| {
            let mut log = vec![0; 256 * 1024];
            let _again = syscall::load(BPF_PROG_TYPE_SCHED_CLS, name, &code, Some(&mut log));
            // Behind the first 0 are words that the verifier took back.
            let text = String::from_utf8_lossy(log.split(|byte| *byte == 0).next().unwrap_or_default());
            let lines: Vec<_> = text.lines().collect();
            let log = lines[lines.len().saturating_sub(4)..].join(" | ");
            Error::Program { name, log, source }
        })
    }
}
