//! What a cut left of a ledger, held against what had been told: every line that was shown as durable is there as it was,
//! or was removed after it had been acknowledged; what is torn is at the end, is cut by the next opening, and is told.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::told::{HASH_DIGITS, Told};

/// The file that lines are appended to.
pub(crate) const LIVE: &str = "ledger.jsonl";

/// The agent's programs, which run here as they ran in the machine.
#[derive(Debug)]
pub(crate) struct Programs {
    pub(crate) kvmeter: PathBuf,
    /// Opens a ledger with the agent's own code and writes on.
    pub(crate) cycle: PathBuf,
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// Lines that had been told, and were there.
    pub(crate) kept: u64,
    /// Lines that had been told and acknowledged, and were removed.
    pub(crate) removed: u64,
    /// Whole lines that had not been told yet.
    pub(crate) more: u64,
    /// Bytes of a torn end.
    pub(crate) torn: u64,
    /// Whether whole lines were behind what was torn.
    pub(crate) holes: bool,
}

/// A ledger as its files have it, read by nobody's code but this.
#[derive(Debug, Default)]
struct Ledger {
    /// By number, how the SHA-256 begins.
    lines: BTreeMap<u64, String>,
    /// What is behind the last whole line of those that follow each other.
    torn: Vec<u8>,
    /// Numbers and told lengths of lines that tell of a torn end.
    recovered: Vec<(u64, u64)>,
}

/// Judges a metering directory, and goes on writing in it.
pub(crate) fn judge(metering: Option<&Path>, told: &Told, programs: &Programs) -> Result<Verdict> {
    let Some(dir) = metering else {
        ensure!(told.lines.is_empty(), "there is no ledger, and {} lines were told", told.lines.len());
        return Ok(Verdict::default());
    };
    let before = Ledger::read(dir)?;
    let mut verdict = before.holds(told)?;
    verdict.torn = before.torn.len() as u64;
    verdict.holes = before.torn.contains(&b'\n');
    // Where there is no file yet there is nothing to prove.
    if dir.join(LIVE).exists() {
        let proof = verify(dir, programs)?;
        ensure!(
            proof.is_ok() != (verdict.torn > 0),
            "{} bytes are torn, and before the next start verify says: {proof:?}",
            verdict.torn
        );
    }
    let acks = dir.with_extension("acks");
    let ran = Command::new(&programs.cycle).arg(dir).arg(&acks).output().context("cannot open the ledger again")?;
    ensure!(ran.status.success(), "it cannot be gone on with: {}", String::from_utf8_lossy(&ran.stderr).trim());
    let after = Ledger::read(dir)?;
    verify(dir, programs)?.map_err(|said| anyhow::anyhow!("after the next start verify says: {said}"))?;
    ensure!(after.torn.is_empty(), "{} bytes are torn after the next start", after.torn.len());
    after.holds(told).context("after the next start")?;
    // A removal that was decided is finished by the next start.
    let known = Told { lines: before.lines.clone(), acknowledged: told.acknowledged };
    after.holds(&known).context("of what was there after the cut, after the next start")?;
    before.is_told_in(&after, dir)?;
    Ok(verdict)
}

/// `kvmeter ledger verify`: what it prints, as an error where it finds a fault.
fn verify(dir: &Path, programs: &Programs) -> Result<Result<String, String>> {
    let mut command = Command::new(&programs.kvmeter);
    let ran = command.env_clear().args(["ledger", "verify"]).arg(dir).output().context("cannot run kvmeter")?;
    let said = String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned();
    match ran.status.code() {
        Some(0) => Ok(Ok(said)),
        Some(3) => Ok(Err(said)),
        _other => bail!("verify ended with {}: {said}", ran.status),
    }
}

/// The rotated files of a directory, oldest first.
pub(crate) fn rotated(dir: &Path) -> Result<Vec<PathBuf>> {
    let list = fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    let names = list.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut found: Vec<_> = names.filter(|name| name.starts_with("ledger-") && name.ends_with(".jsonl")).collect();
    found.sort();
    Ok(found.into_iter().map(|name| dir.join(name)).collect())
}

/// How a line's SHA-256 begins, as the machine tells it.
fn hash(line: &[u8]) -> String {
    let digits: String = Sha256::digest(line).iter().map(|byte| format!("{byte:02x}")).collect();
    digits.chars().take(HASH_DIGITS).collect()
}

impl Ledger {
    /// Reads it. Only at its end may it be torn: the first line that is none, and all that is behind it.
    fn read(dir: &Path) -> Result<Self> {
        let (mut ledger, live, rotated) = (Self::default(), dir.join(LIVE), rotated(dir)?);
        let text = match fs::read(&live) {
            Err(error) if error.kind() == ErrorKind::NotFound && rotated.is_empty() => Vec::new(),
            other => other.with_context(|| format!("cannot read {}", live.display()))?,
        };
        for path in rotated {
            let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            if bytes == text {
                // The live file, under the name that it is going to have.
                continue;
            }
            let torn = ledger.take(&bytes)?;
            ensure!(torn.is_empty(), "{} is torn, and it is no more written", path.display());
        }
        ledger.torn = ledger.take(&text)?;
        Ok(ledger)
    }

