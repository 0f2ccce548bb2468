//! What a process holds of KVM, by the names of its open files (`anon_inode:kvm-vm`, `anon_inode:kvm-vcpu:3`).

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::process::{ProcError, ProcFs};
use crate::units::Tgid;

/// How many open files of one process are looked at.
const MAX_FDS: usize = 65_536;

/// The KVM files of one process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KvmFds {
    /// File descriptors of KVM VMs. Several may belong to one VM (`dup`), and one process may hold several VMs.
    pub vms: u32,
    /// File descriptors of vCPUs.
    pub vcpus: u32,
    /// The vCPU numbers seen; empty before Linux 4.19, which does not name them.
    pub vcpu_ids: BTreeSet<u32>,
    /// Files that were not looked at because the process has more than 65,536 of them, or that were refused.
    pub unseen: u32,
}

impl KvmFds {
    /// Whether the process holds anything of KVM.
    #[must_use]
    pub fn any(&self) -> bool {
        self.vms > 0 || self.vcpus > 0
    }

    /// Whether this is a VM by the contract: a KVM VM with vCPUs. (An open vCPU file keeps its VM alive.)
    #[must_use]
    pub fn is_vm(&self) -> bool {
        self.vcpus > 0
    }

    fn count(&mut self, target: &[u8]) {
        let Some(kind) = target.strip_prefix(b"anon_inode:kvm-") else {
            return;
        };
        if kind == b"vm" {
            self.vms = self.vms.saturating_add(1);
        } else if kind == b"vcpu" {
            self.vcpus = self.vcpus.saturating_add(1);
        } else if let Some(id) = kind.strip_prefix(b"vcpu:") {
            self.vcpus = self.vcpus.saturating_add(1);
            self.vcpu_ids.extend(std::str::from_utf8(id).ok().and_then(|id| id.parse::<u32>().ok()));
        }
    }
}

impl ProcFs {
    /// Counts the KVM files among a process's open files; needs the right to trace it.
    ///
    /// A leader that ended before its process lets go of the file table (`exit_files`), so its own listing is empty
    /// while its threads' are not: the first listing with an entry is read.
    ///
    /// # Errors
    /// [`ProcError`]. A file that is closed while we look is no error.
    pub fn kvm_fds(&self, tgid: Tgid) -> Result<KvmFds, ProcError> {
        let process = self.of(tgid);
        match fds_in(&process.join("fd")) {
            Ok(None) => {}
            Ok(Some(found)) => return Ok(found),
            Err(error) => return Err(error),
        }
        for tid in self.thread_ids(tgid)?.into_iter().filter(|tid| tid.get() != tgid.get()) {
            if let Ok(Some(found)) = fds_in(&process.join("task").join(tid.to_string()).join("fd")) {
                return Ok(found);
            }
        }
        Ok(KvmFds::default())
    }
}

/// The KVM files of one listing; `None` if it lists nothing at all.
fn fds_in(path: &Path) -> Result<Option<KvmFds>, ProcError> {
    let mut found = KvmFds::default();
    let mut refused = None;
    let mut any = false;
    for (seen, entry) in fs::read_dir(path).map_err(|error| ProcError::of(error, path))?.enumerate() {
        let entry = entry.map_err(|error| ProcError::of(error, path))?;
        any = true;
        if seen >= MAX_FDS {
            found.unseen = found.unseen.saturating_add(1);
            continue;
        }
        match fs::read_link(entry.path()).map_err(|error| ProcError::of(error, path)) {
            Ok(target) => found.count(target.as_os_str().as_bytes()),
            Err(ProcError::Gone { .. }) => {}
            Err(error) => {
                found.unseen = found.unseen.saturating_add(1);
                refused = Some(error);
            }
        }
    }
    match refused {
        // Nothing of KVM was seen, but not everything could be: that is a refusal, not an answer.
        Some(error) if !found.any() => Err(error),
        _ => Ok(any.then_some(found)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn fds(targets: &[&str]) -> Result<KvmFds, ProcError> {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("proc/5/fd");
        fs::create_dir_all(&dir).unwrap();
        for (fd, target) in targets.iter().enumerate() {
            symlink(target, dir.join(fd.to_string())).unwrap();
        }
        ProcFs::new(root.path()).kvm_fds(Tgid(5))
    }

    #[test]
    fn kvm_files_are_told_by_their_names_alone() {
        let found = fds(&[
            "/dev/kvm",
            "anon_inode:kvm-vm",
            "anon_inode:kvm-vcpu:0",
            "anon_inode:kvm-vcpu:11",
            "anon_inode:kvm-vcpu",
            "anon_inode:[eventfd]",
            "/tmp/anon_inode:kvm-vm",
            "anon_inode:kvm-vcpu-stats:0",
        ])
        .unwrap();
        assert_eq!((found.vms, found.vcpus, found.vcpu_ids), (1, 3, BTreeSet::from([0, 11])));
    }

    #[test]
    fn a_statistics_file_is_no_vcpu() {
        assert_eq!(fds(&["anon_inode:kvm-vcpu-stats:0", "anon_inode:kvm-vm-stats"]).unwrap(), KvmFds::default());
    }

    #[test]
    fn a_process_without_kvm_is_no_vm() {
        assert!(!fds(&["/dev/null"]).unwrap().any());
        let only_opened = fds(&["anon_inode:kvm-vm"]).unwrap();
        assert!(only_opened.any() && !only_opened.is_vm());
        assert!(fds(&["anon_inode:kvm-vcpu:0"]).unwrap().is_vm());
    }

    #[test]
    fn a_vanished_process_is_gone() {
        let root = tempfile::tempdir().unwrap();
        assert!(ProcFs::new(root.path()).kvm_fds(Tgid(5)).unwrap_err().is_gone());
    }
}
