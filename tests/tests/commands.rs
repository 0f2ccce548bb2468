//! Law: every command ends with the code of the contract, says what is wrong once and at once, and shows how it is used.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};
use kvmeter_tests::{
    agent::Agent,
    command::{binary, code, err, kvmeter, one_chain, out},
    skip::host,
    vmm::spawn::TestVm,
};
use serde_json::Value;
use tempfile::TempDir;

const UUID: &str = "0b5e1b70-7d0f-4c2e-9d5c-0d7a3f1f2a02";

#[test]
fn vms_are_listed_and_shown_by_any_of_their_names() -> Result<()> {
    let Some(_host) = host("vms_are_listed_and_shown_by_any_of_their_names") else { return Ok(()) };
    let agent = Agent::start()?;
    let _vm = TestVm::start(&["--id", "i", "--name", "Web One", "--uuid", UUID, "--vcpus", "2", "--duty", "20"])?;
    let _plain = TestVm::start(&["--id", "plain"])?;
    let _dots = TestVm::start(&["--id", ".."])?;
    let _twins = (
        TestVm::start(&["--id", "t 1", "--name", "twin twin"])?,
        TestVm::start(&["--id", "t 2", "--name", "twin twin"])?,
    );
    agent.wait_vms(&[UUID, "plain", ".."])?;
    agent.wait_until("the twins", std::time::Duration::from_secs(20), |a| {
        Ok(a.metrics()?.all("kvmeter_vm_running", &[("name", "twin twin")]).count() == 2)
    })?;

    let table = agent.command(&["vms"])?;
    code(&table, 0)?;
    let text = out(&table);
    let head = text.lines().next().context("no head")?;
    assert!(["VM", "NAME", "STATE", "VCPUS"].iter().all(|column| head.contains(column)), "{head}");
    assert!(
        text.lines().any(|line| line.starts_with(UUID) && line.contains("Web One") && line.contains("running")),
        "{text}"
    );
    let json = agent.command(&["vms", "--json"])?;
    code(&json, 0)?;
    let list: Value = serde_json::from_slice(&json.stdout)?;
    assert_eq!(list, agent.json("/v1/vms")?);

    for id in [UUID, &UUID.to_uppercase(), "Web One", "plain", ".."] {
        let shown = agent.command(&["vm", id])?;
        code(&shown, 0)?;
        assert!(out(&shown).contains("incarnation"), "{id}: {}", out(&shown));
        let json = agent.command(&["vm", id, "--json"])?;
        code(&json, 0)?;
        let one: Value = serde_json::from_slice(&json.stdout)?;
        let known = [&one["vm_id"], &one["name"], &one["uuid"]];
        assert!(known.iter().any(|v| v.as_str().is_some_and(|v| v.eq_ignore_ascii_case(id))), "{id}: {one}");
    }
    let unknown = agent.command(&["vm", "nobody"])?;
    code(&unknown, 3)?;
    assert!(one_chain(&unknown)?.contains("nobody"));
    let twins = agent.command(&["vm", "twin twin"])?;
    code(&twins, 3)?;
    assert_eq!(one_chain(&twins)?.matches("kvmeter-testvm-").count(), 2, "it names both: {}", err(&twins));
    let doctor = agent.command(&["doctor"])?;
    code(&doctor, 0)
}

#[test]
fn without_an_agent_a_command_fails_with_one_chain() -> Result<()> {
    let dir = TempDir::new()?;
    let socket = dir.path().join("none.sock");
    let socket = socket.to_str().context("no text")?;
    for args in
        [&["--socket", socket, "vms"][..], &["--socket", socket, "vm", "x"], &["vms", "--json", "--socket", socket]]
    {
        let output = kvmeter(args)?;
        code(&output, 1)?;
        let chain = one_chain(&output)?;
        assert!(
            chain.contains(socket) && chain.contains("kvmeter run"),
            "it says where it asked and what to do: {chain}"
        );
    }
    Ok(())
}

#[test]
fn handing_over_more_than_one_ledger_is_wrong_usage() -> Result<()> {
    let dir = TempDir::new()?;
    let (file, text) = (dir.path().join("ledger.jsonl"), "no text");
    std::fs::write(&file, "")?;
    let (dir, file) = (dir.path().to_str().context(text)?, file.to_str().context(text)?);
    for (args, says) in [(vec![dir, dir], "2 are named"), (vec![file], "is none")] {
        let output = kvmeter(&[&["ledger", "export", "--format", "cocoon", "--follow"][..], &args].concat())?;
        code(&output, 2)?;
        assert!(one_chain(&output)?.contains(says), "{}", err(&output));
    }
    Ok(())
}

