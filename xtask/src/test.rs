//! `cargo xtask test`: every test there is, and an honest count.
//!
//! Tests that start the real agent need root; where xtask is not root, cargo runs the test programs through sudo and
//! compiles as the user. A test that cannot run on this machine returns early and appends `SKIPPED <test>: <why>` to
//! the file that `KVMETER_SKIP_LOG` names; it is then counted as skipped and not, as cargo does, as passed.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;

use crate::kernels;
use crate::setup::{self, Needs};
use crate::workspace::{Profile, Workspace, on_path, run};

/// The tests of one run; shown as the closing line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: usize,
}

impl fmt::Display for Tally {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// `cargo xtask test`.
pub(crate) fn command(workspace: &Workspace, filters: &[String]) -> Result<()> {
    let (tally, outcome) = test(workspace, filters)?;
    println!("\n{tally}");
    outcome?;
    if tally == Tally::default() {
        bail!("no test has a name that contains {}", filters.join(" or "));
    }
    Ok(())
}

/// Runs the tests: how many did what, and whether cargo was content.
pub(crate) fn test(workspace: &Workspace, filters: &[String]) -> Result<(Tally, Result<()>)> {
    setup::prepare(workspace, Needs { tests: true, ..Needs::default() })?;
    workspace.build(Profile::Dev)?;
    let log = workspace.target("skipped.log");
    fs::write(&log, "").with_context(|| format!("cannot write {}", log.display()))?;
    let mut command = workspace.cargo();
    command
        .args(["test", "--workspace", "--exclude", "kvmeter-ebpf", "--no-fail-fast", "--"])
        .args(filters)
        .env("KVMETER_SKIP_LOG", &log);
    drive(&mut command, workspace, Profile::Dev);
    let types = workspace.target(kernels::TYPES);
    if types.is_dir() {
        command.env("KVMETER_BTF_DIR", types);
    }
    as_root(&mut command)?;
    let (mut tally, mut outcome) = counted(&mut command)?;
    if filters.is_empty() {
        // Cargo features that are off by default, with the tests that need them.
        let mut command = workspace.cargo();
        command.args([
            "test",
            "--package",
            "kvmeter",
            "--lib",
            "--features",
            "statsd,otlp,nats",
            "--",
            "metrics::",
            "outlet::",
        ]);
        let (features, ended) = counted(&mut command)?;
        tally.passed += features.passed;
        tally.failed += features.failed;
        outcome = outcome.and(ended);
    }
    let text = fs::read_to_string(&log).with_context(|| format!("cannot read {}", log.display()))?;
    let skipped = skips(&text);
    for (name, why) in &skipped {
        println!("skipped: {name}: {why}");
    }
    tally.passed = tally.passed.saturating_sub(skipped.len());
    tally.skipped += skipped.len();
    Ok((tally, outcome))
}

/// Lets cargo start the test programs, and only these, through sudo.
fn as_root(command: &mut Command) -> Result<()> {
    if geteuid().is_root() {
        return Ok(());
    }
    if on_path("sudo").is_none() {
        println!("test: not root and no sudo: tests of the real agent will be skipped");
        return Ok(());
    }
    println!("test: tests of the real agent need root; using sudo");
    let path = std::env::var("PATH").context("PATH is not set")?;
    let (arch, runner) = (std::env::consts::ARCH, format!("sudo -E env PATH={path}"));
    for libc in ["gnu", "musl"] {
        let target = format!("{arch}_unknown_linux_{libc}").to_uppercase();
        command.env(format!("CARGO_TARGET_{target}_RUNNER"), &runner);
    }
    Ok(())
}

/// Says which agent and which test VM tests start.
fn drive(command: &mut Command, workspace: &Workspace, profile: Profile) {
    command
        .env("KVMETER_BIN", workspace.binary(profile, "kvmeter"))
        .env("KVMETER_TESTVM", workspace.binary(profile, "kvmeter-testvm"));
}

/// Long forms: tests that are ignored because they take minutes, of these test programs. `filters` choose among them, or
/// say how; `numbers` are variables that say how much.
pub(crate) fn long_form(
    workspace: &Workspace,
    profile: Profile,
    programs: &[&str],
    filters: &[&str],
    numbers: &[(&str, u64)],
) -> Result<()> {
    setup::prepare(workspace, Needs::default())?;
    workspace.build(profile)?;
    let mut command = workspace.cargo();
    command.args(["test", "--quiet", "--package", "kvmeter-tests"]);
    command.args(programs.iter().flat_map(|program| ["--test", program]));
    command.args(["--", "--ignored", "--nocapture"]).args(filters);
    command.envs(numbers.iter().map(|(name, number)| (name, number.to_string())));
    drive(&mut command, workspace, profile);
    as_root(&mut command)?;
    run(&mut command, &format!("the long form of {}", programs.join(" and ")))
}

/// Runs cargo, shows what it prints, and adds up its `test result:` lines.
fn counted(command: &mut Command) -> Result<(Tally, Result<()>)> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot run cargo")?;
    let (mut tally, mut failures) = (Tally::default(), Failures::default());
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).split(b'\n') {
            let line = line.context("cannot read what cargo prints")?;
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            add(&mut tally, &line);
            failures.take(&line);
        }
    }
    failures.show();
    let status = child.wait().context("cannot wait for cargo")?;
    let outcome = if status.success() { Ok(()) } else { Err(anyhow::anyhow!("`cargo test` ended with {status}")) };
    Ok((tally, outcome))
}

