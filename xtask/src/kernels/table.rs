//! `docs/kernels.md`: a row for each check, a column for each kernel; and holding a shorter run against it.
//!
//! What is absent, and what failed, has its reason in a note below the table, so that a change of it shows in review.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::report::{Column, Outcome};

const HEAD: &str = "# Kernels

Written by `cargo xtask kernels`; not edited by hand. It boots Debian's cloud kernels in QEMU's software emulation, with KVM on
emulated SVM inside, and runs the agent and these checks there, against real guests with real `kvm_entry` and `kvm_exit`. What is
compared with what stands in `tests/src/kernelcheck/`. CI boots the oldest and the newest of them and fails if this table is not
what it sees.

`yes`: it is at work, or the law holds. `absent`: it is not measured on this kernel, for the reason in the note. `FAILED`: it should be, or the law
is broken.
";

/// Writes the document.
pub(crate) fn write(path: &Path, columns: &[Column]) -> Result<()> {
    fs::write(path, document(columns)).with_context(|| format!("cannot write {}", path.display()))
}

/// An error unless the document says of these kernels what they showed; checks that were not made are passed over.
pub(crate) fn compare(path: &Path, columns: &[Column]) -> Result<()> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let wrong: Vec<_> = columns.iter().flat_map(|column| differences(&text, column)).collect();
    if !wrong.is_empty() {
        bail!("docs/kernels.md is not what was seen: run `cargo xtask kernels`\n{}", wrong.join("\n"));
    }
    Ok(())
}

fn document(columns: &[Column]) -> String {
    let mut notes = Vec::new();
    let mut rows = Vec::new();
    for name in names(columns) {
        let cells: Vec<_> = columns.iter().map(|column| cell(column.outcome(name), &mut notes)).collect();
        rows.push(format!("| {name} | {} |", cells.join(" | ")));
    }
    let series: Vec<_> = columns.iter().map(|column| column.series.as_str()).collect();
    let releases: Vec<_> = columns.iter().map(|column| format!("`{}`", column.release)).collect();
    let rule = "|---".repeat(columns.len() + 1);
    let notes: String = notes.iter().zip(1..).map(|(why, number)| format!("{number}. {why}\n")).collect();
    let notes = if notes.is_empty() { notes } else { format!("\n{notes}") };
    format!(
        "{HEAD}\nKernels: {}.\n\n| feature or law | {} |\n{rule}|\n{}\n{notes}",
        releases.join(", "),
        series.join(" | "),
        rows.join("\n")
    )
}

/// Every check's name, in the order of the first kernel that made it.
fn names(columns: &[Column]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in columns.iter().flat_map(|column| &column.outcomes) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    names
}

fn cell(outcome: Option<&Outcome>, notes: &mut Vec<String>) -> String {
    let (word, why) = match outcome {
        Some(Outcome::Passed) => return "yes".to_owned(),
        None => return "–".to_owned(),
        Some(Outcome::Absent(why)) => ("absent", why),
        Some(Outcome::Failed(why)) => ("FAILED", why),
    };
    let why = why.replace('\n', " ");
    let at = notes.iter().position(|known| *known == why).unwrap_or_else(|| {
        notes.push(why);
        notes.len() - 1
    });
    format!("{word} ({})", at + 1)
}

/// Where a document and a column disagree.
fn differences(text: &str, column: &Column) -> Vec<String> {
    let mut rows = text.lines().filter_map(|line| {
        let cells: Vec<_> = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ").map(str::trim).collect();
        (cells.len() > 1).then_some(cells)
    });
    let Some(place) = rows.next().and_then(|head| head.iter().position(|series| *series == column.series)) else {
        return vec![format!("{}: it has no such column", column.series)];
    };
    let rows: Vec<_> = rows.collect();
    let told = |name: &str| rows.iter().find(|row| row[0] == name)?.get(place)?.split(' ').next();
    let seen = column.outcomes.iter().filter(|(name, _)| !name.is_empty());
    let wrong = seen.filter_map(|(name, outcome)| {
        let word = cell(Some(outcome), &mut Vec::new());
        let word = word.split(' ').next().unwrap_or_default();
        let before = told(name).unwrap_or("nothing");
        (before != word).then(|| format!("{}: {name}: {before} is told, {word} was seen", column.series))
    });
    wrong.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(series: &str, outcomes: &[(&str, Outcome)]) -> Column {
        let outcomes = outcomes.iter().map(|(name, outcome)| ((*name).to_owned(), outcome.clone())).collect();
        Column { series: series.to_owned(), release: format!("{series}.0-1"), outcomes }
    }

    #[test]
    fn a_run_is_held_against_the_table_it_would_write() {
        let absent = || Outcome::Absent("no such hook".to_owned());
        let old = column("5.10", &[("a law", Outcome::Passed), ("another", absent()), ("third", absent())]);
        let new = column("7.2", &[("a law", Outcome::Passed), ("another", Outcome::Passed)]);
        let text = document(&[old, new]);
        let rows =
            "| a law | yes | yes |\n| another | absent (1) | yes |\n| third | absent (1) | – |\n\n1. no such hook\n";
        assert!(text.ends_with(rows), "{text}");
        assert!(differences(&text, &column("7.2", &[("another", Outcome::Passed)])).is_empty());
        let other = column("7.2", &[("another", absent()), ("new", Outcome::Passed)]);
        assert_eq!(
            differences(&text, &other),
            ["7.2: another: yes is told, absent was seen", "7.2: new: nothing is told, yes was seen"]
        );
        assert_eq!(differences(&text, &column("6.1", &[])), ["6.1: it has no such column"]);
    }
}
