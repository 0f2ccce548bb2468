//! Putting loaded programs on their hooks, and keeping them there: by a descriptor of ours, and by a pin where the
//! programs are to go on without us.

use aya::{
    Ebpf,
    programs::{Program as AyaProgram, links::FdLink},
};

use super::{
    object::chain,
    pin::Pins,
    plan::{State, Status},
    programs::{Hook, PROGRAMS, Program},
};

/// The links of this agent's programs. Dropping them takes off what is not pinned.
#[derive(Default)]
pub(super) struct Links {
    held: Vec<FdLink>,
    /// Programs that end with the agent though the others are pinned, with the reason.
    pub(super) unpinned: Vec<(&'static str, String)>,
}

/// How a program was put on its hook.
enum Put {
    /// A link holds it there.
    Link(FdLink),
    /// Something that cannot be pinned does, and aya has it: this kernel has no links for such hooks (before 5.15).
    Event,
    /// It runs on request, or is put on groups later.
    Nowhere,
}

const NO_LINK: &str = "this kernel has no links for a tracepoint's records, which came with Linux 5.15";

/// Attaches every loaded program, in the order of the table.
pub(super) fn attach(ebpf: &mut Ebpf, statuses: &mut [Status], pins: Option<&Pins>) -> Links {
    let mut links = Links::default();
    for (program, status) in PROGRAMS.iter().zip(statuses.iter_mut()) {
        if status.state != State::Attached {
            continue;
        }
        if let Err(reason) = links.attach(ebpf, program, pins) {
            status.state = State::Failed(reason);
        }
    }
    links
}

impl Links {
    /// Attaches what failed before, where it can be now; what fails again keeps its first reason.
    pub(super) fn attach_again(&mut self, ebpf: &mut Ebpf, statuses: &mut [Status], pins: Option<&Pins>) {
        for (program, status) in PROGRAMS.iter().zip(statuses.iter_mut()) {
            if matches!(status.state, State::Failed(_)) && self.attach(ebpf, program, pins).is_ok() {
                status.state = State::Attached;
            }
        }
    }

    fn attach(&mut self, ebpf: &mut Ebpf, program: &Program, pins: Option<&Pins>) -> Result<(), String> {
        let why = match (put(ebpf, program)?, pins) {
            (Put::Nowhere, _) | (Put::Event, None) => return Ok(()),
            (Put::Event, Some(_)) => NO_LINK.to_owned(),
            (Put::Link(link), None) => {
                self.held.push(link);
                return Ok(());
            }
            (Put::Link(link), Some(pins)) => match pins.pin_link(program.name, link) {
                Ok(link) => {
                    self.held.push(link);
                    return Ok(());
                }
                // The link is gone with the attempt.
                Err(error) => {
                    if let Put::Link(link) = put(ebpf, program)? {
                        self.held.push(link);
                    }
                    crate::cause::chain(&error)
                }
            },
        };
        self.unpinned.push((program.name, why));
        Ok(())
    }
}

fn put(ebpf: &mut Ebpf, program: &Program) -> Result<Put, String> {
    let found = ebpf.program_mut(program.name).ok_or_else(|| "it is not in the object".to_owned())?;
    let put = match (program.hook, found) {
        (Hook::BtfTracepoint(_), AyaProgram::BtfTracePoint(p)) => {
            p.attach().and_then(|id| p.take_link(id)).map(|link| Put::Link(link.into()))
        }
        (Hook::RawTracepoint(hook), AyaProgram::RawTracePoint(p)) => {
            p.attach(hook).and_then(|id| p.take_link(id)).map(|link| Put::Link(link.into()))
        }
        (Hook::Tracepoint(system, hook), AyaProgram::TracePoint(p)) => {
            match p.attach(system, hook).and_then(|id| p.take_link(id)).map(FdLink::try_from) {
                Ok(Ok(link)) => Ok(Put::Link(link)),
                // The event went with the attempt.
                Ok(Err(_)) => p.attach(system, hook).map(|_| Put::Event),
                Err(error) => Err(error),
            }
        }
        // Put on groups later; what was not loaded cannot be.
        (Hook::Cgroup(_), AyaProgram::CgroupSkb(p)) => p.fd().map(|_| Put::Nowhere),
        // These run on request only.
        _ => Ok(Put::Nowhere),
    };
    put.map_err(|error| chain(&error))
}
