//! Laws of looking after files, on real ones: what the kernel says of a file's end, and what a look makes of absence.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::*;
use crate::clock;
use crate::storage::{FileId, FileState, Found, Pattern, Place, Pool, Report, Use, Wanted};
use crate::units::Bytes;

fn pool(path: &Path) -> Pool {
    Pool {
        path: path.to_owned(),
        images: vec![
            Pattern::parse("{vm_id}.img", Use::Image).unwrap(),
            Pattern::parse("{vm_id}/{disk}.qcow2", Use::Image).unwrap(),
        ],
        snapshots: vec![Pattern::parse("{vm_id}@{snapshot_id}.img", Use::Snapshot).unwrap()],
        resize_step: Bytes(1),
        interval: Duration::from_secs(3600),
    }
}

/// A looker, and what it told last.
struct Watched {
    looker: Looker,
    last: Option<Report>,
}

impl Watched {
    fn start(place: Place, pool: Option<Pool>) -> Self {
        let wake = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap());
        let looker = Looker::start(place, pool, Duration::from_secs(3600), wake).unwrap();
        Self { looker, last: None }
    }

    /// Waits until a report fits.
    fn until(&mut self, what: &str, fits: impl Fn(&Report) -> bool) -> Report {
        let end = Instant::now() + Duration::from_secs(60);
        while Instant::now() < end {
            for report in self.looker.reports() {
                let done = fits(&report);
                self.last = Some(report);
                if done {
                    return self.last.clone().unwrap();
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("{what}: {:?}", self.last);
    }
}

fn of<'a>(report: &'a Report, id: &FileId) -> Option<&'a Found> {
    report.files.iter().find(|file| file.id == *id)
}

fn id(path: &Path) -> FileId {
    file_id(path, &fs::symlink_metadata(path).unwrap()).unwrap()
}

fn freed_at(report: &Report, id: &FileId) -> Option<u64> {
    match of(report, id)?.state {
        FileState::Freed(at) => Some(at.boot_ns),
        _ => None,
    }
}

#[test]
fn a_pool_is_looked_through_as_deep_as_its_patterns() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("a.img"), [0; 5000]).unwrap();
    fs::write(at("a@s.img"), [0; 100]).unwrap();
    fs::write(at("other.txt"), "x").unwrap();
    fs::create_dir_all(at("b/deep")).unwrap();
    fs::write(at("b/root.qcow2"), "no header").unwrap();
    fs::write(at("b/deep/c.img"), "x").unwrap();
    symlink("a.img", at("link.img")).unwrap();
    fs::hard_link(at("a.img"), at("z.img")).unwrap();
    let report = look_once(&pool(dir.path())).unwrap();
    let names: Vec<_> = report.files.iter().map(|f| (f.name.clone().unwrap().vm_id, f.capacity_bytes)).collect();
    assert_eq!(report.state.skipped.not_files, 1, "{report:?}");
    assert_eq!(names.len(), 3, "a hard link is the same file: {names:?}");
    assert!(names.contains(&("a".into(), Some(5000))) && names.contains(&("b".into(), None)), "{names:?}");
    let born = id(&at("a.img")).birth_ns;
    assert!(born > 0 && born <= clock::now().unwrap().unix_ns);
    let none = look_once(&pool(&at("missing"))).unwrap();
    assert!(none.state.why.is_some() && none.files.is_empty());
}

#[test]
fn a_deleted_file_is_there_until_the_last_who_has_it_lets_go() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.img");
    let mut watched = Watched::start(Place::Pool(0), Some(pool(dir.path())));
    watched.until("a first look", |_| true);
    let before = clock::now().unwrap();
    let held = File::create(&path).unwrap();
    let file = id(&path);
    watched.until("the file", |r| of(r, &file).is_some_and(|f| f.state == FileState::There));
    assert!(file.birth_ns + 20_000_000 > before.unix_ns, "its birth is the kernel's");
    fs::remove_file(&path).unwrap();
    watched.until("no name", |r| of(r, &file).is_some_and(|f| f.state == FileState::Nameless));
    let closing = clock::boot_ns().unwrap();
    drop(held);
    let report = watched.until("its end", |r| freed_at(r, &file).is_some());
    let at = freed_at(&report, &file).unwrap();
    assert!(closing <= at && at <= report.at.boot_ns, "{closing} {at}");
    // The space is free: no descriptor of ours keeps it.
    let fds = fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
    assert!(!fds.into_iter().any(|target| target.starts_with(&path)));
}