    /// Takes whole lines that follow each other; what is left.
    fn take(&mut self, mut bytes: &[u8]) -> Result<Vec<u8>> {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let Ok(line) = serde_json::from_slice::<Value>(&bytes[..end]) else { break };
            let seq = line["seq"].as_u64().context("a line without a number")?;
            if let Some((last, _)) = self.lines.last_key_value() {
                ensure!(seq == last + 1, "behind line {last} is line {seq}");
            }
            if line["kind"] == "ledger.recovered" {
                let cut = line["cut_bytes"].as_str().and_then(|text| text.parse().ok());
                self.recovered.push((seq, cut.context("a recovery that tells no length")?));
            }
            self.lines.insert(seq, hash(&bytes[..end]));
            bytes = &bytes[end + 1..];
        }
        Ok(bytes.to_vec())
    }

    /// Whether every line that was told is there as it was, or was removed after it had been acknowledged.
    fn holds(&self, told: &Told) -> Result<Verdict> {
        let first = self.lines.first_key_value().map_or(u64::MAX, |(first, _)| *first);
        let mut verdict = Verdict::default();
        for (seq, hash) in &told.lines {
            match self.lines.get(seq) {
                Some(found) if found == hash => verdict.kept += 1,
                Some(_) => bail!("line {seq} was told and is another one"),
                None if *seq < first && *seq <= told.acknowledged => verdict.removed += 1,
                None => bail!(
                    "line {seq} was told and is lost: there are lines {first} to {}",
                    self.lines.last_key_value().map_or(0, |(last, _)| *last)
                ),
            }
        }
        verdict.more = self.lines.len() as u64 - verdict.kept;
        Ok(verdict)
    }

    /// Whether what was torn is told on the next line, and was kept aside.
    fn is_told_in(&self, after: &Self, dir: &Path) -> Result<()> {
        let next = self.lines.last_key_value().map_or(1, |(last, _)| last + 1);
        let told = after.recovered.iter().find(|(seq, _)| *seq == next).map_or(0, |(_, cut)| *cut);
        let length = self.torn.len() as u64;
        // An earlier start may have been cut off after it had saved its own torn end and before it told of it.
        ensure!(told >= length, "{length} bytes were torn, and line {next} tells of {told}");
        if length > 0 {
            let path = dir.join(format!("torn-{next}.bin"));
            let kept = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            ensure!(kept.len() as u64 == told && kept.ends_with(&self.torn), "{} has other bytes", path.display());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(seq: u64) -> String {
        format!("{{\"kind\":\"x\",\"seq\":{seq}}}")
    }

    fn ledger(text: &str) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.torn = ledger.take(text.as_bytes()).unwrap();
        ledger
    }

    fn told(seqs: &[u64], acknowledged: u64) -> Told {
        Told { lines: seqs.iter().map(|seq| (*seq, hash(line(*seq).as_bytes()))).collect(), acknowledged }
    }

    #[test]
    fn a_line_that_was_told_is_there_or_was_acknowledged_and_removed() {
        let whole = ledger(&format!("{}\n{}\n{}\n", line(3), line(4), line(5)));
        let verdict = whole.holds(&told(&[1, 2, 3, 4], 2)).unwrap();
        assert_eq!((verdict.kept, verdict.removed, verdict.more), (2, 2, 1));
        // Removed without having been acknowledged; lost at the end; another line of that number.
        assert!(whole.holds(&told(&[1, 2, 3], 1)).is_err());
        assert!(whole.holds(&told(&[5, 6], 9)).is_err());
        let mut other = told(&[4], 0);
        other.lines.insert(4, "0".repeat(HASH_DIGITS));
        assert!(whole.holds(&other).is_err());
        assert!(ledger("").holds(&told(&[1], 0)).is_err());
    }

    #[test]
    fn what_is_torn_is_all_behind_the_last_line_and_a_hole_in_the_numbers_is_no_tear() {
        assert_eq!(ledger(&format!("{}\n{{\"ki", line(1))).torn, b"{\"ki");
        assert_eq!(ledger(&format!("{}\n\0\0x\n{}\n", line(1), line(3))).torn.len(), 4 + line(3).len() + 1);
        assert!(Ledger::default().take(format!("{}\n{}\n", line(1), line(3)).as_bytes()).is_err());
    }

    #[test]
    fn a_tear_that_is_not_told_or_not_kept_is_an_error() {
        let dir = std::env::temp_dir().join(format!("xtask-power-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let torn = ledger(&format!("{}\nabc", line(1)));
        let after = |cut: u64| {
            let recovered = format!("{{\"kind\":\"ledger.recovered\",\"seq\":2,\"cut_bytes\":\"{cut}\"}}");
            ledger(&format!("{}\n{recovered}\n", line(1)))
        };
        assert!(torn.is_told_in(&after(3), &dir).is_err(), "not kept");
        fs::write(dir.join("torn-2.bin"), "abc").unwrap();
        assert!(torn.is_told_in(&after(3), &dir).is_ok());
        assert!(torn.is_told_in(&after(2), &dir).is_err(), "told too short");
        assert!(torn.is_told_in(&ledger(&format!("{}\n{}\n", line(1), line(2))), &dir).is_err(), "not told");
        fs::write(dir.join("torn-2.bin"), "abd").unwrap();
        assert!(torn.is_told_in(&after(3), &dir).is_err(), "kept wrong");
        fs::remove_dir_all(&dir).unwrap();
    }
}
