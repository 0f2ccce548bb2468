//! What one kernel showed: the outcome of each check, from the lines that `kvmeter-kernelcheck` wrote.

use std::fmt;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::parcel::Files;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    Absent(String),
    Failed(String),
}

/// One kernel's outcomes, in the order of the checks.
#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) series: String,
    pub(crate) release: String,
    pub(crate) outcomes: Vec<(String, Outcome)>,
}

impl Column {
    /// From a machine's files.
    pub(crate) fn new(series: &str, release: &str, files: &Files) -> Result<Self> {
        let lines = files.get("checks.jsonl").context("the machine brought no checks.jsonl")?;
        let lines = String::from_utf8_lossy(lines).into_owned();
        let outcomes = lines.lines().map(outcome).collect::<Result<Vec<_>>>()?;
        if outcomes.is_empty() {
            bail!("no check was made");
        }
        Ok(Self { series: series.to_owned(), release: release.to_owned(), outcomes })
    }

    pub(crate) fn outcome(&self, check: &str) -> Option<&Outcome> {
        self.outcomes.iter().find(|(name, _)| name == check).map(|(_, outcome)| outcome)
    }

    /// What failed, a line each.
    pub(crate) fn failures(&self) -> impl Iterator<Item = String> {
        self.outcomes.iter().filter_map(|(name, outcome)| match outcome {
            Outcome::Failed(why) => Some(format!("{}: {name}: {why}", self.series)),
            Outcome::Passed | Outcome::Absent(_) => None,
        })
    }
}

impl fmt::Display for Column {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |wanted: fn(&Outcome) -> bool| self.outcomes.iter().filter(|(_, outcome)| wanted(outcome)).count();
        write!(
            out,
            "{} checks passed, {} absent, {} failed",
            count(|outcome| *outcome == Outcome::Passed),
            count(|outcome| matches!(outcome, Outcome::Absent(_))),
            count(|outcome| matches!(outcome, Outcome::Failed(_)))
        )
    }
}

fn outcome(line: &str) -> Result<(String, Outcome)> {
    let value: Value = serde_json::from_str(line).with_context(|| format!("not a check's line: {line}"))?;
    let text = |key: &str| value[key].as_str().map(str::to_owned).with_context(|| format!("no {key}: {line}"));
    let outcome = match text("outcome")?.as_str() {
        "pass" => Outcome::Passed,
        "absent" => Outcome::Absent(text("detail")?),
        "fail" => Outcome::Failed(text("detail")?),
        _unknown => bail!("no outcome: {line}"),
    };
    Ok((text("name")?, outcome))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_without_a_known_outcome_is_an_error() {
        let line = r#"{"name":"n","outcome":"absent","detail":"d"}"#;
        assert_eq!(outcome(line).unwrap(), ("n".to_owned(), Outcome::Absent("d".to_owned())));
        assert!(outcome(&line.replace("absent", "maybe")).is_err());
        assert!(Column::new("1", "1.0", &Files::new()).is_err());
    }
}