#[test]
fn a_second_agent_on_a_ledger_or_socket_is_refused_and_harms_nothing() -> Result<()> {
    let Some(_host) = host("a_second_agent_on_a_ledger_or_socket_is_refused_and_harms_nothing") else { return Ok(()) };
    let agent = Agent::start()?;
    let other = TempDir::new()?;
    let config = agent.dir().join("kvmeter.toml");
    let config = config.to_str().context("no text")?;
    let (socket, data) = (other.path().join("s"), other.path().join("d"));
    let (socket, data) = (socket.to_str().context("no text")?, data.to_str().context("no text")?);
    let same_ledger = kvmeter(&["--config", config, "run", "--listen", "off", "--socket", socket])?;
    code(&same_ledger, 1)?;
    assert!(one_chain(&same_ledger)?.contains("ledger"), "{}", err(&same_ledger));
    let same_socket = kvmeter(&["--config", config, "run", "--listen", "off", "--data-dir", data])?;
    code(&same_socket, 1)?;
    assert!(one_chain(&same_socket)?.contains("k.sock"), "{}", err(&same_socket));
    let same_port = kvmeter(&["--config", config, "run", "--socket", socket, "--data-dir", data])?;
    code(&same_port, 1)?;
    assert!(one_chain(&same_port)?.contains(&agent.port().to_string()), "{}", err(&same_port));
    assert_eq!(agent.get("/healthz")?.0, 200);
    agent.verify()
}

#[test]
fn an_agent_that_did_not_start_leaves_no_socket() -> Result<()> {
    let Some(_host) = host("an_agent_that_did_not_start_leaves_no_socket") else { return Ok(()) };
    let dir = TempDir::new()?;
    let (socket, data) = (dir.path().join("s"), dir.path().join("d"));
    // A file where the ledger's directory should be.
    std::fs::create_dir(&data)?;
    std::fs::write(data.join("metering"), "")?;
    let (socket, data) = (socket.to_str().context("no text")?, data.to_str().context("no text")?);
    let output = kvmeter(&["run", "--listen", "off", "--socket", socket, "--data-dir", data])?;
    code(&output, 1)?;
    assert!(one_chain(&output)?.contains(data), "{}", err(&output));
    assert!(
        !Path::new(socket).exists(),
        "it is left behind, and whoever asks there is told that the connection was refused"
    );
    Ok(())
}

#[test]
fn every_command_explains_itself_with_an_example() -> Result<()> {
    let mut bare = Vec::new();
    let commands: [&[&str]; 12] = [
        &[],
        &["run"],
        &["vms"],
        &["vm"],
        &["top"],
        &["doctor"],
        &["ledger", "show"],
        &["ledger", "verify"],
        &["config", "check"],
        &["config", "default"],
        &["catalog"],
        &["ledger"],
    ];
    for command in commands {
        let output = kvmeter(&[command, &["--help"]].concat())?;
        code(&output, 0)?;
        assert!(output.stderr.is_empty() && out(&output).contains("Usage: kvmeter"), "{command:?}: {}", out(&output));
        if !out(&output).contains("Example") {
            bare.push(command.join(" "));
        }
    }
    assert!(bare.is_empty(), "no example in --help of: {bare:?}");
    Ok(())
}

#[test]
fn wrong_usage_is_2_and_version_and_catalogue_are_0() -> Result<()> {
    for args in [
        &[][..],
        &["nothing"],
        &["vm"],
        &["vms", "--jsn"],
        &["ledger"],
        &["run", "extra"],
        &["ledger", "show", "--since", "x"],
        &["top", "--json"],
        &["top", "--delay", "1ms"],
        &["top", "--sort", "colour"],
    ] {
        let output = kvmeter(args)?;
        code(&output, 2).with_context(|| format!("{args:?}"))?;
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{args:?}");
    }
    let version = kvmeter(&["--version"])?;
    code(&version, 0)?;
    assert!(out(&version).starts_with("kvmeter "));
    let catalogue = kvmeter(&["catalog"])?;
    code(&catalogue, 0)?;
    assert!(out(&catalogue).contains("kvmeter_vm_cpu_seconds_total"));
    Ok(())
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() -> Result<()> {
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    let mut command = Command::new(binary()?);
    let output = command
        .args(["catalog"])
        .env_clear()
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()?
        .wait_with_output()?;
    code(&output, 0)?;
    assert!(output.stderr.is_empty(), "{}", err(&output));
    Ok(())
}
