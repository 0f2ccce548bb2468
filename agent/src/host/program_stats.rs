//! What the kernel counts about a program it runs: text of a program descriptor's `fdinfo`.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
    path::Path,
};

use super::file;

/// Counters of one program since it was loaded; what the kernel does not tell is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgramStats {
    /// How often it ran. Absent unless `kernel.bpf_stats_enabled` was on (`bpf_prog_show_fdinfo`, kernel 5.1).
    pub runs: Option<u64>,
    /// Nanoseconds it ran, with `runs`.
    pub run_ns: Option<u64>,
    /// Runs the kernel skipped because the program was under way on that CPU already (kernel 5.12).
    pub misses: Option<u64>,
}

impl ProgramStats {
    /// Reads those of a program of this process.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn read(root: &Path, program: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(parse(&file::text(&root.join(format!("proc/self/fdinfo/{}", program.as_raw_fd())))?))
    }
}

fn parse(text: &str) -> ProgramStats {
    let field = |name: &str| {
        let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
        pairs.find(|(key, _)| *key == name).and_then(|(_, value)| value.trim().parse().ok())
    };
    // The kernel shows 0 while it does not count.
    let runs = field("run_cnt").filter(|runs| *runs > 0);
    ProgramStats { runs, run_ns: runs.and(field("run_time_ns")), misses: field("recursion_misses") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_does_not_count_runs_tells_none() {
        let text = "prog_type:\t26\nmemlock:\t4096\nrun_time_ns:\t0\nrun_cnt:\t0\nrecursion_misses:\t3\n";
        assert_eq!(parse(text), ProgramStats { misses: Some(3), ..ProgramStats::default() });
        let text = "run_time_ns:\t950\nrun_cnt:\t7\n";
        assert_eq!(parse(text), ProgramStats { runs: Some(7), run_ns: Some(950), misses: None });
        assert_eq!(parse("run_cnt: x\n:\n"), ProgramStats::default());
    }
}
