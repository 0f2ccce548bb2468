//! Patterns of file names in a pool, such as `{vm_id}-{disk}.qcow2` or `{vm_id}/{snapshot_id}.mem`.
//!
//! A pattern is a path from the pool's directory, at most four names deep. `{vm_id}` stands for a vm_id (a UUID in any
//! case, told in lower case), `{vm_id:uuid}` for one that is a UUID, `{snapshot_id}` for a snapshot's id, `{disk}` for
//! any text but none, `*` for any text. Each takes as much as it can, from the left, and never a `/`. All else stands
//! for itself. Two that touch would leave open where one ends, so something must stand between them.

use std::fmt;

/// Names that a pattern may be deep.
pub const MAX_DEPTH: usize = 4;
/// Bytes of a pattern.
const MAX_BYTES: usize = 512;
/// Pieces of one name.
const MAX_PIECES: usize = 16;
/// Bytes of a file's name; Linux allows no more.
const MAX_NAME: usize = 255;
/// Bytes of a snapshot's id.
const MAX_SNAPSHOT: usize = 128;
const MAX_VM: usize = 64;
const UUID: usize = 36;

/// What a pattern's files are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    /// A VM's disk, or an image of none.
    Image,
    /// A snapshot.
    Snapshot,
}

/// What a file's name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// What it is.
    pub is: Use,
    /// Whose; empty if nobody's.
    pub vm_id: String,
    /// Of a snapshot its id; empty for an image.
    pub snapshot_id: String,
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Empty, or too long.
    #[error("must have 1 to {MAX_BYTES} bytes")]
    Length,
    /// Absolute, `.`, `..` or an empty name in it.
    #[error("must be a path below the pool's directory, without empty names, `.` and `..`")]
    Path,
    /// Too many names.
    #[error("must be at most {MAX_DEPTH} names deep")]
    Depth,
    /// Too many pieces.
    #[error("must have at most {MAX_PIECES} pieces in each name")]
    Pieces,
    /// An unknown placeholder.
    #[error("{{{0}}} is none of {{vm_id}}, {{vm_id:uuid}}, {{snapshot_id}}, {{disk}}")]
    Unknown(String),
    /// A brace without its other half.
    #[error("a brace without its other half")]
    Brace,
    /// Two placeholders with nothing between.
    #[error("two placeholders touch: nothing says where the first ends")]
    Touching,
    /// The same one twice in one name.
    #[error("a placeholder stands twice in one name")]
    Twice,
    /// A snapshot without its id.
    #[error("a pattern of snapshots must have {{snapshot_id}}")]
    NoSnapshot,
    /// An image with a snapshot's id.
    #[error("a pattern of images has no {{snapshot_id}}: what has one is a snapshot")]
    Snapshot,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hole {
    Vm,
    VmUuid,
    Snapshot,
    Disk,
    Any,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Hole(Hole),
}

/// A pattern, ready to be matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    is: Use,
    names: Vec<Vec<Piece>>,
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Pattern {
    /// Reads one.
    ///
    /// # Errors
    /// [`PatternError`] says which rule it breaks.
    pub fn parse(text: &str, is: Use) -> Result<Self, PatternError> {
        if !(1..=MAX_BYTES).contains(&text.len()) {
            return Err(PatternError::Length);
        }
        let names: Vec<&str> = text.split('/').collect();
        if names.iter().any(|name| matches!(*name, "" | "." | "..")) || text.contains('\0') {
            return Err(PatternError::Path);
        }
        if names.len() > MAX_DEPTH {
            return Err(PatternError::Depth);
        }
        let names = names.into_iter().map(pieces).collect::<Result<Vec<_>, _>>()?;
        let named = names.iter().flatten().any(|piece| *piece == Piece::Hole(Hole::Snapshot));
        match (is, named) {
            (Use::Snapshot, false) => Err(PatternError::NoSnapshot),
            (Use::Image, true) => Err(PatternError::Snapshot),
            _ => Ok(Self { text: text.to_owned(), is, names }),
        }
    }

    /// What a path, from the pool's directory, says; `None` if it does not fit.
    #[must_use]
    pub fn read(&self, path: &[&str]) -> Option<Name> {
        if path.len() != self.names.len() {
            return None;
        }
        let mut name = Name { is: self.is, vm_id: String::new(), snapshot_id: String::new() };
        self.fit(path, &mut name).then_some(name)
    }

    /// Whether files below this directory can fit.
    #[must_use]
    pub fn enters(&self, dir: &[&str]) -> bool {
        let mut name = Name { is: self.is, vm_id: String::new(), snapshot_id: String::new() };
        dir.len() < self.names.len() && self.fit(dir, &mut name)
    }

    fn fit(&self, path: &[&str], name: &mut Name) -> bool {
        path.iter().zip(&self.names).all(|(text, pieces)| {
            let Some(found) = fill(pieces, text) else { return false };
            found.into_iter().all(|(hole, text)| {
                let (place, text) = match hole {
                    Hole::Vm | Hole::VmUuid => (&mut name.vm_id, canonical(text)),
                    Hole::Snapshot => (&mut name.snapshot_id, text.to_owned()),
                    Hole::Disk | Hole::Any => return true,
                };
                // A directory and a file in it name the same VM, or this is not what the pattern means.
                let same = place.is_empty() || *place == text;
                *place = text;
                same
            })
        })
    }
}

