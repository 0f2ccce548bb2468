//! Law: whoever reads a ledger sees all of it, by any filter, and is told whether it is whole, faulty or unreadable.

use std::path::Path;

use anyhow::{Context as _, Result};
use kvmeter_tests::{
    agent::Agent,
    command::{code, kvmeter, out},
    skip::host,
    vmm::spawn::TestVm,
};
use serde_json::Value;

#[test]
fn ledger_show_filters_and_verify_tells_whole_faulty_and_unreadable() -> Result<()> {
    let Some(_host) = host("ledger_show_filters_and_verify_tells_whole_faulty_and_unreadable") else { return Ok(()) };
    let agent = Agent::start()?;
    for id in ["first", "second"] {
        drop(TestVm::start(&["--id", id])?);
        agent.stop_line(id)?;
    }
    let lines = |args: &[&str]| -> Result<Vec<Value>> {
        let output = agent.command(&[&["ledger", "show", "--json"], args].concat())?;
        code(&output, 0)?;
        out(&output).lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    };
    let all = agent.ledger()?;
    assert_eq!(lines(&[])?, all);
    for (args, wanted) in [
        (&["--vm", "first"][..], (|l: &Value| l["vm_id"] == "first") as fn(&Value) -> bool),
        (&["--kind", "vm.compute.start"], |l| l["kind"] == "vm.compute.start"),
        (&["--kind", "vm.compute.start", "--kind", "vm.compute.stop"], |l| {
            l["kind"] == "vm.compute.start" || l["kind"] == "vm.compute.stop"
        }),
        (&["--kind", "vm.compute.stop", "--vm", "second"], |l| {
            l["kind"] == "vm.compute.stop" && l["vm_id"] == "second"
        }),
        (&["--since", "3"], |l| l["seq"].as_u64() >= Some(3)),
    ] {
        let expected: Vec<_> = all.iter().filter(|line| wanted(line)).cloned().collect();
        assert!(!expected.is_empty());
        assert_eq!(lines(args)?, expected, "{args:?}");
    }
    let table = agent.command(&["ledger", "show"])?;
    code(&table, 0)?;
    assert!(out(&table).lines().count() >= all.len() && out(&table).contains("second"), "{}", out(&table));
    code(&agent.command(&["ledger", "show", "--vm", "nobody"])?, 3)?;
    code(&agent.command(&["ledger", "show", "--kind", "vm.compute.begin"])?, 2)?;
    code(&agent.command(&["ledger", "verify"])?, 0)?;

    let (_, _, dir) = agent.stop()?;
    let file = dir.path().join("data/metering/ledger.jsonl");
    let verify =
        |path: &Path, more: &[&str]| kvmeter(&[&["ledger", "verify", path.to_str().unwrap_or("")], more].concat());
    for path in [dir.path().join("data"), dir.path().join("data/metering"), file.clone()] {
        code(&verify(&path, &[])?, 0)?;
    }
    let text = std::fs::read_to_string(&file)?;
    let missing = dir.path().join("missing.jsonl");
    code(&verify(&missing, &[])?, 1)?;
    for (what, changed) in [
        ("a changed number", text.replacen("\"signal\":9", "\"signal\":8", 1)),
        (
            "a line cut out",
            text.lines().enumerate().filter(|(n, _)| *n != 2).map(|(_, line)| format!("{line}\n")).collect(),
        ),
        ("two lines swapped", swapped(&text)),
        ("a line twice", format!("{text}{}\n", text.lines().last().unwrap_or(""))),
    ] {
        assert_ne!(changed, text, "{what}");
        let copy = dir.path().join("changed.jsonl");
        std::fs::write(&copy, changed)?;
        let output = verify(&copy, &[])?;
        code(&output, 3).context(what)?;
        let json = verify(&copy, &["--json"])?;
        code(&json, 3).context(what)?;
        serde_json::from_slice::<Value>(&json.stdout).context(what)?;
    }
    Ok(())
}

fn swapped(text: &str) -> String {
    let mut lines: Vec<_> = text.lines().collect();
    lines.swap(1, 2);
    lines.join("\n") + "\n"
}
