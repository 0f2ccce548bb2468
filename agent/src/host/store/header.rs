//! What an image's header says, if the file's name says that it has one: a guest can write any header into a raw image,
//! but not choose the file's name.

use std::collections::BTreeMap;
use std::fs::{Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::OFlag;

use crate::host::disk::format::{self, Format};
use crate::storage::FileId;

/// What a file offers, and what it is a change to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) capacity_bytes: Option<u64>,
    pub(super) backing: Option<String>,
}

/// Headers read before, by file, with the size and change that they were read at.
#[derive(Debug, Default)]
pub(super) struct Headers(BTreeMap<FileId, ((u64, i64, i64), Contents)>);

impl Headers {
    /// The contents of a regular file.
    pub(super) fn of(&mut self, id: &FileId, path: &Path, stat: &Metadata) -> Contents {
        let Some(format) = by_name(path) else {
            return Contents { capacity_bytes: Some(stat.size()), backing: None };
        };
        let mark = (stat.size(), stat.mtime(), stat.mtime_nsec());
        if let Some((known, contents)) = self.0.get(id)
            && *known == mark
        {
            return contents.clone();
        }
        let contents = read(path, format).unwrap_or_default();
        self.0.insert(*id, (mark, contents.clone()));
        contents
    }

    /// Forgets all but these files.
    pub(super) fn keep(&mut self, is_known: impl Fn(&FileId) -> bool) {
        self.0.retain(|id, _| is_known(id));
    }
}

/// The format that a file's extension names; a raw image has none.
fn by_name(path: &Path) -> Option<Format> {
    let extension = path.extension()?.to_str()?.to_ascii_lowercase();
    Format::named(&extension).filter(|format| *format != Format::Raw)
}

fn read(path: &Path, expected: Format) -> io::Result<Contents> {
    let with = |flags: OFlag| {
        let flags = OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | flags;
        OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)
    };
    let file = with(OFlag::O_NOATIME).or_else(|_| with(OFlag::empty()))?;
    let Some(header) = format::read(&file)?.filter(|header| header.format == expected) else {
        return Ok(Contents::default());
    };
    let backing = header.backing.as_deref().map(|name| beside(path, name).to_string_lossy().into_owned());
    Ok(Contents { capacity_bytes: header.capacity_bytes.ok(), backing })
}

/// A name in a header, from the directory of the file that has it.
fn beside(image: &Path, name: &str) -> PathBuf {
    let mut path = PathBuf::new();
    let name = name.strip_prefix("file:").unwrap_or(name);
    for part in image.parent().unwrap_or(Path::new("/")).join(name).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                path.pop();
            }
            part => path.push(part),
        }
    }
    path
}
