//! Law: every command ends with the code of the contract, says what is wrong once and at once, and shows how it is used.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use kvmeter_tests::{
    agent::{Agent, binary},
    skip::host,
    vmm::spawn::TestVm,
};
use serde_json::Value;
use tempfile::TempDir;

const UUID: &str = "0b5e1b70-7d0f-4c2e-9d5c-0d7a3f1f2a02";

/// `kvmeter` without an environment, without an agent.
fn kvmeter(args: &[&str]) -> Result<Output> {
    with_env(args, &[])
}

fn with_env(args: &[&str], env: &[(&str, &str)]) -> Result<Output> {
    let mut command = Command::new(binary()?);
    Ok(command.args(args).env_clear().envs(env.iter().copied()).stdin(Stdio::null()).output()?)
}

fn fed(args: &[&str], input: &[u8]) -> Result<Output> {
    let mut command = Command::new(binary()?);
    command.args(args).env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    child.stdin.take().context("no stdin")?.write_all(input)?;
    Ok(child.wait_with_output()?)
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn code(output: &Output, expected: i32) -> Result<()> {
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
fn one_chain(output: &Output) -> Result<String> {
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

#[test]
fn config_check_reports_every_mistake_at_once_with_its_line() -> Result<()> {
    let mistakes = "listen = \"nowhere\"\nsample_intervall = \"1s\"\nsample_interval = \"1ms\"\nsocket = 7\n\
        [ledger]\nheartbeat = \"1 parsec\"\nmax_file = \"lots\"\n[metrics]\nlinger = -1\n[log]\nlevel = \"loud\"\n[nonsense]\nx = 1\n";
    let output = fed(&["config", "check", "/dev/stdin"], mistakes.as_bytes())?;
    code(&output, 2)?;
    let said = err(&output);
    for (line, what) in [
        (1, "listen"),
        (2, "sample_intervall"),
        (3, "sample_interval"),
        (4, "socket"),
        (6, "ledger.heartbeat"),
        (7, "ledger.max_file"),
        (9, "metrics.linger"),
        (11, "log.level"),
        (12, "nonsense"),
    ] {
        let place = format!("/dev/stdin:{line}: {what}");
        assert!(said.contains(&place), "no {place} in:\n{said}");
    }
    assert!(said.contains("did you mean \"sample_interval\"?"), "{said}");
    assert!(output.stdout.is_empty());
    let broken = fed(&["config", "check", "/dev/stdin"], b"listen = [\n")?;
    code(&broken, 2)?;
    code(&kvmeter(&["config", "check", "/nonexistent/kvmeter.toml"])?, 2)?;
    // The agent says the same before it touches anything.
    let dir = TempDir::new()?;
    let config = dir.path().join("kvmeter.toml");
    std::fs::write(&config, format!("data_dir = {:?}\nsample_interval = \"never\"\n", dir.path().join("data")))?;
    let run = kvmeter(&["run", "--config", config.to_str().context("no text")?])?;
    code(&run, 2)?;
    assert!(err(&run).contains("sample_interval") && !dir.path().join("data").exists(), "{}", err(&run));
    Ok(())
}

#[test]
fn the_default_configuration_is_a_good_one() -> Result<()> {
    let default = kvmeter(&["config", "default"])?;
    code(&default, 0)?;
    let checked = fed(&["config", "check", "/dev/stdin"], &default.stdout)?;
    code(&checked, 0)?;
    assert!(checked.stderr.is_empty(), "without a warning: {}", err(&checked));
    Ok(())
}

#[test]
fn an_unknown_variable_is_a_mistake_and_a_known_one_goes_before_the_file() -> Result<()> {
    let unknown = with_env(&["config", "check"], &[("KVMETER_FOO", "1")])?;
    code(&unknown, 2)?;
    assert!(err(&unknown).contains("KVMETER_FOO"), "{}", err(&unknown));
    let close = with_env(&["config", "check"], &[("KVMETER_LEDGER__HEARTBEET", "1s")])?;
    code(&close, 2)?;
    assert!(err(&close).contains("KVMETER_LEDGER__HEARTBEAT"), "it names the nearest: {}", err(&close));
    let two = with_env(&["config", "check"], &[("KVMETER_SAMPLE_INTERVAL", "x"), ("KVMETER_BPF__MAX_VMS", "many")])?;
    code(&two, 2)?;
    assert!(
        err(&two).contains("KVMETER_SAMPLE_INTERVAL") && err(&two).contains("KVMETER_BPF__MAX_VMS"),
        "{}",
        err(&two)
    );
    let dir = TempDir::new()?;
    let (file, variable) = (dir.path().join("file.sock"), dir.path().join("variable.sock"));
    let config = dir.path().join("kvmeter.toml");
    std::fs::write(&config, format!("socket = {file:?}\n"))?;
    let config = config.to_str().context("no text")?;
    let env = [("KVMETER_SOCKET", variable.to_str().context("no text")?)];
    for (args, env, asked) in [
        (&["--config", config, "vms"][..], &[][..], "file.sock"),
        (&["--config", config, "vms"], &env, "variable.sock"),
        (&["--config", config, "--socket", "/flag.sock", "vms"], &env, "/flag.sock"),
    ] {
        let output = with_env(args, env)?;
        code(&output, 1)?;
        assert!(err(&output).contains(asked), "{asked}: {}", err(&output));
    }
    Ok(())
}

#[test]
fn every_command_explains_itself_with_an_example() -> Result<()> {
    let mut bare = Vec::new();
    let commands: [&[&str]; 11] = [
        &[],
        &["run"],
        &["vms"],
        &["vm"],
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
