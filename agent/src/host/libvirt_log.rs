//! Why libvirt let a VM go, by the last line of its log of that VM (`/var/log/libvirt/qemu/NAME.log`), which it writes before
//! it ends the process: `2026-11-27 08:40:01.123+0000: shutting down, reason=saved`.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use crate::lifecycle::Shutoff;

/// How much of the end of a log is read.
const TAIL: u64 = 4_096;
const DIR: &str = "var/log/libvirt/qemu";

/// The reason in the log of the VM of this name, if it was written after `since_ns` (Unix nanoseconds): an earlier one is of
/// an earlier life.
#[must_use]
pub fn shutoff(root: &Path, name: &str, since_ns: u64) -> Option<Shutoff> {
    if name.is_empty() || name.contains(['/', '\0']) {
        return None;
    }
    let mut file = std::fs::File::open(root.join(DIR).join(format!("{name}.log"))).ok()?;
    let size = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(TAIL))).ok()?;
    let mut tail = Vec::new();
    file.take(TAIL).read_to_end(&mut tail).ok()?;
    parse(&tail, since_ns)
}

fn parse(tail: &[u8], since_ns: u64) -> Option<Shutoff> {
    let of = |line: &[u8]| {
        let line = std::str::from_utf8(line).ok()?;
        let (at, word) = line.split_once("+0000: shutting down, reason=")?;
        let at = humantime::parse_rfc3339_weak(at).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
        // The log has milliseconds.
        (at.as_millis() >= u128::from(since_ns / 1_000_000)).then_some(())?;
        Shutoff::of(word.trim_end())
    };
    tail.split(|b| *b == b'\n').rev().find_map(of)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 2026-11-27T08:40:01.123Z.
    const AT_NS: u64 = 1_795_768_801_123_000_000;

    fn line(word: &str) -> String {
        format!("char device redirected\n2026-11-27 08:40:01.123+0000: shutting down, reason={word}\n")
    }

    #[test]
    fn the_last_reason_counts_if_it_is_of_this_life() {
        let text = line("destroyed") + &line("saved");
        assert_eq!(parse(text.as_bytes(), AT_NS), Some(Shutoff::Saved));
        assert_eq!(parse(text.as_bytes(), AT_NS + 1_000_000), None);
        for (word, shutoff) in
            [("migrated", Some(Shutoff::Migrated)), ("shutdown", Some(Shutoff::Shutdown)), ("daemon", None)]
        {
            assert_eq!(parse(line(word).as_bytes(), 0), shutoff, "{word}");
        }
        assert_eq!(parse(b"shutting down, reason=saved\n", 0), None, "when is not said");
    }

    #[test]
    fn only_the_vms_own_log_is_read() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join(DIR);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("web.log"), "x\n".repeat(5_000) + &line("migrated")).unwrap();
        assert_eq!(shutoff(root.path(), "web", 0), Some(Shutoff::Migrated));
        for name in ["", "other", "../qemu/web", "a\0b"] {
            assert_eq!(shutoff(root.path(), name, 0), None, "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn any_log_is_read_without_harm(raw in proptest::collection::vec(any::<u8>(), 0..600), at in "\\PC{0,40}") {
            let _ = parse(&raw, 0);
            let _ = parse(format!("{at}+0000: shutting down, reason={at}").as_bytes(), 0);
        }
    }
}
