//! A VM's virtual disks: the regular files and block devices that its process holds open as such.
//!
//! Which descriptors count, in this order; what is not said here is no disk:
//! 1. Never: what is neither regular file nor block device, files of hugetlbfs, procfs, sysfs and the like, files that
//!    the command line names as firmware, kernel, memory or the like.
//! 2. Always: a block device; a file that the command line names as a disk; a file that another disk's header names as
//!    its backing file or as a part of it.
//! 3. Never: a file opened for writing alone or for appending (a log).
//! 4. A file that begins with an image format's magic.
//! 5. Never: firmware by its name or directory, files on tmpfs (memory), sizes that are no whole sectors (pid files).
//! 6. A file opened for reading and writing, or past the page cache, or with an image's file extension: a raw image.
//!
//! Several descriptors of one file are one disk; a file that was deleted is a disk as long as it is held.

mod chain;
mod held;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::argument::Arguments;
use super::format::{Format, Header};
use crate::host::{ProcError, ProcFs, file};
use crate::storage::FileId;
use crate::units::Tgid;
use held::{Held, Key};

/// Disks of one VM that are told; what is more is counted.
const MAX_DISKS: usize = 256;
/// Extensions of files that are images without a magic.
const EXTENSIONS: [&str; 11] =
    ["raw", "img", "iso", "ext2", "ext3", "ext4", "xfs", "btrfs", "squashfs", "erofs", "rootfs"];
/// Extensions of firmware, and where it is installed.
const FIRMWARE: [&str; 3] = ["fd", "rom", "bin"];
const FIRMWARE_DIRS: [&str; 7] = ["qemu", "OVMF", "AAVMF", "edk2", "seabios", "qemu-efi-aarch64", "nvram"];

/// What a disk is to its VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// What the guest sees.
    Disk,
    /// What a disk is a change to; often shared by many VMs.
    Backing,
    /// Holds a disk's data, whose size the disk tells.
    Part,
}

impl Role {
    /// The word in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Backing => "backing",
            Self::Part => "part",
        }
    }
}

/// One file or block device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Which file it is; `None` if that cannot be told.
    pub id: Option<FileId>,
    /// A descriptor that holds it.
    pub via: PathBuf,
    /// Where it is, as its VMM opened it.
    pub path: PathBuf,
    /// A block device rather than a file.
    pub is_block: bool,
    /// What it is to its VM.
    pub role: Role,
    /// Its format; `None` if it could not be read.
    pub format: Option<Format>,
    /// No descriptor may write.
    pub read_only: bool,
    /// It has no name any more.
    pub deleted: bool,
    /// Bytes the guest sees.
    pub capacity_bytes: Option<u64>,
    /// Bytes it takes on the host (`st_blocks`); `None` for a block device, whose storage the host cannot tell.
    pub allocated_bytes: Option<u64>,
    /// Why format or capacity are not known.
    pub why: Option<String>,
}

/// A VM's disks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disks {
    /// Those that are seen, in the order of their descriptors.
    pub images: Vec<Image>,
    /// Kinds of storage that cannot be seen, one entry a disk.
    pub unobserved: Vec<&'static str>,
    /// Disks beyond the bound, and descriptors that could not be looked at.
    pub untold: u32,
}

/// Lists the disks of a process. Can wait for a file system that hangs, so it is no work for a thread that must not.
///
/// # Errors
/// [`ProcError`]: the process is gone or may not be looked at.
pub fn list(root: &Path, procfs: &ProcFs, tgid: Tgid) -> Result<Disks, ProcError> {
    let arguments = Arguments::parse(&procfs.cmdline(tgid)?.raw);
    // Its drives are raw whatever a guest writes into them.
    let raw_only = procfs.exe_name(tgid).is_ok_and(|name| name.starts_with(b"firecracker"));
    let (held, untold) = held::list(procfs, tgid)?;
    let mut unobserved = arguments.unobserved.clone();
    unobserved.extend(arguments.vfio.iter().filter(|device| is_storage(root, device)).map(|_| "vfio"));
    let mut all: Vec<Entry> = held.into_iter().map(|(key, held)| Entry::new(key, held, &arguments, raw_only)).collect();
    chain::follow(&mut all, &procfs.of(tgid).join("root"), &mut unobserved);
    let images: Vec<Image> = all.into_iter().filter(|entry| entry.counts).map(Entry::image).collect();
    let beyond = images.len().saturating_sub(MAX_DISKS);
    let untold = untold.saturating_add(u32::try_from(beyond).unwrap_or(u32::MAX));
    Ok(Disks { images: images.into_iter().take(MAX_DISKS).collect(), unobserved, untold })
}

/// Whether a device that is handed through is mass storage (PCI class 01).
fn is_storage(root: &Path, device: &str) -> bool {
    let name = device.trim_end_matches('/').rsplit('/').next().unwrap_or(device);
    let name = if name.matches(':').count() == 1 { format!("0000:{name}") } else { name.to_owned() };
    let class = file::text(&root.join("sys/bus/pci/devices").join(name).join("class"));
    class.is_ok_and(|class| class.starts_with("0x01"))
}

/// A held file on its way to being a disk, or none.
struct Entry {
    key: Key,
    held: Held,
    format: Option<Format>,
    header: Option<Header>,
    role: Role,
    counts: bool,
    /// May become a disk by another's header.
    may_count: bool,
}

impl Entry {
    fn new(key: Key, held: Held, arguments: &Arguments, raw_only: bool) -> Self {
        let named = held.path.to_str().and_then(|path| arguments.disks.get(path));
        let other = held.path.to_str().is_some_and(|path| arguments.others.contains(path));
        // What a guest wrote into a raw image is its own business: the VMM was told the format.
        let told = if raw_only { Some(Format::Raw) } else { named.copied().flatten() };
        let header = held.header.as_ref().ok().cloned().flatten().filter(|_| told != Some(Format::Raw));
        let known = header.as_ref().map(|header| header.format);
        let format = told.or(known).or_else(|| held.header.is_ok().then_some(Format::Raw));
        let may_count = !other && !held.is_of_kernel();
        let counts = may_count && (held.is_block || named.is_some() || (held.is_image(known.is_some())));
        Self { key, format, header, role: Role::Disk, counts, may_count, held }
    }

    fn image(self) -> Image {
        let capacity = match (&self.header, self.format, &self.held.header) {
            (Some(header), ..) => header.capacity_bytes.map_err(str::to_owned),
            (None, Some(Format::Raw), _) => Ok(self.held.size_bytes),
            (None, _, Err(why)) => Err(format!("its header cannot be read: {why}")),
            (None, ..) => Err("it has not the header of its format".to_owned()),
        };
        Image {
            id: self.held.id,
            via: self.held.via,
            is_block: self.held.is_block,
            role: self.role,
            format: self.format,
            read_only: !self.held.writable,
            deleted: self.held.deleted,
            allocated_bytes: (!self.held.is_block).then_some(self.held.allocated_bytes),
            why: capacity.as_ref().err().cloned(),
            capacity_bytes: capacity.ok(),
            path: self.held.path,
        }
    }
}

/// By what a file is: device and inode, or the device that a node stands for.
type HeldFiles = BTreeMap<Key, Held>;

#[cfg(test)]
mod tests;
