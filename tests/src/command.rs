//! The `kvmeter` command: where it is, what it said, and how it ended.

use std::{
    io::Write as _,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, Result, ensure};

/// The agent's binary: what `KVMETER_BIN` names, else the one built beside the running test.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("KVMETER_BIN") {
        return Ok(path.into());
    }
    let this = std::env::current_exe().context("where is this test?")?;
    let found = this.ancestors().skip(1).take(2).map(|folder| folder.join("kvmeter")).find(|path| path.is_file());
    found.context("no kvmeter binary beside the test; run `cargo xtask test`, or `cargo build` first")
}

/// `kvmeter` without an environment, without an agent.
pub fn kvmeter(args: &[&str]) -> Result<Output> {
    with_env(args, &[])
}

/// `kvmeter` with this environment.
pub fn with_env(args: &[&str], env: &[(&str, &str)]) -> Result<Output> {
    let mut command = Command::new(binary()?);
    Ok(command.args(args).env_clear().envs(env.iter().copied()).stdin(Stdio::null()).output()?)
}

/// `kvmeter` with this on standard input.
pub fn fed(args: &[&str], input: &[u8]) -> Result<Output> {
    let mut command = Command::new(binary()?);
    command.args(args).env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    child.stdin.take().context("no stdin")?.write_all(input)?;
    Ok(child.wait_with_output()?)
}

/// What it said on standard output.
#[must_use]
pub fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What it said on standard error.
#[must_use]
pub fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// An error that shows what it said, unless it ended with this code.
pub fn code(output: &Output, expected: i32) -> Result<()> {
    ensure!(
        output.status.code() == Some(expected),
        "{expected} expected: {}\n{}{}",
        output.status,
        out(output),
        err(output)
    );
    Ok(())
}

/// One line on standard error that begins with the program, and nothing on standard output.
pub fn one_chain(output: &Output) -> Result<String> {
    let said = err(output);
    ensure!(
        said.lines().count() == 1 && said.starts_with("kvmeter: ") && output.stdout.is_empty(),
        "no single chain: {said}{}",
        out(output)
    );
    // No cause is told twice.
    let parts: Vec<_> = said.trim().split(": ").collect();
    let mut unique = parts.clone();
    unique.sort_unstable();
    unique.dedup();
    ensure!(unique.len() == parts.len(), "a part of the chain is there twice: {said}");
    Ok(said)
}
