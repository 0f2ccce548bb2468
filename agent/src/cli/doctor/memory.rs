//! Which sources of VMs' memory work here.

use std::path::Path;

use crate::{
    config::Config,
    expose::status::Feature,
    host::{
        HostFacts, MemoryFiles, ProcFs,
        memory::{groups_counted_by, pss_readable},
    },
    units::Tgid,
};

/// Tries each source on this very process.
pub(super) fn feature(root: &Path, config: &Config, facts: &HostFacts) -> Feature {
    let resident = own(&ProcFs::new(root));
    let pss = match pss_readable(root) {
        _ if config.memory.pss_interval.is_zero() => "no proportional size (memory.pss_interval is 0s)".to_owned(),
        Err(error) => format!("no proportional size (smaps_rollup: {error})"),
        Ok(()) if !facts.sees_other_processes() => {
            "no proportional size of other users' processes (needs CAP_SYS_PTRACE)".to_owned()
        }
        Ok(()) => {
            format!("the proportional size every {}", humantime::format_duration(config.memory.pss_interval))
        }
    };
    let group = match groups_counted_by(root) {
        Some(version) => format!("what a control group of a VM's own is charged ({version})"),
        None => "nothing of control groups (no memory controller is mounted)".to_owned(),
    };
    Feature {
        name: "memory".to_owned(),
        available: resident.is_ok(),
        gives: format!("resident memory by type, hugetlb, swap, peak, faults from /proc; {pss}; {group}"),
        why: resident.err().unwrap_or_default(),
        advice: "use a kernel that shows RssAnon in /proc/PID/status (4.5), and let the agent read it".to_owned(),
    }
}

fn own(procfs: &ProcFs) -> Result<(), String> {
    let me = Tgid(std::process::id());
    let start = procfs.stat(me).map_err(|error| error.to_string())?.start_ticks;
    let mut files = MemoryFiles::open(procfs, me, start).map_err(|error| error.to_string())?;
    let reading = files.read(procfs).map_err(|error| error.to_string())?;
    let resident = reading.and_then(|reading| reading.resident);
    resident.map(drop).ok_or_else(|| "/proc/PID/status does not tell resident memory by type".to_owned())
}
