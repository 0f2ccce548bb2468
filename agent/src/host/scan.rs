//! One pass over all processes for those that hold KVM files: how VMs are found that no event told of.

use super::kvm_fds::KvmFds;
use super::process::{ProcError, ProcFs};
use crate::units::Tgid;

/// What a pass found and what it could not see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanResult {
    /// Processes that hold a KVM VM or a vCPU and were not known yet, in ascending order.
    pub found: Vec<(Tgid, KvmFds)>,
    /// Processes whose open files we may not see; any of them may be a VM.
    pub denied: u32,
    /// Processes that ended while we looked.
    pub vanished: u32,
    /// Processes that failed in any other way.
    pub failed: u32,
    /// Processes listed, the known ones included.
    pub processes: u32,
}

/// Looks at every process that is not `known`.
///
/// # Errors
/// Only if `/proc` itself cannot be listed; trouble with single processes is counted in the result.
pub fn scan_kvm(procfs: &ProcFs, known: &dyn Fn(Tgid) -> bool) -> Result<ScanResult, ProcError> {
    let mut result = ScanResult::default();
    for tgid in procfs.tgids()? {
        result.processes += 1;
        if known(tgid) {
            continue;
        }
        match procfs.kvm_fds(tgid) {
            Ok(fds) if fds.any() => result.found.push((tgid, fds)),
            Ok(_) => {}
            Err(ProcError::Gone { .. }) => result.vanished += 1,
            Err(ProcError::Denied { .. }) => result.denied += 1,
            Err(_) => result.failed += 1,
        }
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    fn add(root: &Path, pid: u32, targets: &[&str]) {
        let dir = root.join(format!("proc/{pid}/fd"));
        fs::create_dir_all(&dir).unwrap();
        for (fd, target) in targets.iter().enumerate() {
            symlink(target, dir.join(fd.to_string())).unwrap();
        }
    }

    #[test]
    fn only_unknown_holders_of_kvm_are_found() {
        let root = tempfile::tempdir().unwrap();
        add(root.path(), 10, &["/dev/null"]);
        add(root.path(), 11, &["anon_inode:kvm-vm", "anon_inode:kvm-vcpu:0"]);
        add(root.path(), 12, &["anon_inode:kvm-vm", "anon_inode:kvm-vcpu:0"]);
        fs::create_dir_all(root.path().join("proc/13")).unwrap();
        let result = scan_kvm(&ProcFs::new(root.path()), &|tgid| tgid == Tgid(12)).unwrap();
        assert_eq!(result.found.iter().map(|(tgid, _)| *tgid).collect::<Vec<_>>(), [Tgid(11)]);
        assert_eq!((result.processes, result.vanished, result.denied, result.failed), (4, 1, 0, 0));
    }

    #[test]
    fn a_host_without_proc_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        assert!(scan_kvm(&ProcFs::new(root.path()), &|_| false).is_err());
    }
}
