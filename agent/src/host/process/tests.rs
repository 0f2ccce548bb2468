//! Against a made-up `/proc` and against this very process.

use proptest::prelude::*;

use super::*;

/// A `/proc` with these files.
fn host(files: &[(&str, &[u8])]) -> (tempfile::TempDir, ProcFs) {
    let root = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = root.path().join("proc").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    let procfs = ProcFs::new(root.path());
    (root, procfs)
}

fn stat_line(comm: &[u8]) -> Vec<u8> {
    let mut line = b"42 (".to_vec();
    line.extend(comm);
    line.extend(b") S 7 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 3 0 123456 1 1 1");
    line.extend(b" 0".repeat(17));
    line.extend(b" 777 0 0 0 0 0 0 0 0 0\n");
    line
}

#[test]
fn a_comm_may_contain_anything() {
    for comm in [b"qemu".as_slice(), b") (", b"a) S 1 2", b"\xff\xfe)", b"", b"((("] {
        let (_root, procfs) = host(&[("42/stat", &stat_line(comm)), ("42/task/43/stat", &stat_line(comm))]);
        let stat = procfs.stat(Tgid(42)).unwrap();
        assert_eq!((stat.comm.as_slice(), stat.state, stat.ppid), (comm, 'S', Tgid(7)));
        assert_eq!((stat.threads, stat.start_ticks), (3, 123_456));
        assert_eq!(procfs.guest_ticks(Tgid(42), Tid(43)).unwrap(), 777);
    }
}

#[test]
fn a_vanished_process_is_gone_and_nothing_else() {
    let (_root, procfs) = host(&[("1/stat", b"")]);
    assert!(procfs.stat(Tgid(42)).unwrap_err().is_gone());
    assert!(procfs.thread_ids(Tgid(42)).unwrap_err().is_gone());
    assert!(procfs.cmdline(Tgid(42)).unwrap_err().is_gone());
    assert!(procfs.exe_name(Tgid(42)).unwrap_err().is_gone());
    assert!(procfs.tgid_of(Tid(42)).unwrap_err().is_gone());
    let gone = ProcError::of(io::Error::from_raw_os_error(libc::ESRCH), Path::new("x"));
    let denied = ProcError::of(io::Error::from_raw_os_error(libc::EACCES), Path::new("x"));
    assert!(gone.is_gone() && denied.is_denied() && !denied.is_gone());
}

#[test]
fn processes_are_the_numbers_in_proc() {
    let (_root, procfs) = host(&[("7/stat", b""), ("10/stat", b""), ("self/stat", b""), ("99999999999/x", b"")]);
    assert_eq!(procfs.tgids().unwrap(), [Tgid(7), Tgid(10)]);
}

#[test]
fn a_command_line_is_bounded_and_says_so() {
    let long = vec![b'x'; 70_000];
    let (_root, procfs) = host(&[("1/cmdline", b"kvm\0-m\0"), ("2/cmdline", &long)]);
    assert_eq!(procfs.cmdline(Tgid(1)).unwrap(), Cmdline { raw: b"kvm\0-m\0".to_vec(), truncated: false });
    let cut = procfs.cmdline(Tgid(2)).unwrap();
    assert_eq!((cut.raw.len(), cut.truncated), (65_536, true));
}

#[test]
fn an_executable_that_was_replaced_keeps_its_name() {
    let (root, procfs) = host(&[("1/comm", b"a\xffb\n")]);
    std::os::unix::fs::symlink("/usr/bin/qemu-kvm (deleted)", root.path().join("proc/1/exe")).unwrap();
    assert_eq!(procfs.exe_name(Tgid(1)).unwrap(), b"qemu-kvm");
    assert_eq!(procfs.comm(Tgid(1)).unwrap(), b"a\xffb");
}

#[test]
fn this_process_reads_itself() {
    let procfs = ProcFs::new(Path::new("/"));
    let me = Tgid(std::process::id());
    let stat = procfs.stat(me).unwrap();
    assert_eq!(stat.comm, procfs.comm(me).unwrap());
    assert!(stat.start_ticks > 0 && stat.threads >= 1);
    let threads = procfs.thread_ids(me).unwrap();
    assert!(threads.contains(&me.leader()));
    for tid in threads {
        match procfs.tgid_of(tid) {
            Ok(tgid) => assert_eq!(tgid, me),
            Err(error) => assert!(error.is_gone()),
        }
    }
    assert_eq!(procfs.guest_ticks(me, me.leader()).unwrap(), 0);
    assert!(procfs.tgids().unwrap().contains(&me));
    assert!(!procfs.exe_name(me).unwrap().is_empty());
}

proptest! {
    #[test]
    fn no_stat_line_panics(raw in prop::collection::vec(any::<u8>(), 0..400), cut in 0usize..200) {
        let _ = parse_stat(Tgid(1), &raw);
        let line = stat_line(&raw);
        let _ = parse_stat(Tgid(1), &line[..cut.min(line.len())]);
    }
}
