//! What it means that a file is not where it was: gone for certain, or out of sight.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::ident::{file_id, fsid};
use crate::storage::{FileId, FileState};

/// Looks for a file by its path alone.
pub(super) fn look(id: &FileId, path: &Path) -> FileState {
    match fs::symlink_metadata(path) {
        Ok(stat) => match file_id(path, &stat) {
            Ok(found) if found == *id => FileState::There,
            Ok(_) => nearest(id, path),
            Err(error) => FileState::Unknown(error.to_string()),
        },
        Err(error) if is_absence(&error) => nearest(id, path),
        Err(error) => FileState::Unknown(error.to_string()),
    }
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The nearest directory that is there: if it is on the file's own file system, the file has no name there any more; if
/// not, that file system is not mounted, and nothing is known.
fn nearest(id: &FileId, path: &Path) -> FileState {
    for dir in path.ancestors().skip(1) {
        let stat = match fs::metadata(dir) {
            Ok(stat) if stat.is_dir() => stat,
            Ok(_) => continue,
            Err(error) if is_absence(&error) => continue,
            Err(error) => return FileState::Unknown(format!("{}: {error}", dir.display())),
        };
        return match fsid(dir, stat.dev()) {
            Ok(found) if found == id.fsid => {
                // The change time, which nobody can set.
                let seconds = u64::try_from(stat.ctime()).unwrap_or(0);
                let nanos = u64::try_from(stat.ctime_nsec()).unwrap_or(0);
                FileState::Gone { by_unix_ns: seconds.saturating_mul(1_000_000_000).saturating_add(nanos) }
            }
            Ok(_) => FileState::Unknown(format!("its file system is not mounted at {}", dir.display())),
            Err(error) => FileState::Unknown(format!("{}: {error}", dir.display())),
        };
    }
    FileState::Unknown("no directory of its path can be looked at".to_owned())
}
