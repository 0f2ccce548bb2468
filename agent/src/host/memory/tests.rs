use super::*;
use crate::host::GroupSearch;
use proptest::prelude::*;

const STATUS: &str = "Name:\tqemu\nUmask:\t0022\nVmPeak:\t  999 kB\nVmHWM:\t    2048 kB\nVmRSS:\t 1536 kB\n\
    RssAnon:\t    1024 kB\nRssFile:\t     256 kB\nRssShmem:\t     128 kB\nVmSwap:\t       4 kB\nHugetlbPages:\t    4096 kB\n";

#[test]
fn a_status_gives_every_type_in_bytes() {
    let reading = parse::status(STATUS.as_bytes()).unwrap();
    let resident = Resident { anon_bytes: 1 << 20, file_bytes: 256 << 10, shmem_bytes: 128 << 10 };
    assert_eq!(reading.resident, Some(resident));
    assert_eq!((reading.swap_bytes, reading.peak_bytes), (Some(4096), Some(2 << 20)));
    assert_eq!((reading.hugetlb_bytes, reading.faults), (Some(4 << 20), None));
}

#[test]
fn what_a_status_does_not_say_is_absent_and_never_zero() {
    let zombie = b"Name:\tqemu\nState:\tZ (zombie)\nThreads:\t1\n";
    assert_eq!(parse::status(zombie), None);
    let old = STATUS.replace("RssShmem", "Other").replace("HugetlbPages", "Else");
    let reading = parse::status(old.as_bytes()).unwrap();
    assert_eq!((reading.resident, reading.hugetlb_bytes), (None, None));
    assert_eq!(parse::status(b"RssAnon:\t 12"), None, "a cut number is no number");
    for bad in ["RssAnon:\t-1 kB\n", "RssAnon:\t1 MB\n", "RssAnon:\t99999999999999999999 kB\n", "RssAnon:\n"] {
        assert_eq!(parse::status(bad.as_bytes()), None, "{bad}");
    }
}

#[test]
fn a_name_cannot_pass_for_a_field() {
    let stat = b"7 (a) 1 2 3 (b) S 1 1 1 0 -1 4194560 11 22 33 44 1 2 3 4 20 0 2 0 555 6 7\n";
    assert_eq!(parse::faults(stat), Some(Faults { minor: 11, major: 33 }));
    assert_eq!(parse::start_ticks(stat), Some(555));
    assert_eq!(parse::faults(b"7 (a) S 1 1 1 0 -1 4194560 11 22 33"), None, "a cut line");
}

#[test]
fn the_proportional_size_is_the_line_of_that_name() {
    let text = b"00400000-7ffe rw-p 00000000 00:00 0    [rollup]\nRss:   9 kB\nPss:     7 kB\nPss_Dirty:  5 kB\n";
    assert_eq!(parse::pss(text), Some(7 << 10));
    assert_eq!(parse::pss(b"Pss_Dirty: 5 kB\n"), None);
}

#[test]
fn our_own_memory_is_read_and_grows_with_use() {
    let procfs = ProcFs::new(Path::new("/"));
    let me = Tgid(std::process::id());
    let start = procfs.stat(me).unwrap().start_ticks;
    let mut files = MemoryFiles::open(&procfs, me, start).unwrap();
    let before = files.read(&procfs).unwrap().unwrap();
    let held = vec![1u8; 64 << 20];
    let after = files.read(&procfs).unwrap().unwrap();
    let grown = after.resident.unwrap().anon_bytes - before.resident.unwrap().anon_bytes;
    // Up to 6.15 the kernel shows a counter that lags by some pages a CPU.
    assert!(grown > 60 << 20, "{grown}");
    assert!(after.faults.unwrap().minor > before.faults.unwrap().minor || held.is_empty());
    assert!(files.pss_file().unwrap().is_some());
    assert!(MemoryFiles::open(&procfs, me, start + 1).unwrap_err().is_gone(), "another process under this id");
}

#[test]
fn a_process_that_ended_has_no_memory_and_is_no_error() {
    let procfs = ProcFs::new(Path::new("/"));
    let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let tgid = Tgid(child.id());
    let start = procfs.stat(tgid).unwrap().start_ticks;
    let mut files = MemoryFiles::open(&procfs, tgid, start).unwrap();
    assert!(files.read(&procfs).unwrap().is_some());
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(files.read(&procfs).unwrap(), None);
    assert!(!matches!(files.pss_file(), Ok(Some(_))));
}

#[test]
fn pss_is_read_beside_the_caller() {
    let procfs = ProcFs::new(Path::new("/"));
    let me = Tgid(std::process::id());
    let mut files = MemoryFiles::open(&procfs, me, procfs.stat(me).unwrap().start_ticks).unwrap();
    let reader = PssReader::start().unwrap();
    assert!(reader.ask((1, 2), files.pss_file().unwrap().unwrap()));
    let answer = std::iter::repeat_with(|| {
        std::thread::sleep(std::time::Duration::from_millis(1));
        reader.answer()
    });
    let answer = answer.take(60_000).flatten().next().unwrap();
    assert_eq!(answer.vm, (1, 2));
    assert!(answer.bytes.unwrap().unwrap() > 0);
}

/// A process 7 alone in a group of version 2, or with a stranger.
fn grouped(members: &str) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("proc/7/task/7/cgroup", "0::/a.slice/vm.scope\n");
    write("sys/fs/cgroup/cgroup.controllers", "cpu memory\n");
    write("sys/fs/cgroup/a.slice/vm.scope/cgroup.procs", members);
    write("sys/fs/cgroup/a.slice/vm.scope/memory.current", "4096\n");
    root
}

#[test]
fn a_group_is_told_only_where_it_is_the_vms_own() {
    let find = |root: &tempfile::TempDir| MemoryGroup::find(&GroupSearch::new(root.path()), Tgid(7));
    let own = grouped("7\n");
    assert_eq!(find(&own).unwrap().read().unwrap(), Some(4096));
    assert_eq!(groups_counted_by(own.path()), Some("version 2"));
    assert!(find(&grouped("7\n8\n")).unwrap_err().to_string().contains("also holds process 8"));
    std::fs::remove_file(own.path().join("sys/fs/cgroup/a.slice/vm.scope/memory.current")).unwrap();
    assert!(find(&own).is_err());
    assert_eq!(groups_counted_by(tempfile::tempdir().unwrap().path()), None);
}

proptest! {
    #[test]
    fn no_text_panics(text in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = (parse::status(&text), parse::faults(&text), parse::start_ticks(&text), parse::pss(&text));
        let _ = group::parse(&text);
    }

    #[test]
    fn no_hostile_status_panics(
        lines in prop::collection::vec(("(RssAnon|RssFile|VmSwap|Pss|)", "[:\t ]{0,3}", "[0-9a-z -]{0,24}", "[\n]?"), 0..12),
    ) {
        let text: String = lines.into_iter().map(|(a, b, c, d)| [a, b, c, d].concat()).collect();
        let _ = (parse::status(text.as_bytes()), parse::pss(text.as_bytes()), parse::faults(text.as_bytes()));
    }
}
