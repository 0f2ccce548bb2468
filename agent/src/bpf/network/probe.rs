//! What this kernel has and takes, found out by trying.

use std::path::Path;

use aya_obj::generated::bpf_attach_type;
use kvmeter_common::network::{self, carrier};

use super::{
    Error, Hook, NetworkPrograms, PortId, carrier::Carrier, port::Port, syscall, table::Table, writer::Writer,
};
use crate::host::realtime;

impl NetworkPrograms {
    /// Loads every program once, as for an interface that is not there, and lets go of them: the way in which carrier
    /// changes are read.
    pub(super) fn try_out(&mut self, ways: &[Carrier]) -> Result<Carrier, Error> {
        let mut refused = None;
        for way in ways {
            self.carrier = *way;
            self.tasks = self.find_tasks();
            self.quick = true;
            let mut tried = self.try_way();
            if let (Err(error), carrier::LOADED) = (&tried, way.way) {
                tracing::debug!(error = error as &dyn std::error::Error, "usual packets are counted as all others");
                self.quick = false;
                tried = self.try_way();
            }
            if let (Err(error), false) = (&tried, self.tasks.is_empty()) {
                let error = error as &dyn std::error::Error;
                tracing::debug!(error, "which task runs is asked for each packet: programs that read it are refused");
                self.tasks.clear();
                self.quick = true;
                tried = self.try_way();
            }
            match tried {
                Ok(()) => {
                    if !way.is_read() {
                        let error = refused.as_ref().map(|error| error as &dyn std::error::Error);
                        tracing::warn!(
                            error,
                            "who opens a tap cannot be followed here: what comes in at a handover is told by events"
                        );
                    }
                    return Ok(*way);
                }
                Err(error) if way.is_read() => {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        ?way,
                        "tap holders cannot be followed so"
                    );
                    refused = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        refused.map_or(Ok(Carrier::default()), Err)
    }

    fn try_way(&mut self) -> Result<(), Error> {
        if self.carrier.is_read() {
            if self.writer == Writer::Untold {
                return Err(Error::Refused(std::io::Error::other("no way to learn which task opens an interface")));
            }
            self.watches.load(&self.templates, self.writer).map_err(Error::Refused)?;
        }
        for reversed in [false, true] {
            let mut port = Port::new(PortId(0), self.lanes, reversed)?;
            port.follows = (self.carrier.is_read() && !reversed).then_some(0);
            // The verifier leaves out what a constant rules out: the short way without a table, looking into packets with one.
            self.pair(&port, None)?;
            self.pair(&port, Some(&Table::least()?))?;
        }
        Ok(())
    }
}

/// Looks at the loopback device, whose index is 1 everywhere: kernels without tcx do not know the question.
pub(super) fn hook() -> Result<Hook, Error> {
    match syscall::count_on(1, bpf_attach_type::BPF_TCX_INGRESS) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Err(Error::Refused(error)),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => Ok(Hook::Clsact),
        _answer => Ok(Hook::Tcx),
    }
}

/// CPUs that can count by themselves here, by their highest number; a power of two, which keeps a number in its bounds by its
/// bits, or 0.
pub(super) fn lanes() -> u32 {
    let most = u32::try_from(network::LANES).unwrap_or(u32::MAX);
    let online = aya::util::online_cpus().unwrap_or_default();
    // Where softirqs can be preempted, no CPU can.
    if realtime::is_realtime(Path::new("/")) {
        return 0;
    }
    online.into_iter().max().map_or(0, |cpu| cpu.saturating_add(1).min(most).next_power_of_two())
}
