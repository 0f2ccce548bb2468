//! The files that a process holds open, each once, and what can be told of one by itself.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::sys::statfs::statfs;

use super::{EXTENSIONS, FIRMWARE, FIRMWARE_DIRS, HeldFiles};
use crate::host::disk::format::{self, Header};
use crate::host::{ProcError, ProcFs, file, store};
use crate::storage::FileId;
use crate::units::Tgid;

/// How many descriptors of one process are looked at.
const MAX_FDS: u32 = 65_536;
const SECTOR: u64 = 512;
const TMPFS: u64 = 0x0102_1994;
/// File systems whose files are the kernel's, or memory: hugetlbfs, proc, sysfs, cgroup, cgroup2, debugfs, tracefs, bpf.
const OF_KERNEL: [u64; 8] =
    [0x9584_58f6, 0x9fa0, 0x6265_6572, 0x0027_e0eb, 0x6367_7270, 0x6462_6720, 0x7472_6163, 0xcafe_4a11];

/// Which file: device and inode of a regular file, the device itself of a block device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) is_block: bool,
    pub(super) dev: u64,
    pub(super) inode: u64,
}

impl Key {
    /// `None` for what can be no disk.
    pub(super) fn of(stat: &fs::Metadata) -> Option<Self> {
        match stat.file_type() {
            kind if kind.is_file() => Some(Self { is_block: false, dev: stat.dev(), inode: stat.ino() }),
            kind if kind.is_block_device() => Some(Self { is_block: true, dev: stat.rdev(), inode: 0 }),
            _ => None,
        }
    }
}

/// A file that is held, by all its descriptors together.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) id: Option<FileId>,
    /// The descriptor's own path.
    pub(super) via: PathBuf,
    pub(super) path: PathBuf,
    pub(super) deleted: bool,
    pub(super) is_block: bool,
    pub(super) readable: bool,
    pub(super) writable: bool,
    pub(super) direct: bool,
    pub(super) append: bool,
    pub(super) filesystem: u64,
    pub(super) size_bytes: u64,
    pub(super) allocated_bytes: u64,
    /// `Ok(None)`: no format's magic.
    pub(super) header: Result<Option<Header>, String>,
}

impl Held {
    pub(super) fn is_of_kernel(&self) -> bool {
        !self.is_block && OF_KERNEL.contains(&self.filesystem)
    }

    /// Rules 3 to 6, for a regular file; `magic` if it begins like an image.
    pub(super) fn is_image(&self, magic: bool) -> bool {
        if !self.readable || self.append {
            return false;
        }
        let sectors = self.size_bytes >= SECTOR && self.size_bytes.is_multiple_of(SECTOR);
        magic
            || !self.is_firmware()
                && self.filesystem != TMPFS
                && sectors
                && (self.writable || self.direct || self.has_extension(&EXTENSIONS))
    }

    fn is_firmware(&self) -> bool {
        let mut dirs = self.path.parent().into_iter().flat_map(Path::components);
        self.has_extension(&FIRMWARE)
            || dirs.any(|dir| FIRMWARE_DIRS.iter().any(|known| dir.as_os_str() == *known))
                && self.path.starts_with("/usr/share")
            || self.path.parent().is_some_and(|dir| dir.ends_with("nvram"))
    }

    fn has_extension(&self, known: &[&str]) -> bool {
        let extension = self.path.extension().map(|extension| extension.to_ascii_lowercase());
        extension.is_some_and(|extension| known.iter().any(|known| extension == *known))
    }
}

/// The regular files and block devices that a process holds, and how many descriptors could not be looked at.
pub(super) fn list(procfs: &ProcFs, tgid: Tgid) -> Result<(HeldFiles, u32), ProcError> {
    let process = procfs.of(tgid);
    let mut found = in_listing(&process)?;
    if !found.2 {
        // A leader that ended has let go of the table that its threads still have.
        for tid in procfs.thread_ids(tgid)?.into_iter().filter(|tid| tid.get() != tgid.get()) {
            found = in_listing(&process.join("task").join(tid.to_string()))?;
            if found.2 {
                break;
            }
        }
    }
    Ok((found.0, found.1))
}