/// Which tests failed and with what words, said once more at the end: only the end of a long output is always kept.
#[derive(Default)]
struct Failures {
    told: Vec<String>,
    /// Lines still to take after a panic's headline.
    left: usize,
}

impl Failures {
    /// The most lines that are repeated.
    const MOST: usize = 120;

    fn take(&mut self, line: &str) {
        let failed = line.starts_with("test ") && line.ends_with("FAILED");
        if line.contains("panicked at ") || line.starts_with("Error: ") {
            self.left = 6;
        }
        if line.trim().is_empty() || line.starts_with("stack backtrace") {
            self.left = 0;
        }
        if (failed || self.left > 0) && self.told.len() < Self::MOST {
            self.told.push(line.chars().take(1_000).collect());
        }
        self.left = self.left.saturating_sub(1);
    }

    fn show(&self) {
        if !self.told.is_empty() {
            println!("\nwhat failed, once more:\n{}", self.told.join("\n"));
        }
    }
}

/// Adds a line such as `test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; …`.
fn add(tally: &mut Tally, line: &str) {
    let Some((_, counts)) = line.split_once("test result: ") else {
        return;
    };
    for part in counts.split(['.', ';']) {
        let mut words = part.split_whitespace();
        let (Some(Ok(number)), Some(what)) = (words.next().map(str::parse::<usize>), words.next()) else {
            continue;
        };
        match what {
            "passed" => tally.passed += number,
            "failed" => tally.failed += number,
            "ignored" => tally.skipped += number,
            _measured_or_filtered => {}
        }
    }
}

/// The tests that said they were skipped, once each.
fn skips(log: &str) -> BTreeMap<&str, &str> {
    let lines = log.lines().filter_map(|line| line.strip_prefix("SKIPPED "));
    lines.map(|line| line.split_once(": ").unwrap_or((line, "no reason given"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_added_up() {
        let mut tally = Tally::default();
        add(&mut tally, "running 3 tests");
        add(
            &mut tally,
            "test result: ok. 5 passed; 0 failed; 1 ignored; 7 measured; 9 filtered out; finished in 0.03s",
        );
        add(
            &mut tally,
            "test result: FAILED. 2 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.5s",
        );
        assert_eq!(tally.to_string(), "7 passed, 3 failed, 1 skipped");
    }

    #[test]
    fn a_failure_is_repeated_with_its_words_and_nothing_else() {
        let mut failures = Failures::default();
        for line in ["test a ... ok", "test b ... FAILED", "thread 'b' panicked at x.rs:1:2:", "left: 1", "", "noise"] {
            failures.take(line);
        }
        assert_eq!(failures.told, ["test b ... FAILED", "thread 'b' panicked at x.rs:1:2:", "left: 1"]);
    }

    #[test]
    fn a_test_is_skipped_once_however_often_it_says_so() {
        let found = skips("SKIPPED a::b: no /dev/kvm\nSKIPPED a::b: no /dev/kvm\nSKIPPED c\nother\n");
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [("a::b", "no /dev/kvm"), ("c", "no reason given")]);
    }
}
