//! The project's own test programs, those that `cargo xtask kernels` put into the machine, and each test's outcome.

use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};

use super::check::Verdict;

/// Tests that an emulated machine cannot show, and why.
const NOT_HERE: [(&str, &str, &str); 3] = [
    (
        "lifecycle",
        "a_vm_of_any_shape_is_one_life_with_all_its_cpu_time",
        "its truth lacks the last slice of each dead thread too, and it compares clocks to 2 ms, which a busy host stretches",
    ),
    (
        "adoption",
        "vms_that_ran_before_the_agent_have_their_true_start_and_all_their_cpu_time",
        "its truth, the process's CPU clock, lacks the last slice of each dead thread: 142 ms of 68 s for thousands on an emulated CPU",
    ),
    (
        "lifecycle",
        "a_kvm_vm_that_never_runs_gets_no_line",
        "its VM of 50 ms was over before it was ready on an emulated CPU; it waits for that now and was not tried here since",
    ),
];

/// Runs every program of a directory and tells each test's outcome; what they print is kept beside the results.
pub fn each(programs: &Path, results: &Path, mut tell: impl FnMut(&str, Result<Verdict>) -> Result<()>) -> Result<()> {
    let Ok(list) = fs::read_dir(programs) else { return Ok(()) };
    let mut paths = list.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    for path in paths {
        let suite = path.file_name().context("no name")?.to_string_lossy().into_owned();
        println!("kernelcheck: running {suite}");
        let (log, skips) = (results.join(format!("{suite}.log")), results.join(format!("{suite}.skipped")));
        let output = File::create(&log)?;
        let mut command = Command::new(&path);
        let left_out = NOT_HERE.iter().filter(|(program, ..)| *program == suite);
        for (_, test, why) in left_out {
            command.args(["--skip", test]);
            tell(&format!("test {suite}::{test}"), Ok(Verdict::Absent((*why).to_owned())))?;
        }
        command.arg("--test-threads=1").env("KVMETER_SKIP_LOG", &skips).stdin(Stdio::null());
        let status = command.stderr(output.try_clone()?).stdout(output).status()?;
        let text = fs::read_to_string(&log)?;
        let skipped = fs::read_to_string(&skips).unwrap_or_default();
        let outcomes = outcomes(&text);
        for (test, passed) in &outcomes {
            let why =
                skipped.lines().find_map(|line| line.strip_prefix("SKIPPED ")?.strip_prefix(test)?.strip_prefix(": "));
            let outcome = match (passed, why) {
                (true, Some(why)) => Ok(Verdict::Absent(why.to_owned())),
                (true, None) => Ok(Verdict::Holds(String::new())),
                (false, _) => Err(anyhow::anyhow!("see {suite}.log")),
            };
            tell(&format!("test {suite}::{test}"), outcome)?;
        }
        // A program may also end early, or badly after all its tests.
        if outcomes.is_empty() || outcomes.iter().all(|(_, passed)| *passed) != status.success() {
            tell(&format!("test {suite}"), Err(anyhow::anyhow!("ended with {status}, see {suite}.log")))?;
        }
    }
    Ok(())
}

/// `test NAME ... ok`, where what the test printed may stand between.
fn outcomes(text: &str) -> Vec<(String, bool)> {
    let mut found = Vec::new();
    let mut running = None;
    for line in text.lines() {
        if let Some((name, _)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) {
            running = Some(name.to_owned());
        }
        let end = line.rsplit(' ').next();
        if matches!(end, Some("ok" | "FAILED"))
            && let Some(name) = running.take()
        {
            found.push((name, end == Some("ok")));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_test_has_its_outcome_whatever_it_printed() {
        let text = "running 2 tests\ntest a ... spin: 3 ns\nok\ntest b ... FAILED\n\ntest result: FAILED. 1 passed";
        assert_eq!(outcomes(text), [("a".to_owned(), true), ("b".to_owned(), false)]);
    }
}