#[test]
fn a_file_that_is_replaced_under_its_name_is_two_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.img");
    fs::write(&path, "old").unwrap();
    let old = id(&path);
    let mut watched = Watched::start(Place::Pool(0), Some(pool(dir.path())));
    watched.until("the old one", |r| of(r, &old).is_some());
    fs::write(dir.path().join("new"), "new").unwrap();
    fs::rename(dir.path().join("new"), &path).unwrap();
    let new = id(&path);
    let report = watched.until("both", |r| freed_at(r, &old).is_some());
    assert!(old != new && of(&report, &new).is_some_and(|f| f.state == FileState::There), "{report:?}");
}

#[test]
fn a_file_moved_away_is_not_gone() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir_in(dir.path()).unwrap();
    let path = dir.path().join("a.img");
    fs::write(&path, "x").unwrap();
    let file = id(&path);
    let mut watched = Watched::start(Place::Pool(0), Some(pool(dir.path())));
    watched.until("the file", |r| of(r, &file).is_some());
    fs::rename(&path, elsewhere.path().join("b.bak")).unwrap();
    watched.until("without a name", |r| of(r, &file).is_some_and(|f| f.state == FileState::Nameless));
    fs::rename(elsewhere.path().join("b.bak"), dir.path().join("b.img")).unwrap();
    let report = watched.until("its new name", |r| of(r, &file).is_some_and(|f| f.state == FileState::There));
    assert_eq!(of(&report, &file).unwrap().name.as_ref().unwrap().vm_id, "b");
}

#[test]
fn a_file_held_by_a_descriptor_alone_is_watched_through_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    let held = File::create(&path).unwrap();
    let file = id(&path);
    fs::remove_file(&path).unwrap();
    let via = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&held));
    let mut watched = Watched::start(Place::Loose, None);
    let path = path.to_str().unwrap().to_owned();
    watched.looker.want(vec![Wanted { id: file, path: path.clone(), via: Some(via) }]);
    watched.until("it is held", |r| of(r, &file).is_some_and(|f| f.state == FileState::Nameless));
    drop(held);
    watched.until("its end", |r| freed_at(r, &file).is_some());
    let mut later = Watched::start(Place::Loose, None);
    later.looker.want(vec![Wanted { id: file, path, via: None }]);
    later
        .until("gone for who comes later", |r| of(r, &file).is_some_and(|f| matches!(f.state, FileState::Gone { .. })));
}

#[test]
fn an_unmounted_file_system_is_out_of_sight_and_can_be_unmounted_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let mounted = mount(Some("none"), dir.path(), Some("tmpfs"), MsFlags::empty(), None::<&str>);
    if mounted.is_err() {
        eprintln!("skipped: no right to mount");
        return;
    }
    let path = dir.path().join("a.img");
    fs::write(&path, "x").unwrap();
    let file = id(&path);
    let mut watched = Watched::start(Place::Pool(0), Some(pool(dir.path())));
    watched.until("the file", |r| of(r, &file).is_some());
    // EBUSY if anything of ours kept it.
    umount2(dir.path(), MntFlags::empty()).unwrap();
    let report =
        watched.until("out of sight", |r| of(r, &file).is_some_and(|f| matches!(f.state, FileState::Unknown(_))));
    assert!(matches!(&of(&report, &file).unwrap().state, FileState::Unknown(why) if why.contains("not mounted")));
}

#[test]
fn a_file_with_two_names_keeps_the_one_it_is_known_by() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("b.img"), "x").unwrap();
    let file = id(&at("b.img"));
    let mut watched = Watched::start(Place::Pool(0), Some(pool(dir.path())));
    let named = |name: &'static str| {
        move |r: &Report| of(r, &file).and_then(|f| f.name.clone()).is_some_and(|found| found.vm_id == name)
    };
    watched.until("its name", named("b"));
    fs::hard_link(at("b.img"), at("a.img")).unwrap();
    fs::write(at("c.img"), "x").unwrap();
    let other = id(&at("c.img"));
    let report = watched.until("a look after the link", |r| of(r, &other).is_some());
    assert!(named("b")(&report), "{report:?}");
    fs::remove_file(at("b.img")).unwrap();
    let report = watched.until("its other name", named("a"));
    assert_eq!(of(&report, &file).unwrap().state, FileState::There);
}
