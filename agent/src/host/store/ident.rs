//! Which file a path leads to: file system, inode, birth.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use nix::sys::{statfs::statfs, statvfs::statvfs};

use crate::storage::FileId;

/// File systems whose files others change unseen: NFS, CIFS, SMB2, Ceph, FUSE (and virtiofs), 9p, AFS, GFS2, OCFS2, Lustre.
const REMOTE: [u64; 10] = [
    0x6969,
    0xff53_4d42,
    0xfe53_4d42,
    0x00c3_6400,
    0x6573_5546,
    0x0102_1997,
    0x5346_414f,
    0x0116_1970,
    0x7461_636f,
    0x0bd0_0bd0,
];

/// The id of a file whose metadata `path` led to.
///
/// # Errors
/// The system's, of the file system.
pub fn file_id(path: &Path, stat: &Metadata) -> io::Result<FileId> {
    Ok(with_fsid(fsid(path, stat.dev())?, stat))
}

/// As [`file_id`] where the file system is known.
pub(super) fn with_fsid(fsid: u64, stat: &Metadata) -> FileId {
    let born = stat.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
    let birth_ns = born.and_then(|born| u64::try_from(born.as_nanos()).ok()).unwrap_or(0);
    FileId { fsid, inode: stat.ino(), birth_ns }
}

/// The id of the file system at `path`, whose device is `dev`.
pub(super) fn fsid(path: &Path, dev: u64) -> io::Result<u64> {
    let told = statvfs(path).map_err(io::Error::from)?.filesystem_id();
    Ok(if told == 0 { dev } else { told })
}

/// Whether the file system at `path` changes without this kernel's doing.
pub(super) fn is_remote(path: &Path) -> bool {
    let magic = statfs(path).map(|stat| stat.filesystem_type().0.cast_unsigned() & 0xffff_ffff);
    magic.is_ok_and(|magic| REMOTE.contains(&magic))
}
