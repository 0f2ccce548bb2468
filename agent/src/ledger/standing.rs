//! What stands in a metering directory when a ledger is opened: the manifest, what was removed, the files. Finishes what
//! a crash left half done, and says what others took away. Until all of it is found right nothing else is changed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::carry::{self, Removed};
use super::error::{LedgerError, LineError, Op};
use super::files::{self, Rotated};
use super::manifest::{Entry, Manifest};
use super::recover::Recovery;
use super::scan::Scanner;
use super::store::NEXT_NAME;
use super::{FILE_NAME, Line, Recovered, torn};

/// The directory before the live file is opened.
pub(super) struct Before {
    manifest: Option<Manifest>,
    removed: Option<Removed>,
    rotated: Vec<Rotated>,
}

impl Before {
    /// Looks at it and tidies up.
    pub(super) fn look(dir: &Path) -> Result<Self, LedgerError> {
        let io = |source| LedgerError::Io { doing: "list", path: dir.to_owned(), op: Op::Open, source };
        let manifest = Manifest::load(dir);
        let removed = carry::removed(dir)?;
        let rotated = files::rotated(dir).map_err(io)?;
        let before = Self { manifest, removed, rotated };
        before.is_complete(dir)?;
        before.goes_on(dir)?;
        before.tidy(dir)
    }

    /// Whether all files are there that somebody has seen.
    fn is_complete(&self, dir: &Path) -> Result<(), LedgerError> {
        let live = dir.join(FILE_NAME);
        let is_old = self.manifest.is_some() || self.removed.is_some() || !self.rotated.is_empty();
        if is_old && matches!(fs::symlink_metadata(&live), Err(e) if e.kind() == io::ErrorKind::NotFound) {
            return Err(LedgerError::Missing { path: live });
        }
        let named = self.manifest.iter().flat_map(|manifest| &manifest.files);
        let mut due = named.filter(|entry| self.removed.as_ref().is_none_or(|removed| entry.first > removed.last));
        match due.find(|entry| self.rotated.iter().all(|one| one.first != entry.first)) {
            Some(entry) => Err(LedgerError::Missing { path: dir.join(&entry.name) }),
            None => Ok(()),
        }
    }

    /// Whether the lines behind those that were removed are the next ones of the same chain; only then is a file's
    /// removal believed to have been decided.
    fn goes_on(&self, dir: &Path) -> Result<(), LedgerError> {
        let Some(removed) = &self.removed else { return Ok(()) };
        let due = removed.last.saturating_add(1);
        let named = self.rotated.iter().find(|one| one.first == due).map(|one| one.path.clone());
        let path = named.unwrap_or_else(|| dir.join(FILE_NAME));
        let io = |source| LedgerError::Io { doing: "read", path: path.clone(), op: Op::Open, source };
        let mut scanner = Scanner::new(BufReader::new(File::open(&path).map_err(io)?));
        let Some(raw) = scanner.next_line().map_err(io)?.filter(|raw| raw.complete) else { return Ok(()) };
        let follows = || {
            let line = Line::parse(&raw.bytes)?;
            if line.seq != due {
                return Err(LineError::Seq { expected: due, found: line.seq });
            }
            if line.prev != removed.head {
                return Err(LineError::Prev { expected: removed.head.clone(), found: line.prev });
            }
            Ok(())
        };
        follows().map_err(|source| LedgerError::Damaged { path: path.clone(), line: 1, offset: 0, source })
    }

    /// Takes away what a crash left: a file that was to be the next, the second name of the live one, and files whose
    /// removal was decided.
    fn tidy(mut self, dir: &Path) -> Result<Self, LedgerError> {
        let mut gone = vec![dir.join(NEXT_NAME)];
        let live = fs::symlink_metadata(dir.join(FILE_NAME)).ok().map(|meta| (meta.dev(), meta.ino()));
        self.rotated.retain(|one| {
            let own = fs::symlink_metadata(&one.path).ok().map(|meta| (meta.dev(), meta.ino()));
            let is_over = self.removed.as_ref().is_some_and(|removed| one.first <= removed.last);
            let stays = !is_over && (own.is_none() || own != live);
            if !stays {
                gone.push(one.path.clone());
            }
            stays
        });
        let mut any = false;
        for path in gone {
            match fs::remove_file(&path) {
                Ok(()) => any = true,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(LedgerError::Io { doing: "remove", path, op: Op::Write, source }),
            }
        }
        if any {
            torn::sync_dir(dir)?;
        }
        Ok(self)
    }

    /// The reading, behind what was removed.
    pub(super) fn begin(&self, dir: &Path) -> Result<Recovery, LedgerError> {
        let head = self.manifest.as_ref().and_then(|manifest| manifest.head.clone());
        let due = head.filter(|head| self.removed.as_ref().is_none_or(|removed| head.seq > removed.last));
        let mut recovery = Recovery::new(due);
        recovery.carried(dir)?;
        Ok(recovery)
    }

    /// Reads the files that are no more written, and holds each against the manifest.
    pub(super) fn read(&self, dir: &Path, recovery: &mut Recovery) -> Result<Vec<Entry>, LedgerError> {
        let named = self.manifest.iter().flat_map(|manifest| &manifest.files);
        let named: BTreeMap<&str, &Entry> = named.map(|entry| (entry.name.as_str(), entry)).collect();
        let mut entries = Vec::with_capacity(self.rotated.len());
        for one in &self.rotated {
            let io = |source| LedgerError::Io { doing: "open", path: one.path.clone(), op: Op::Open, source };
            let file = File::open(&one.path).map_err(io)?;
            let found = recovery.sealed(BufReader::with_capacity(1 << 17, file), &one.path)?;
            let altered = || LedgerError::Altered { path: one.path.clone() };
            let entry = found.filter(|entry| dir.join(&entry.name) == one.path).ok_or_else(altered)?;
            if named.get(entry.name.as_str()).is_some_and(|known| **known != entry) {
                return Err(altered());
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    /// The id that was drawn for a ledger whose first line was never written.
    pub(super) fn drawn(&self) -> Option<String> {
        let manifest = self.manifest.as_ref()?;
        (manifest.head.is_none() && manifest.files.is_empty()).then(|| manifest.ledger.clone())
    }

    /// Whether the manifest is about this ledger.
    pub(super) fn belongs(&self, dir: &Path, found: &Recovered) -> Result<(), LedgerError> {
        match &self.manifest {
            Some(manifest) if manifest.head.is_some() && manifest.ledger != found.ledger_id => {
                Err(LedgerError::Altered { path: dir.join(FILE_NAME) })
            }
            _ => Ok(()),
        }
    }
}
