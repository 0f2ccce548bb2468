//! Law: a ledger is written by one agent and never rewritten: a torn tail is cut back and told, other damage is refused.

use std::{ffi::OsString, io::Write as _, time::Duration};

use anyhow::{Result, ensure};
use kvmeter_tests::{
    agent::{Agent, Setup},
    ledger::{only, verify_in},
    skip::host,
    vmm::spawn::TestVm,
};

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_torn_tail_is_cut_back_and_told_and_nothing_else_is_lost() -> Result<()> {
    let Some(_host) = host("a_torn_tail_is_cut_back_and_told_and_nothing_else_is_lost") else { return Ok(()) };
    let agent = Agent::start()?;
    let vm = TestVm::start(&["--id", "torn", "--duty", "10"])?;
    agent.wait_until("the start", PATIENCE, |a| Ok(!a.lines("vm.compute.start", "torn")?.is_empty()))?;
    let dir = agent.kill()?;
    let path = dir.path().join("data/metering/ledger.jsonl");
    let before = std::fs::read(&path)?;
    let tail = b"{\"kind\":\"vm.compute.stop\",\"vm_id\":\"torn\",\"hyperv";
    std::fs::File::options().append(true).open(&path)?.write_all(tail)?;
    ensure!(verify_in(dir.path()).is_err(), "a torn tail of a dead agent is a fault");
    let agent = Agent::with(Setup { dir: Some(dir), ..Setup::default() })?;
    let after = std::fs::read(&path)?;
    assert!(after.starts_with(&before), "no line is changed");
    let recovered: Vec<_> = agent.ledger()?.into_iter().filter(|line| line["kind"] == "ledger.recovered").collect();
    assert_eq!(recovered.len(), 1, "{recovered:?}");
    assert_eq!(recovered[0]["seq"], u64::try_from(before.split(|b| *b == b'\n').count())?, "the next number");
    drop(vm);
    agent.stop_line("torn")?;
    assert!(only(&agent.ledger()?, "torn")?.stop.is_some());
    agent.verify()
}

/// Why an agent did not start: its exit status and log.
fn refusal(setup: Setup) -> Result<String> {
    match Agent::with(setup) {
        Ok(_) => anyhow::bail!("the agent started"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

#[test]
fn damage_in_the_middle_stops_the_agent_loudly() -> Result<()> {
    let Some(_host) = host("damage_in_the_middle_stops_the_agent_loudly") else { return Ok(()) };
    let agent = Agent::start()?;
    let mut vm = TestVm::start(&["--id", "hurt", "--lifetime", "50ms"])?;
    vm.wait()?;
    agent.stop_line("hurt")?;
    let (_, _, dir) = agent.stop()?;
    verify_in(dir.path())?;
    for (line, at_byte) in [(1, 10), (2, 300), (3, 40)] {
        let path = dir.path().join("data/metering/ledger.jsonl");
        let whole = std::fs::read(&path)?;
        let offset: usize = whole.split_inclusive(|b| *b == b'\n').take(line - 1).map(<[u8]>::len).sum();
        let mut damaged = whole.clone();
        damaged[offset + at_byte] ^= 1;
        std::fs::write(&path, &damaged)?;
        ensure!(verify_in(dir.path()).is_err(), "verify sees it too");
        let wrapper = ["env".into(), format!("KVMETER_DATA_DIR={}", dir.path().join("data").display()).into()];
        let why = refusal(Setup { wrapper: wrapper.to_vec(), ..Setup::default() })?;
        assert!(why.contains("exit status: 1"), "{why}");
        assert!(why.contains(&format!("line {line} at byte {offset}")), "{why}");
        assert_eq!(std::fs::read(&path)?, damaged, "nothing was changed");
        std::fs::write(&path, &whole)?;
    }
    let agent = Agent::with(Setup { dir: Some(dir), ..Setup::default() })?;
    agent.verify()
}

#[test]
fn one_agent_writes_a_ledger() -> Result<()> {
    let Some(_host) = host("one_agent_writes_a_ledger") else { return Ok(()) };
    let agent = Agent::start()?;
    let data: OsString = format!("KVMETER_DATA_DIR={}", agent.dir().join("data").display()).into();
    let why = refusal(Setup { wrapper: ["env".into(), data].to_vec(), ..Setup::default() })?;
    assert!(why.contains("exit status: 1"), "{why}");
    let lock = agent.metering().join("lock");
    assert!(why.contains(&lock.display().to_string()), "{why}");
    assert!(why.contains(&format!("pid {}", agent.pid())), "{why}");
    let mut vm = TestVm::start(&["--id", "still", "--lifetime", "20ms"])?;
    vm.wait()?;
    agent.ended("still")?;
    assert_eq!(agent.ledger()?.iter().filter(|line| line["kind"] == "agent.up").count(), 1);
    agent.verify()
}
