//! Network namespaces: naming one, holding one, and doing something inside it.
//!
//! An interface's index is unique in its namespace only, so the namespace belongs to every interface's key.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::Arc,
    thread,
};

use nix::sched::{CloneFlags, setns};
use serde::{Deserialize, Serialize};

/// Which network namespace: device and inode of its file in nsfs. Unique while somebody holds it, which [`NetNs`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NetNsId {
    /// Device of nsfs.
    pub dev: u64,
    /// Inode, as in `readlink /proc/PID/ns/net`.
    pub inode: u64,
}

/// A namespace that is held: it and its number live as long as this does.
#[derive(Clone, Debug)]
pub struct NetNs {
    id: NetNsId,
    file: Arc<OwnedFd>,
}

impl NetNs {
    /// The namespace of a process: `root` is the directory `/proc` stands in.
    ///
    /// # Errors
    /// When the process is gone (`NotFound`) or may not be looked at.
    pub fn of_process(root: &Path, tgid: u32) -> io::Result<Self> {
        Self::from_fd(File::open(root.join(format!("proc/{tgid}/ns/net")))?.into())
    }

    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn own() -> io::Result<Self> {
        Self::from_fd(File::open("/proc/thread-self/ns/net")?.into())
    }

    /// The namespace behind a descriptor of nsfs.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn from_fd(file: OwnedFd) -> io::Result<Self> {
        let stat = nix::sys::stat::fstat(&file)?;
        let id = NetNsId { dev: stat.st_dev, inode: stat.st_ino };
        Ok(Self { id, file: Arc::new(file) })
    }

    /// Which one it is.
    #[must_use]
    pub const fn id(&self) -> NetNsId {
        self.id
    }

    /// Runs `work` inside the namespace; if that is another than the caller's, on a thread of its own, so that no other
    /// code ever finds itself there.
    ///
    /// # Errors
    /// When the thread cannot be made or may not enter (CAP_SYS_ADMIN).
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        // Who is there already needs no right to enter.
        if Self::own().is_ok_and(|own| own.id == self.id) {
            return Ok(work());
        }
        thread::scope(|scope| {
            let enter = || {
                setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET)?;
                Ok(work())
            };
            let thread = thread::Builder::new().name("kvmeter-netns".to_owned()).spawn_scoped(scope, enter)?;
            thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread inside a network namespace panicked")))
        })
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_and_its_threads_name_the_same_namespace() {
        let own = NetNs::own().expect("own namespace");
        let process = NetNs::of_process(Path::new("/"), std::process::id()).expect("of the process");
        assert_eq!(own.id(), process.id());
        assert_eq!(own.inside(|| NetNs::own().map(|ns| ns.id())).expect("enter").expect("look"), own.id());
    }

    #[test]
    fn work_inside_leaves_the_caller_where_it_was() {
        let own = NetNs::own().expect("own namespace");
        let new = thread::spawn(|| nix::sched::unshare(CloneFlags::CLONE_NEWNET).map(|()| NetNs::own()));
        let new = new.join().expect("thread").expect("unshare needs CAP_SYS_ADMIN").expect("look");
        assert_ne!(new.id(), own.id());
        assert_eq!(new.inside(|| NetNs::own().map(|ns| ns.id())).expect("enter").expect("look"), new.id());
        assert_eq!(NetNs::own().expect("look").id(), own.id());
    }

    #[test]
    fn a_process_that_is_gone_is_not_found() {
        let missing = NetNs::of_process(Path::new("/"), u32::MAX).expect_err("no such process");
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}