/// A UUID as the ledger has it.
fn canonical(text: &str) -> String {
    if is_uuid(text) { text.to_ascii_lowercase() } else { text.to_owned() }
}

fn is_uuid(text: &str) -> bool {
    let dash = |at: usize| matches!(at, 8 | 13 | 18 | 23);
    text.len() == UUID
        && text.bytes().enumerate().all(|(at, b)| if dash(at) { b == b'-' } else { b.is_ascii_hexdigit() })
}

fn pieces(name: &str) -> Result<Vec<Piece>, PatternError> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut rest = name;
    while let Some(at) = rest.find(['{', '}', '*']) {
        let (text, from) = rest.split_at(at);
        if !text.is_empty() {
            pieces.push(Piece::Text(text.to_owned()));
        }
        let (hole, after) = match from.strip_prefix('*') {
            Some(after) => (Hole::Any, after),
            None => {
                let inner = from.strip_prefix('{').ok_or(PatternError::Brace)?;
                let (word, after) = inner.split_once('}').ok_or(PatternError::Brace)?;
                (hole(word)?, after)
            }
        };
        if matches!(pieces.last(), Some(Piece::Hole(_))) {
            return Err(PatternError::Touching);
        }
        let same = |piece: &Piece| match (piece, hole) {
            (Piece::Hole(Hole::Vm | Hole::VmUuid), Hole::Vm | Hole::VmUuid) => true,
            (Piece::Hole(other), hole) => *other == hole && hole == Hole::Snapshot,
            _ => false,
        };
        if pieces.iter().any(same) {
            return Err(PatternError::Twice);
        }
        pieces.push(Piece::Hole(hole));
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.to_owned()));
    }
    if pieces.len() > MAX_PIECES { Err(PatternError::Pieces) } else { Ok(pieces) }
}

fn hole(word: &str) -> Result<Hole, PatternError> {
    match word {
        "vm_id" => Ok(Hole::Vm),
        "vm_id:uuid" => Ok(Hole::VmUuid),
        "snapshot_id" => Ok(Hole::Snapshot),
        "disk" => Ok(Hole::Disk),
        _ => Err(PatternError::Unknown(word.chars().take(64).collect())),
    }
}

/// How many bytes of `text` a placeholder may take: at least, at most.
fn room(hole: Hole, text: &str) -> (usize, usize) {
    let run = |allowed: fn(u8) -> bool, most: usize| text.bytes().take(most).take_while(|b| allowed(*b)).count();
    match hole {
        Hole::Vm => (1, run(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b), MAX_VM)),
        Hole::VmUuid => (UUID, text.get(..UUID).filter(|t| is_uuid(t)).map_or(0, str::len)),
        Hole::Snapshot => (1, run(|b| b.is_ascii_alphanumeric() || b"._:@+~=,-".contains(&b), MAX_SNAPSHOT)),
        Hole::Disk => (1, text.len()),
        Hole::Any => (0, text.len()),
    }
}

/// What each placeholder stands for; `None` if the name does not fit.
fn fill<'a>(pieces: &[Piece], name: &'a str) -> Option<Vec<(Hole, &'a str)>> {
    if name.len() > MAX_NAME || pieces.len() > MAX_PIECES {
        return None;
    }
    // From the end: from which places the rest of the pieces fit, so that nothing is tried twice.
    let mut fits = vec![vec![false; name.len() + 1]; pieces.len() + 1];
    fits[pieces.len()][name.len()] = true;
    for (at, piece) in pieces.iter().enumerate().rev() {
        for from in (0..=name.len()).filter(|from| name.is_char_boundary(*from)) {
            fits[at][from] = longest(piece, name, from, &fits[at + 1]).is_some();
        }
    }
    let (mut from, mut found) = (0, Vec::new());
    for (at, piece) in pieces.iter().enumerate() {
        let length = longest(piece, name, from, &fits[at + 1])?;
        if let Piece::Hole(hole) = piece {
            found.push((*hole, name.get(from..from + length)?));
        }
        from += length;
    }
    (from == name.len()).then_some(found)
}

/// The longest stretch from `from` on that a piece takes and after which the rest fits.
fn longest(piece: &Piece, name: &str, from: usize, rest: &[bool]) -> Option<usize> {
    let text = name.get(from..)?;
    match piece {
        Piece::Text(literal) => text.starts_with(literal.as_str()).then_some(literal.len()).filter(|l| rest[from + l]),
        Piece::Hole(hole) => {
            let (least, most) = room(*hole, text);
            (least..=most).rev().find(|length| rest[from + length])
        }
    }
}

#[cfg(test)]
mod tests;
