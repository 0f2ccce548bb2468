//! Whose thread wrote: a VM's packets are also written by vhost workers, which may be kernel threads of their own
//! (`vhost-PID`: always up to Linux 6.3, and by choice since 6.17).

use super::process::ProcFs;
use crate::units::{Tgid, Tid};

/// Who stands behind the process id of a writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// This process: itself, or the owner of the vhost worker.
    Process(u32),
    /// It is gone, or not to be seen.
    Gone,
}

impl ProcFs {
    /// Whose thread `id` is: a process id, or a kernel thread's.
    #[must_use]
    pub fn writer(&self, id: u32) -> Writer {
        let Ok(stat) = self.stat(Tgid(id)) else { return Writer::Gone };
        // Only children of kthreadd (pid 2) are kernel threads; anybody may call a process `vhost-1`.
        let owner = stat.comm.strip_prefix(b"vhost-").filter(|_| stat.ppid.get() == 2);
        let owner = owner.and_then(|pid| std::str::from_utf8(pid).ok()).and_then(|pid| pid.parse().ok());
        match owner {
            None => Writer::Process(id),
            // The number is that of the *thread* that made the worker.
            Some(tid) => self.tgid_of(Tid(tid)).map_or(Writer::Gone, |tgid| Writer::Process(tgid.get())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn process(root: &std::path::Path, id: u32, comm: &str, ppid: u32, tgid: u32) {
        let dir = root.join(format!("proc/{id}"));
        fs::create_dir_all(&dir).unwrap();
        let rest = "0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 1 0 77 0";
        fs::write(dir.join("stat"), format!("{id} ({comm}) S {ppid} {rest}")).unwrap();
        fs::write(dir.join("status"), format!("Name:\t{comm}\nTgid:\t{tgid}\n")).unwrap();
    }

    #[test]
    fn a_vhost_worker_writes_for_the_process_that_made_it() {
        let root = tempfile::tempdir().unwrap();
        process(root.path(), 10, "qemu", 1, 10);
        process(root.path(), 12, "worker", 1, 10);
        process(root.path(), 20, "vhost-12", 2, 20);
        process(root.path(), 21, "vhost-99", 2, 21);
        process(root.path(), 22, "vhost-12", 1, 22);
        let procfs = ProcFs::new(root.path());
        assert_eq!(procfs.writer(10), Writer::Process(10));
        assert_eq!(procfs.writer(20), Writer::Process(10));
        assert_eq!(procfs.writer(21), Writer::Gone);
        assert_eq!(procfs.writer(22), Writer::Process(22));
        assert_eq!(procfs.writer(23), Writer::Gone);
    }
}
