//! Whether the host is going down right now, by what its init leaves in files; nothing is asked of any daemon.
//!
//! systemd: its last stage has another name than `systemd`; before that, the notice that refuses logins, unless it only
//! announces a shutdown for later. SysV init: the run level in `utmp`, which systemd writes as well where it keeps one.
//! What is not seen here may be under way all the same: each of them comes some time after the first service is stopped.

use std::path::Path;

use super::file;

/// The name of `systemd-shutdown` (src/shutdown/shutdown.c), which replaces process 1, as the kernel cuts it.
const LAST_STAGE: &str = "systemd-shutdow";
/// How systemd's notice begins (src/user-sessions/user-sessions.c, src/login/logind-dbus.c). At boot it says another thing.
const NOTICE: &str = "System is going down. Unprivileged users are not permitted to log in anymore.";
/// The longest `utmp` that is read.
const MAX_UTMP: u64 = 256 * 1024;
/// `RUN_LVL` (utmp(5)).
const RUN_LEVEL: u16 = 1;

/// Whether a shutdown, reboot or halt is under way at `now_ns` (Unix nanoseconds), as the files below `root` tell.
#[must_use]
pub fn is_under_way(root: &Path, now_ns: u64) -> bool {
    let text = |path: &str| file::text(&root.join(path)).unwrap_or_default();
    if text("proc/1/comm") == LAST_STAGE {
        return true;
    }
    if text("run/nologin").starts_with(NOTICE) {
        return !is_for_later(&text("run/systemd/shutdown/scheduled"), now_ns);
    }
    file::bytes(&root.join("run/utmp"), MAX_UTMP).is_ok_and(|(raw, _)| ends(&raw, size_of::<libc::utmpx>()))
}

/// Whether logind's file (`USEC=` microseconds, `MODE=` …) names an instant that is still to come.
fn is_for_later(scheduled: &str, now_ns: u64) -> bool {
    let at = scheduled.lines().find_map(|line| line.strip_prefix("USEC=")).and_then(|us| us.trim().parse::<u64>().ok());
    at.is_some_and(|us| us > now_ns / 1_000)
}

/// Whether the newest run level in a `utmp` with records of this many bytes is 0 or 6, or systemd's `shutdown`. On every
/// 64-bit machine a record begins with type, process (whose low byte is the level), line, id and user.
fn ends(raw: &[u8], record: usize) -> bool {
    let level = |record: &[u8]| {
        let kind = u16::from_ne_bytes(record.get(..2)?.try_into().ok()?);
        let process = u32::from_ne_bytes(record.get(4..8)?.try_into().ok()?);
        let user = record.get(44..76)?.split(|b| *b == 0).next()?;
        (kind == RUN_LEVEL).then(|| user == b"shutdown" || matches!(process.to_le_bytes()[0], b'0' | b'6'))
    };
    raw.chunks_exact(record.max(1)).filter_map(level).next_back().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW_NS: u64 = 1_800_000_000_000_000_000;

    fn host(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        root
    }

    fn down(files: &[(&str, &[u8])]) -> bool {
        is_under_way(host(files).path(), NOW_NS)
    }

    fn record(kind: u16, process: u32, user: &[u8]) -> Vec<u8> {
        let mut raw = vec![0; size_of::<libc::utmpx>()];
        raw[..2].copy_from_slice(&kind.to_ne_bytes());
        raw[4..8].copy_from_slice(&process.to_ne_bytes());
        raw[44..44 + user.len()].copy_from_slice(user);
        raw
    }

    #[test]
    fn a_host_that_says_nothing_or_that_boots_is_not_going_down() {
        assert!(!down(&[]));
        assert!(!down(&[("proc/1/comm", b"systemd\n")]));
        let booting = b"\"System is booting up. Unprivileged users are not permitted to log in yet.\"";
        assert!(!down(&[("run/nologin", booting)]));
        assert!(!down(&[("run/nologin", b"maintenance\n")]), "not systemd's notice");
    }

    #[test]
    fn systemds_notice_counts_unless_it_is_for_later() {
        let notice = format!("{NOTICE} For technical details, see pam_nologin(8).\n");
        let notice = ("run/nologin", notice.as_bytes());
        assert!(down(&[notice]));
        let scheduled = |us: u64| format!("USEC={us}\nWARN_WALL=1\nMODE=poweroff\n");
        let path = "run/systemd/shutdown/scheduled";
        assert!(!down(&[notice, (path, scheduled(NOW_NS / 1_000 + 1).as_bytes())]));
        assert!(down(&[notice, (path, scheduled(NOW_NS / 1_000 - 1).as_bytes())]));
        assert!(down(&[("proc/1/comm", b"systemd-shutdow\n")]));
    }

    #[test]
    fn the_newest_run_level_counts() {
        let (multi_user, reboot) = (record(1, 'N'.into(), b"runlevel"), record(1, 0x3536, b"runlevel"));
        let by_systemd = record(1, 0, b"shutdown");
        let login = record(7, '6'.into(), b"root");
        let utmp = |records: &[&Vec<u8>]| {
            down(&[("run/utmp", &records.iter().copied().flatten().copied().collect::<Vec<_>>())])
        };
        assert!(!utmp(&[&multi_user, &login]));
        assert!(utmp(&[&multi_user, &reboot]) && utmp(&[&multi_user, &by_systemd, &login]));
        assert!(!utmp(&[&reboot, &multi_user]), "it came up again");
    }

    proptest! {
        #[test]
        fn any_file_is_read_without_harm(raw in proptest::collection::vec(any::<u8>(), 0..2000), record in 0usize..500, text in "\\PC{0,80}") {
            let _ = ends(&raw, record);
            prop_assert_eq!(ends(&raw[..raw.len().min(75)], record.max(76)), false);
            let _ = is_for_later(&format!("USEC={text}\n{text}"), NOW_NS);
        }
    }
}
