//! A ledger as it lies in a metering directory: rotated files, the live one, and the manifest that has seen them. An
//! agent may write, rotate and remove meanwhile; what it does never looks like a fault.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;

use super::super::manifest::Manifest;
use super::super::scan::Scanner;
use super::super::{FILE_NAME, LOCK_NAME, Line, Listing, carry, files, is_written};
use super::{Anchor, Report, Verifier, verify_files};

/// How often the files are listed anew because retention took one of them away.
const TRIES: usize = 10;
const BUFFER_BYTES: usize = 1 << 17;

/// Verifies the ledger in a metering directory; a torn tail is a fault unless an agent holds its lock.
#[must_use]
pub fn verify_dir(dir: &Path) -> Report {
    // Asked before reading: a tail is "being written" only if a writer was there all along.
    let live = match is_written(dir) {
        Ok(live) => live,
        Err(e) => return Report::unreadable(format!("{}: {e}", dir.join(LOCK_NAME).display())),
    };
    let mut last = None;
    for _ in 0..TRIES {
        match once(dir, live) {
            Ok(report) => return report,
            Err(e) if e.kind() == io::ErrorKind::NotFound => last = Some(e),
            Err(e) => return Report::unreadable(format!("{}: {e}", dir.display())),
        }
    }
    Report::unreadable(format!(
        "{}: {}",
        dir.join(FILE_NAME).display(),
        last.map(|e| e.to_string()).unwrap_or_default()
    ))
}

/// Verifies one file of a ledger; a rotated one begins where its name says, behind lines that are not looked at.
#[must_use]
pub fn verify_file(path: &Path) -> Report {
    let first = path.file_name().and_then(|name| name.to_str()).and_then(files::first_of).filter(|first| *first > 1);
    let anchor = first.and_then(|first| {
        let raw = Scanner::new(BufReader::new(File::open(path).ok()?)).next_line().ok()??;
        Some(Anchor { seq: first - 1, prev: Line::parse(&raw.bytes).ok()?.prev })
    });
    verify_files(&[path.to_owned()], false, anchor.unwrap_or_default())
}

fn once(dir: &Path, live: bool) -> io::Result<Report> {
    // In this order: what the manifest names was there, and what is carried over is no more listed or still there.
    let manifest = Manifest::load(dir);
    let mut listing = Listing::of(dir)?;
    if listing.is_empty() {
        return Err(io::Error::from(io::ErrorKind::NotFound));
    }
    let removed = match carry::removed(dir) {
        Ok(removed) => removed,
        Err(error) => return Ok(Report::unreadable(error.chain())),
    };
    let gone = removed.as_ref().map_or(0, |removed| removed.last);
    listing.rotated.retain(|one| one.first > gone);
    let anchor = removed.map(|removed| Anchor { seq: removed.last, prev: removed.head });
    let mut verifier = Verifier::new(anchor.unwrap_or_default());
    for entry in manifest.iter().flat_map(|manifest| &manifest.files).filter(|entry| entry.first > gone) {
        if listing.rotated.iter().all(|one| one.first != entry.first) {
            verifier.report.lacks(&entry.name, "the manifest names this file, and it is not there".to_owned());
        }
        verifier.known.insert(entry.last, entry.head.clone());
    }
    let head = manifest.and_then(|manifest| manifest.head).filter(|head| head.seq > gone);
    verifier.known.extend(head.map(|head| (head.seq, head.sha256)));
    if listing.live.is_none() {
        verifier.report.lacks(FILE_NAME, "the live file is not there".to_owned());
    }
    let name = dir.join(FILE_NAME);
    listing.each(|path, file| {
        let is_live = live && path == name;
        verifier.read(&path.display().to_string(), BufReader::with_capacity(BUFFER_BYTES, file), is_live)
    })?;
    Ok(verifier.finish())
}
