//! Which control group a process is in, through the `procfs` crate.

use std::path::{Path, PathBuf};

use procfs::{FromRead, ProcessCGroups, process::Process};

use super::{ProcError, ProcFs, file};
use crate::units::{Tgid, Tid};

/// What a group is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Controller {
    /// CPU time.
    Cpu,
    /// Block I/O: `blkio` in version 1, `io` in version 2.
    Io,
    /// Memory.
    Memory,
    /// Sockets, which belong to a group of version 2 whatever its controllers.
    Sockets,
}

impl Controller {
    /// Its name in version 1; `None` if only version 2 has it.
    pub(super) const fn v1(self) -> Option<&'static str> {
        match self {
            Self::Cpu => Some("cpu"),
            Self::Io => Some("blkio"),
            Self::Memory => Some("memory"),
            Self::Sockets => None,
        }
    }

    /// Its name in version 2; `None` if each group has it.
    pub(super) const fn v2(self) -> Option<&'static str> {
        match self {
            Self::Cpu => Some("cpu"),
            Self::Io => Some("io"),
            Self::Memory => Some("memory"),
            Self::Sockets => None,
        }
    }
}

/// The group that a thread is in for a controller, as a path below its hierarchy's mount point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Group {
    /// Of the version 1 hierarchy with the controller.
    V1(PathBuf),
    /// Of version 2, which has the controller if version 1 has not.
    V2(PathBuf),
}

/// Controllers that tell most about who owns a process, where several hierarchies name different groups.
const TELLING: [&str; 4] = ["name=systemd", "cpu", "memory", "cpuacct"];

impl ProcFs {
    /// The process's control group: version 2's where that says anything but the root, else the first telling version 1
    /// hierarchy's. Empty if it cannot be read or is the root everywhere.
    #[must_use]
    pub fn cgroup(&self, tgid: Tgid) -> String {
        let Ok(groups) = Process::new_with_root(self.of(tgid)).and_then(|process| process.cgroups()) else {
            return String::new();
        };
        let unified = groups.0.iter().find(|group| group.hierarchy == 0).map(|group| group.pathname.clone());
        let by_controller = TELLING.iter().filter_map(|controller| {
            groups.0.iter().find(|group| group.controllers.iter().any(|c| c == controller)).map(|g| g.pathname.clone())
        });
        unified.into_iter().chain(by_controller).find(|path| Path::new(path) != Path::new("/")).unwrap_or_default()
    }

    /// All groups that a thread is in.
    pub(super) fn membership(&self, tgid: Tgid, tid: Tid) -> Result<Membership, ProcError> {
        let path = self.of(tgid).join("task").join(tid.to_string()).join("cgroup");
        match file::text(&path) {
            Ok(text) => Ok(Membership { path, text }),
            Err(error) => Err(ProcError::of(error, &path)),
        }
    }
}

/// The groups that a thread is in, one for each hierarchy, as the kernel writes them.
#[derive(Clone, Debug)]
pub(super) struct Membership {
    path: PathBuf,
    text: String,
}

impl Membership {
    /// Whether both threads are in the same groups.
    pub(super) fn is_same_as(&self, other: &Self) -> bool {
        self.text == other.text
    }

    /// The group for a controller; `None` where no hierarchy has it.
    pub(super) fn group(&self, which: Controller) -> Result<Option<Group>, ProcError> {
        let malformed = |_| ProcError::Malformed { path: self.path.clone(), field: "cgroup" };
        let groups = ProcessCGroups::from_read(self.text.as_bytes()).map_err(malformed)?.0;
        let has = |controllers: &[String]| controllers.iter().any(|name| Some(name.as_str()) == which.v1());
        let v1 = groups.iter().find(|group| has(&group.controllers));
        let v2 = groups.iter().find(|group| group.hierarchy == 0);
        let v1 = v1.map(|group| Group::V1(group.pathname.clone().into()));
        Ok(v1.or_else(|| v2.map(|group| Group::V2(group.pathname.clone().into()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> String {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("proc/7");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("cgroup"), text).unwrap();
        ProcFs::new(root.path()).cgroup(Tgid(7))
    }

    #[test]
    fn the_unified_hierarchy_comes_first_unless_it_says_nothing() {
        assert_eq!(of("0::/machine.slice/a.scope\n"), "/machine.slice/a.scope");
        assert_eq!(of("5:cpu,cpuacct:/vms/a\n0::/\n"), "/vms/a");
        assert_eq!(of("0::/\n"), "");
        assert_eq!(of("garbage"), "");
    }
}
