//! What a machine told of its ledger before the power went: lines that were shown as durable, by number and hash, and up
//! to which number they were acknowledged, so that they may have been removed.
//!
//! `tests/src/kernelcheck/power.rs` tells it, on the console.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

/// How such a line of the console begins.
const OURS: &str = "power: ";
/// How the machine says what went wrong.
const TROUBLE: &str = "kernelcheck: ";
pub(crate) const HASH_DIGITS: usize = 16;

/// How far a machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mark {
    /// Its disk is mounted.
    Mounted,
    /// Its VMs run, and lines of them were told.
    Busy,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    /// By number, how the SHA-256 begins.
    pub(crate) lines: BTreeMap<u64, String>,
    /// The newest line that a reader has said to need no more, or was about to.
    pub(crate) acknowledged: u64,
}

impl Told {
    /// The newest line.
    pub(crate) fn newest(&self) -> u64 {
        self.lines.last_key_value().map_or(0, |(seq, _)| *seq)
    }

    /// Takes a line of the console. One that is not whole, as the last before a cut, tells nothing.
    ///
    /// # Errors
    /// The machine says that it cannot go on, or tells two lines of one number.
    pub(crate) fn take(&mut self, line: &str) -> Result<Option<Mark>> {
        if let Some(trouble) = line.strip_prefix(TROUBLE) {
            bail!("the machine says: {trouble}");
        }
        let Some(what) = line.strip_prefix(OURS) else { return Ok(None) };
        let words: Vec<_> = what.split_whitespace().collect();
        match words[..] {
            ["mounted"] => return Ok(Some(Mark::Mounted)),
            ["busy"] => return Ok(Some(Mark::Busy)),
            ["line", seq, hash] if hash.len() == HASH_DIGITS => {
                let Ok(seq) = seq.parse() else { return Ok(None) };
                let before = self.lines.insert(seq, hash.to_owned());
                if before.is_some_and(|before| before != hash) {
                    bail!("line {seq} was shown as durable with two contents");
                }
            }
            ["acknowledge", seq] => self.acknowledged = self.acknowledged.max(seq.parse().unwrap_or(0)),
            _ => {}
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_told_whole_or_not_at_all_and_never_with_two_contents() {
        let (hash, other) = ("a".repeat(HASH_DIGITS), "b".repeat(HASH_DIGITS));
        let mut told = Told::default();
        assert_eq!(told.take("power: mounted\r").unwrap(), Some(Mark::Mounted));
        for line in [format!("power: line 7 {hash}\r"), "power: line 8 aaa".to_owned(), format!("line 9 {hash}")] {
            assert_eq!(told.take(&line).unwrap(), None);
        }
        told.take("power: acknowledge 5").unwrap();
        assert_eq!((told.newest(), told.acknowledged, told.lines.len()), (7, 5, 1));
        assert!(told.take(&format!("power: line 7 {other}")).is_err());
        assert!(told.take("kernelcheck: no disk").is_err());
    }
}
