//! Which control groups are one VM's and nobody else's, for a controller.
//!
//! Management puts a VMM's threads into groups of their own (libvirt: `…scope/libvirt/{emulator,vcpu0,iothread1}`), so a
//! VM's groups are all below the one that its threads have in common, or below its systemd unit, as far as no stranger
//! is in them. A slice is made for several VMs and is nobody's own, even while one is alone in it.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use nix::errno::Errno;

use super::search::{Asked, GroupSearch};
use crate::host::cgroup::{Controller, Group};
use crate::host::{ProcError, file};
use crate::units::{Tgid, Tid};

/// Where version 1 mounts the `cpu` controller.
const V1_CPU_MOUNTS: [&str; 3] = ["cpu", "cpu,cpuacct", "cpuacct,cpu"];
/// Where version 2 is mounted, beside version 1 and alone.
const V2_MOUNTS: [&str; 2] = ["", "unified"];
/// Most groups of one VM; each is a descriptor and a read.
const MAX_GROUPS: usize = 512;

/// Why what a VM's control groups count is not measured.
#[derive(Debug, thiserror::Error)]
pub enum WhyNot {
    /// Neither version 1 nor version 2 has the controller.
    #[error("no control group hierarchy {} is mounted", of_controller(*.0))]
    NoController(
        /// Its name; `None` where any hierarchy of version 2 would do.
        Option<&'static str>,
    ),
    /// The root is everybody's.
    #[error("its threads have only the root control group in common")]
    Root,
    /// Its path leads out of what we can see.
    #[error("control group {} lies outside this agent's control group namespace", group.display())]
    Hidden {
        /// As `/proc` names it.
        group: PathBuf,
    },
    /// What it counts is not this VM's alone.
    #[error("control group {} also holds process {other}", group.display())]
    Shared {
        /// The directory.
        group: PathBuf,
        /// One of the others; 0 for one of another pid namespace.
        other: u32,
    },
    /// The controller is off for it, or the kernel counts no such thing.
    #[error("control group {} counts no {what}", group.display())]
    Uncounted {
        /// The directory.
        group: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
    /// More than a VM has.
    #[error("more than {MAX_GROUPS} control groups below {}", group.display())]
    TooMany {
        /// The directory.
        group: PathBuf,
    },
    /// A file of a group cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// What was read.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The process cannot be read.
    #[error(transparent)]
    Process(#[from] ProcError),
}

fn of_controller(name: Option<&str>) -> String {
    name.map_or_else(|| "of version 2".to_owned(), |name| format!("with the {name} controller"))
}

impl WhyNot {
    /// Whether the process ended, which is no failure.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Process(error) if error.is_gone())
    }
}

/// A VM's own groups.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::host) struct Place {
    /// The one above all others.
    pub top: PathBuf,
    /// All of them, `top` first.
    pub dirs: Vec<PathBuf>,
}

/// Finds the groups of a process, as this search sees them.
pub(in crate::host) fn of(search: &GroupSearch, tgid: Tgid, which: Controller) -> Result<Rc<Place>, WhyNot> {
    let process = search.process(tgid)?;
    let (mount, common) = common(search, &process, which)?;
    let owner = Owner { search, tgid, process };
    let unit = common.ancestors().find(|path| is_unit(path)).filter(|unit| *unit != common);
    // A unit that also holds, say, the daemon that started the VM leaves the VM its group below.
    if let Some(unit) = unit
        && let Ok(place) = owner.groups(mount.join(unit))
    {
        return Ok(place);
    }
    owner.groups(mount.join(common))
}

/// The mount point, and the group below it that all threads have in common.
fn common(search: &GroupSearch, process: &Asked, which: Controller) -> Result<(PathBuf, PathBuf), WhyNot> {
    let missing = || WhyNot::NoController(which.v2());
    let mut found: Option<(PathBuf, PathBuf)> = None;
    for membership in &process.memberships {
        let (mount, group) = match membership.group(which)? {
            Some(Group::V1(group)) => (search.mount(1, which, v1).ok_or_else(missing)?, group),
            Some(Group::V2(group)) => (search.mount(2, which, v2).ok_or_else(missing)?, group),
            None => return Err(missing()),
        };
        if group.components().any(|part| part == Component::ParentDir) {
            return Err(WhyNot::Hidden { group });
        }
        let group = group.strip_prefix("/").map(Path::to_owned).unwrap_or(group);
        found = Some(match found {
            None => (mount, group),
            Some((mount, others)) => (mount, shared_part(&others, &group)),
        });
        // One thread in the root decides it, whatever the others are in.
        if found.as_ref().is_some_and(|(_, common)| common.as_os_str().is_empty()) {
            return Err(WhyNot::Root);
        }
    }
    found.ok_or_else(missing)
}

