//! Which file: `<fsid>:<inode>:<birth_ns>`, the `storage_id` of what is no VM's. Names come and go, and an inode's
//! number is used again; the instant of its birth makes it unique.

use std::fmt;
use std::str::FromStr;

/// One file of one file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId {
    /// `f_fsid` of its file system; the device's number where that is 0.
    pub fsid: u64,
    /// Inode number.
    pub inode: u64,
    /// Birth (`stx_btime`), Unix nanoseconds; 0 where the file system keeps none.
    pub birth_ns: u64,
}

/// Text that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no <fsid>:<inode>:<birth_ns>")]
pub struct ParseFileIdError(pub String);

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}:{}:{}", self.fsid, self.inode, self.birth_ns)
    }
}

impl FromStr for FileId {
    type Err = ParseFileIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let mut parts = text.split(':');
            let fsid = u64::from_str_radix(parts.next()?, 16).ok()?;
            let (inode, birth_ns) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
            parts.next().is_none().then_some(Self { fsid, inode, birth_ns })
        };
        // One spelling each: another one would be another subject in the ledger.
        read().filter(|id| id.to_string() == text).ok_or_else(|| ParseFileIdError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_id_reads_back_in_one_spelling_only(fsid: u64, inode: u64, birth_ns: u64, text in "[0-9a-fA-F:+]{0,12}") {
            let id = FileId { fsid, inode, birth_ns };
            prop_assert_eq!(id.to_string().parse(), Ok(id));
            if let Ok(id) = text.parse::<FileId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