/// As [`list`], of one thread's directory, and whether there was any descriptor at all.
fn in_listing(task: &Path) -> Result<(HeldFiles, u32, bool), ProcError> {
    let dir = task.join("fd");
    let (mut files, mut unseen, mut seen) = (HeldFiles::new(), 0, 0u32);
    for entry in fs::read_dir(&dir).map_err(|error| ProcError::of(error, &dir))? {
        let entry = entry.map_err(|error| ProcError::of(error, &dir))?;
        seen += 1;
        if seen > MAX_FDS {
            unseen += 1;
            continue;
        }
        match take(task, &entry.path(), &mut files) {
            Ok(()) => {}
            // Closed since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => unseen += 1,
        }
    }
    Ok((files, unseen, seen > 0))
}

fn take(task: &Path, fd: &Path, files: &mut HeldFiles) -> io::Result<()> {
    let target = fs::read_link(fd)?.into_os_string().into_vec();
    // Anonymous inodes, sockets and pipes have no path, and shared anonymous memory one that is not there.
    if !target.starts_with(b"/") || target.starts_with(b"/memfd:") || target.starts_with(b"/SYSV") {
        return Ok(());
    }
    let stat = fs::metadata(fd)?;
    let Some(key) = Key::of(&stat) else { return Ok(()) };
    let name = fd.file_name().unwrap_or_default();
    let flags = flags(&file::text(&task.join("fdinfo").join(name))?);
    let access = flags & OFlag::O_ACCMODE;
    let held = match files.entry(key) {
        std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
        std::collections::btree_map::Entry::Vacant(place) => place.insert(look(fd, &target, &stat)?),
    };
    held.readable |= access != OFlag::O_WRONLY;
    held.writable |= access != OFlag::O_RDONLY;
    held.direct |= flags.contains(OFlag::O_DIRECT);
    held.append &= flags.contains(OFlag::O_APPEND);
    Ok(())
}

fn look(fd: &Path, target: &[u8], stat: &fs::Metadata) -> io::Result<Held> {
    let is_block = stat.file_type().is_block_device();
    let (path, deleted) = match target.strip_suffix(b" (deleted)") {
        Some(path) if stat.nlink() == 0 => (path, true),
        _ => (target, false),
    };
    let opened = open(fd);
    let size_bytes = match &opened {
        // A node has no size; the device's end is where seeking to it leads.
        Ok(device) if is_block => io::Seek::seek(&mut &*device, io::SeekFrom::End(0))?,
        _ => stat.size(),
    };
    let header = opened.and_then(|image| format::read(&image)).map_err(|error| error.to_string());
    let magic = statfs(fd).map(|stat| stat.filesystem_type().0).map_err(io::Error::from)?;
    Ok(Held {
        id: store::file_id(fd, stat).ok(),
        via: fd.to_owned(),
        path: PathBuf::from(std::ffi::OsStr::from_bytes(path)),
        deleted,
        is_block,
        readable: false,
        writable: false,
        direct: false,
        append: true,
        // The type of the constant differs by architecture; magics are 32 bits.
        filesystem: magic.cast_unsigned() & 0xffff_ffff,
        size_bytes,
        allocated_bytes: stat.blocks().saturating_mul(SECTOR),
        header,
    })
}

/// Opens what a descriptor stands for, also in another mount namespace or deleted. Leaves no access time where that is
/// allowed, and waits for nothing that could be waited for otherwise.
fn open(fd: &Path) -> io::Result<File> {
    let with = |flags: OFlag| OpenOptions::new().read(true).custom_flags((OFlag::O_NONBLOCK | flags).bits()).open(fd);
    with(OFlag::O_NOATIME).or_else(|_| with(OFlag::empty()))
}

/// `flags:` of a descriptor's fdinfo, which is octal.
fn flags(info: &str) -> OFlag {
    let value = info.lines().find_map(|line| line.strip_prefix("flags:"));
    OFlag::from_bits_retain(value.and_then(|value| i32::from_str_radix(value.trim(), 8).ok()).unwrap_or(0))
}