fn v1(root: &Path, which: Controller) -> Option<PathBuf> {
    let names = if which == Controller::Cpu { V1_CPU_MOUNTS.to_vec() } else { which.v1().into_iter().collect() };
    let mut mounts = names.into_iter().map(|name| root.join("sys/fs/cgroup").join(name));
    mounts.find(|mount| mount.join("cgroup.procs").exists())
}

fn v2(root: &Path, which: Controller) -> Option<PathBuf> {
    let mounts = V2_MOUNTS.iter().map(|name| root.join("sys/fs/cgroup").join(name));
    mounts.into_iter().find(|mount| match (file::text(&mount.join("cgroup.controllers")), which.v2()) {
        (Ok(controllers), Some(name)) => controllers.split_ascii_whitespace().any(|controller| controller == name),
        (Ok(_), None) => true,
        (Err(_), _) => false,
    })
}

/// Which version of control groups has a controller here.
pub(in crate::host) fn version(root: &Path, which: Controller) -> Option<&'static str> {
    v1(root, which).map(|_| "version 1").or_else(|| v2(root, which).map(|_| "version 2"))
}

fn shared_part(one: &Path, other: &Path) -> PathBuf {
    one.components().zip(other.components()).take_while(|(a, b)| a == b).map(|(part, _)| part).collect()
}

/// Whether systemd made the group for one scope or service.
fn is_unit(path: &Path) -> bool {
    path.extension().is_some_and(|kind| kind == "scope" || kind == "service")
}

/// Whose groups are looked for.
struct Owner<'a> {
    search: &'a GroupSearch,
    tgid: Tgid,
    process: Rc<Asked>,
}

impl Owner<'_> {
    /// `top` and all groups below it, if no stranger is in any.
    fn groups(&self, top: PathBuf) -> Result<Rc<Place>, WhyNot> {
        if let Some(known) = self.process.own.borrow().iter().find(|place| place.top == top) {
            return Ok(Rc::clone(known));
        }
        let mut dirs = vec![top.clone()];
        let mut next = 0;
        while let Some(dir) = dirs.get(next).cloned() {
            next += 1;
            let unreadable = |source| WhyNot::Unreadable { path: dir.clone(), source };
            if let Some(other) = self.stranger(&dir).map_err(unreadable)? {
                return Err(WhyNot::Shared { group: dir, other });
            }
            for entry in fs::read_dir(&dir).map_err(unreadable)? {
                let entry = entry.map_err(unreadable)?;
                if entry.file_type().map_err(unreadable)?.is_dir() {
                    dirs.push(entry.path());
                }
            }
            if dirs.len() > MAX_GROUPS {
                return Err(WhyNot::TooMany { group: top });
            }
        }
        let place = Rc::new(Place { top, dirs });
        self.process.own.borrow_mut().push(Rc::clone(&place));
        Ok(place)
    }

    /// A task in the group that is not the VM's.
    fn stranger(&self, dir: &Path) -> io::Result<Option<u32>> {
        let stranger = |tasks: &[u32]| tasks.iter().copied().find(|id| !self.owns(*id));
        if let Some(tasks) = self.search.known_strangers(dir) {
            return Ok(stranger(&tasks));
        }
        let tasks = tasks(dir)?;
        let found = stranger(&tasks);
        if found.is_some() {
            self.search.has_stranger(dir, tasks.into());
        }
        Ok(found)
    }

    /// Whether the task is the process, a thread of it, or a kernel thread that works for it.
    fn owns(&self, id: u32) -> bool {
        self.process.tids.contains(&Tid(id))
            || self.is_vhost(Tgid(id))
            || self.search.procfs.tgid_of(Tid(id)).ok() == Some(self.tgid)
    }

    /// Up to Linux 6.3 a vhost worker is a kernel thread in its owner's groups, named after the thread that made it.
    fn is_vhost(&self, id: Tgid) -> bool {
        let Ok(comm) = self.search.procfs.comm(id) else { return false };
        let owner = comm.strip_prefix(b"vhost-").and_then(|owner| std::str::from_utf8(owner).ok());
        let ours =
            owner.and_then(|owner| owner.parse().ok()).is_some_and(|owner| self.process.tids.contains(&Tid(owner)));
        // Only a kernel thread has no command line, while any process can take the name.
        ours && self.search.procfs.cmdline(id).is_ok_and(|line| line.raw.is_empty())
    }
}

/// The tasks of a group.
fn tasks(dir: &Path) -> io::Result<Vec<u32>> {
    let listed = match file::text(&dir.join("cgroup.procs")) {
        Ok(listed) => listed,
        // A threaded group of version 2 lists only threads.
        Err(error) if error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => {
            file::text(&dir.join("cgroup.threads"))?
        }
        Err(error) => return Err(error),
    };
    let id = |line: &str| line.trim().parse();
    let ids = listed.lines().map(id).collect::<Result<_, std::num::ParseIntError>>();
    ids.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not a process id"))
}
