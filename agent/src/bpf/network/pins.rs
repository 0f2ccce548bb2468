//! What counts at interfaces and outlives the agent, in a bpffs: `claims` and `openers`, which all programs share; in
//! `p<number>` the page and the two links of an interface; and the book, in which an agent leaves what it made of them.
//! Filters of clsact stay by themselves and are pinned nowhere.
//!
//! The book is a map of one element that is never changed: another takes its name in one step, so an agent killed
//! anywhere leaves the one or the other.

use std::{
    fs, io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use aya_obj::generated::bpf_map_type;

use super::{
    object,
    syscall::{self, MapShape},
};
use crate::bpf::pin::tree;

const BOOK: &str = "book";
/// A book that has not got its name yet.
const NEXT: &str = "next";
const PAGE: &str = "page";
const LINKS: [&str; 2] = ["ingress", "egress"];

/// The directory.
pub(super) struct Pins(PathBuf);

/// An interface's page and links, as they were left.
pub(super) struct Left {
    pub id: u32,
    pub page: OwnedFd,
    /// None where the hooks are clsact's.
    pub links: Option<[OwnedFd; 2]>,
}

impl Pins {
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        tree::make(dir)?;
        Ok(Self(dir.to_owned()))
    }

    /// The map of this name and shape: the one that is there, or a new one.
    pub(super) fn map(&self, name: &str, shape: &MapShape<'_>) -> io::Result<OwnedFd> {
        let path = self.0.join(name);
        if let Ok(map) = object::open(&path) {
            let info = object::info(map.as_fd())?;
            let told = (info.key_size(), info.value_size(), info.max_entries(), info.map_flags());
            if told == (shape.key_bytes, shape.value_bytes, shape.entries, shape.flags) {
                return Ok(map);
            }
            fs::remove_file(&path)?;
        }
        let map = syscall::create_map(shape)?;
        object::pin(map.as_fd(), &path)?;
        Ok(map)
    }

    /// Interfaces that were left; what is not whole of one is removed, which takes its programs off. `linked`: the hooks
    /// have links.
    pub(super) fn ports(&self, linked: bool) -> io::Result<Vec<Left>> {
        let mut all = Vec::new();
        for dir in tree::list(&self.0)?.into_iter().filter(|path| path.is_dir()) {
            let id = tree::name(&dir).strip_prefix('p').and_then(|number| number.parse().ok());
            let whole = id.and_then(|id| {
                let [ingress, egress] = LINKS.map(|link| object::open(&dir.join(link)).ok());
                let links = if linked { Some([ingress?, egress?]) } else { None };
                Some(Left { id, page: object::open(&dir.join(PAGE)).ok()?, links })
            });
            match whole {
                Some(left) => all.push(left),
                None => drop(tree::remove(&dir)?),
            }
        }
        Ok(all)
    }

    fn of(&self, id: u32) -> PathBuf {
        self.0.join(format!("p{id}"))
    }

    /// Keeps an interface.
    pub(super) fn keep(&self, id: u32, page: BorrowedFd<'_>, links: Option<&[OwnedFd; 2]>) -> io::Result<()> {
        let dir = self.of(id);
        // Not with all that is above it: where that is gone, it was let go.
        fs::create_dir(&dir)?;
        object::pin(page, &dir.join(PAGE))?;
        links.into_iter().flatten().zip(LINKS).try_for_each(|(link, name)| object::pin(link.as_fd(), &dir.join(name)))
    }

    /// Keeps an interface no more.
    pub(super) fn drop(&self, id: u32) -> io::Result<()> {
        tree::remove(&self.of(id)).map(drop)
    }

    pub(super) fn book(&self) -> io::Result<Vec<u8>> {
        object::first(object::open(&self.0.join(BOOK))?.as_fd())
    }

    /// Leaves this instead of what was left before.
    pub(super) fn put_book(&self, bytes: &[u8]) -> io::Result<()> {
        let map = syscall::create_map(&MapShape {
            name: "NETWORK_BOOK",
            kind: bpf_map_type::BPF_MAP_TYPE_ARRAY,
            key_bytes: 4,
            value_bytes: u32::try_from(bytes.len()).map_err(io::Error::other)?,
            entries: 1,
            flags: 0,
            inner: None,
        })?;
        syscall::insert(&map, &0_u32, bytes, 0)?;
        let next = self.0.join(NEXT);
        match fs::remove_file(&next) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _gone => {}
        }
        object::pin(map.as_fd(), &next)?;
        fs::rename(&next, self.0.join(BOOK))
    }

    /// Lets all of it go.
    pub(super) fn remove(self) -> io::Result<()> {
        tree::remove(&self.0).map(drop)
    }
}
