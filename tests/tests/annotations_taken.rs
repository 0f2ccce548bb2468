//! Law: a statement is taken from those who may make it, checked, for a time that ends; what is wrong with it is said.

use std::{
    net::TcpStream,
    os::unix::{fs::PermissionsExt, process::CommandExt as _},
    process::Command,
    time::Duration,
};

use anyhow::Result;
use kvmeter_tests::{
    agent::{Agent, Setup},
    command::binary,
    http,
    skip::host,
    statement::{make, state},
    vmm::spawn::TestVm,
};
use nix::sys::signal::Signal;
use serde_json::json;

const NOBODY: u32 = 65_534;

fn start(id: &str) -> Result<TestVm> {
    TestVm::start(&["--id", id, "--duty", "10"])
}

fn end(mut vm: TestVm, signal: Signal) -> Result<()> {
    vm.signal(signal)?;
    vm.wait()?;
    Ok(())
}

#[test]
fn a_statement_expires() -> Result<()> {
    let Some(_host) = host("a_statement_expires") else { return Ok(()) };
    let agent = Agent::start()?;
    let vm = start("expired")?;
    state(&agent, json!({ "vm_id": "expired", "reason": "stop-user", "ttl": "1s" }))?;
    std::thread::sleep(Duration::from_millis(1_500));
    end(vm, Signal::SIGKILL)?;
    assert_eq!(agent.stop_line("expired")?["reason"], "stop-crash");
    Ok(())
}

/// `kvmeter annotate` as another user, who may use the socket by its group.
fn as_nobody(agent: &Agent, args: &[&str]) -> Result<(Option<i32>, String)> {
    std::fs::set_permissions(agent.dir(), PermissionsExt::from_mode(0o711))?;
    // Nobody may look into the directories that the program is built in.
    let program = agent.dir().join("kvmeter");
    std::fs::copy(binary()?, &program)?;
    let mut command = Command::new(program);
    command.env_clear().arg("--socket").arg(agent.socket()).arg("annotate").args(args).uid(NOBODY).current_dir("/");
    let output = command.output()?;
    Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
}

#[test]
fn the_peers_uid_decides_who_may_and_is_told() -> Result<()> {
    let Some(_host) = host("the_peers_uid_decides_who_may_and_is_told") else { return Ok(()) };
    let words = ["--vm-id", "asked", "--reason", "stop-user"];
    let agent = Agent::start()?;
    let (code, said) = as_nobody(&agent, &words)?;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("403") && said.contains("65534") && said.contains("annotations.uids"), "{said}");
    let tcp = TcpStream::connect(("127.0.0.1", agent.port()))?;
    http::send(tcp, "POST", "/v1/annotations", r#"{"vm_id":"asked","reason":"stop-user"}"#)?.problem(403)?;
    end(start("asked")?, Signal::SIGKILL)?;
    assert_eq!(agent.stop_line("asked")?["reason"], "stop-crash", "neither was taken");
    drop(agent);

    let agent = Agent::with(Setup::of("[annotations]\nuids = [65534]\n"))?;
    let vm = start("asked")?;
    let (code, said) = as_nobody(&agent, &words)?;
    assert_eq!(code, Some(0), "{said}");
    end(vm, Signal::SIGKILL)?;
    let stop = agent.stop_line("asked")?;
    assert_eq!((&stop["reason"], &stop["evidence"]["annotated_by"]), (&"stop-user".into(), &"uid:65534".into()));
    state(&agent, json!({ "vm_id": "asked", "tenant": "the agent's own user may" }))
}

#[test]
fn what_is_wrong_with_a_statement_is_said_with_its_parameter() -> Result<()> {
    let Some(_host) = host("what_is_wrong_with_a_statement_is_said_with_its_parameter") else { return Ok(()) };
    let agent = Agent::start()?;
    for (body, parameter) in [
        (json!({ "tenant": "a" }), "vm_id"),
        (json!({ "vm_id": "a", "pid": 1, "tenant": "a" }), "pid"),
        (json!({ "vm_id": "a", "reason": "vm-rm" }), "reason"),
        (json!({ "vm_id": "a", "tenant": "a", "ttl": "100days" }), "ttl"),
        (json!({ "vm_id": "a", "owner": "a" }), "owner"),
        (json!({ "vm_id": "a", "tenant": "x".repeat(20_000) }), "body"),
    ] {
        assert_eq!(make(&agent, &body)?.problem(400)?["parameter"], parameter, "{parameter}");
    }
    make(&agent, &json!({ "pid": 4_194_303, "tenant": "a" }))?.problem(404)?;
    let allowed = agent.request("GET", "/v1/annotations")?;
    allowed.problem(405)?;
    assert_eq!(allowed.header("allow"), Some("POST"));
    let gone = agent.command(&["annotate", "--pid", "4194303", "--tenant", "a"])?;
    assert_eq!(gone.status.code(), Some(3));
    for wrong in [
        &["annotate", "--tenant", "a"][..],
        &["annotate", "--vm-id", "a", "--pid", "1", "--tenant", "a"],
        &["annotate", "--vm-id", "a", "--label", "x"],
    ] {
        assert_eq!(agent.command(wrong)?.status.code(), Some(2), "{wrong:?}");
    }
    Ok(())
}
