//! What became of the agent's kernel programs, by `kvmeter doctor --json`.

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::check::Verdict;
use crate::command::{err, kvmeter};

/// How doctor begins the reason of a program that was not tried: the kernel lacks what it needs.
const NOT_TRIED: &str = "not loaded: ";

/// Doctor's answer.
#[derive(Debug)]
pub struct Programs(Vec<Program>);

#[derive(Debug)]
struct Program {
    name: String,
    at_work: bool,
    why: String,
    gives: String,
}

impl Programs {
    /// Asks doctor, which loads all of them for a moment.
    pub fn ask() -> Result<Self> {
        let output = kvmeter(&["doctor", "--json"])?;
        let answer: Value =
            serde_json::from_slice(&output.stdout).with_context(|| format!("doctor: {}", err(&output)))?;
        let text = |feature: &Value, key: &str| feature[key].as_str().unwrap_or_default().to_owned();
        // A program is what names its hook, at work or not.
        let features = answer["features"].as_array().context("no features")?.iter();
        let listed = features.map(|feature| Program {
            name: text(feature, "name"),
            at_work: feature["available"] == true,
            why: text(feature, "why"),
            gives: text(feature, "gives"),
        });
        Ok(Self(listed.collect()))
    }

    /// Each feature, and whether it is at work. What the kernel refused, and not the agent, is a failure.
    pub fn each(&self) -> impl Iterator<Item = (&str, Result<Verdict>)> {
        self.0.iter().map(|program| (program.name.as_str(), program.verdict()))
    }

    /// Why a measurement may be absent: the agent has no such program, or says why it is not at work.
    pub fn absence(&self, name: &str) -> Option<String> {
        match self.0.iter().find(|program| program.name == name) {
            None => Some(format!("this agent has no program {name}")),
            Some(program) => (!program.at_work).then(|| format!("{name}: {}", program.why)),
        }
    }
}

impl Program {
    fn verdict(&self) -> Result<Verdict> {
        if self.at_work {
            Ok(Verdict::Holds(self.gives.clone()))
        } else if let Some(why) = self.why.strip_prefix(NOT_TRIED) {
            Ok(Verdict::Absent(why.to_owned()))
        } else {
            bail!("{}", self.why)
        }
    }
}
