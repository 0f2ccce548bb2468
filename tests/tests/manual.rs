//! Law: the manual and what shells complete say what the commands take, all of them and nothing else.

use std::{
    collections::BTreeSet,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use kvmeter_tests::command::{code, err, kvmeter, out};
use tempfile::TempDir;

/// The commands that a help text lists, or the options it names.
fn listed(help: &str) -> (Vec<String>, BTreeSet<String>) {
    let below = |head: &str| {
        let lines = help.lines().skip_while(move |line| *line != head).skip(1);
        lines.take_while(|line| !line.is_empty()).map(str::trim).collect::<Vec<_>>()
    };
    let first = |line: &str| line.split_whitespace().next().unwrap_or_default().to_owned();
    let commands = below("Commands:").into_iter().map(first).filter(|name| name != "help").collect();
    let words = help.split(|c: char| c.is_whitespace() || ",[<".contains(c)).filter(|word| word.starts_with("--"));
    (
        commands,
        words
            .filter(|word| word.len() > 2)
            .map(|word| word.trim_end_matches([']', '.', ':', ';']).to_owned())
            .collect(),
    )
}

/// Every command with its help, from the root down.
fn every_command(path: &[&str], found: &mut Vec<(Vec<String>, String)>) -> Result<()> {
    let output = kvmeter(&[path, &["--help"]].concat())?;
    code(&output, 0)?;
    let help = out(&output);
    for name in listed(&help).0 {
        every_command(&[path, &[&name]].concat(), found)?;
    }
    found.push((path.iter().map(|&name| name.to_owned()).collect(), help));
    Ok(())
}

#[test]
fn each_command_has_a_page_that_names_its_options() -> Result<()> {
    let mut commands = Vec::new();
    every_command(&[], &mut commands)?;
    ensure!(commands.len() >= 20, "{commands:?}");
    let dir = TempDir::new()?;
    code(&kvmeter(&["man", "--dir", dir.path().to_str().context("no path")?])?, 0)?;
    for (command, help) in &commands {
        let words: Vec<&str> = ["man"].into_iter().chain(command.iter().map(String::as_str)).collect();
        let printed = kvmeter(&words)?;
        code(&printed, 0)?;
        let name = ["kvmeter"].into_iter().chain(command.iter().map(String::as_str)).collect::<Vec<_>>().join("-");
        let page = std::fs::read_to_string(dir.path().join(format!("{name}.1"))).with_context(|| name.clone())?;
        ensure!(page == out(&printed), "{name}: written and printed are two");
        let text = page.replace("\\-", "-");
        let example = help.lines().filter(|line| line.contains("xample")).count();
        let options = help.split("\n\nExample").next().unwrap_or_default();
        for option in listed(options).1 {
            ensure!(text.contains(&option), "{name} does not name {option}:\n{page}");
        }
        ensure!(example == 0 || text.contains("xample"), "{name} has no example");
    }
    let pages = std::fs::read_dir(&dir)?.count();
    assert_eq!(pages, commands.len(), "a page a command");
    let unknown = kvmeter(&["man", "ledger", "forge"])?;
    code(&unknown, 2)?;
    ensure!(err(&unknown).contains("ledger has no command \"forge\""), "{}", err(&unknown));
    let nowhere = kvmeter(&["man", "--dir", "/nonexistent"])?;
    code(&nowhere, 1)?;
    ensure!(err(&nowhere).contains("/nonexistent"), "{}", err(&nowhere));
    Ok(())
}

#[test]
fn bash_completes_commands_and_options() -> Result<()> {
    let script = kvmeter(&["completions", "bash"])?;
    code(&script, 0)?;
    let complete = |words: &[&str]| -> Result<String> {
        let (last, before) = (words.len() - 1, words.len() - 2);
        let asked = format!(
            "{}\nCOMP_WORDS=({}) COMP_CWORD={last}\n_kvmeter kvmeter '{}' '{}'\necho \"${{COMPREPLY[@]}}\"",
            out(&script),
            words.join(" "),
            words[last],
            words[before]
        );
        let output = Command::new("bash").arg("-c").arg(asked).stdin(Stdio::null()).output()?;
        ensure!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    assert_eq!(complete(&["kvmeter", "led"])?, "ledger");
    assert_eq!(complete(&["kvmeter", "ledger", "ver"])?, "verify");
    assert_eq!(complete(&["kvmeter", "run", "--data"])?, "--data-dir");
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        let script = kvmeter(&["completions", shell])?;
        code(&script, 0)?;
        ensure!(out(&script).contains("rollup"), "{shell}");
    }
    code(&kvmeter(&["completions", "cmd.exe"])?, 2)?;
    Ok(())
}
