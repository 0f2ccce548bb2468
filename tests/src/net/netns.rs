//! A network namespace of the tests' own, held by a descriptor, and work done or a program started inside it.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow};
use nix::sched::{CloneFlags, setns, unshare};

/// A namespace; it lives as long as this or an interface's or a process's hold on it.
#[derive(Debug, Clone)]
pub struct Namespace(Arc<File>);

impl Namespace {
    /// A new one, with nothing in it but a `lo` that is down.
    pub fn new() -> Result<Self> {
        on_a_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("unshare(CLONE_NEWNET) needs CAP_SYS_ADMIN")?;
            Self::own()
        })
    }

    /// That of the calling thread.
    pub fn own() -> Result<Self> {
        let file = File::open("/proc/thread-self/ns/net").context("cannot open the thread's network namespace")?;
        Ok(Self(Arc::new(file)))
    }

    /// Does something inside, on a thread of its own. A program started there stays there. (A program that asks to die
    /// with its parent dies with that thread, so at once.)
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        on_a_thread(|| {
            setns(self, CloneFlags::CLONE_NEWNET).context("setns")?;
            work()
        })
    }

    /// A path by which another process may open it, as long as this one lives and holds it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()).into()
    }

    /// Device and inode of its file, by which the kernel names it.
    pub fn id(&self) -> Result<(u64, u64)> {
        let stat = nix::sys::stat::fstat(&*self.0)?;
        Ok((stat.st_dev, stat.st_ino))
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Runs this on a thread that nothing else uses, and waits for it.
pub(crate) fn on_a_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".into()).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|_| Err(anyhow!("the thread in the namespace panicked")))
    })
}
