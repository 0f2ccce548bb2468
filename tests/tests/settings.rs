//! Law: a configuration is taken over as a whole or not at all, and what happened to it is said.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use kvmeter_tests::{
    agent::{Agent, Setup},
    clock::unix_ns,
    skip::host,
    vmm::spawn::TestVm,
};
use nix::sys::signal::Signal;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

fn start(config: &str) -> Result<Agent> {
    Agent::with(Setup { config: config.to_owned(), ..Setup::default() })
}

/// Replaces everything behind the first three lines, which say where the agent is, and sends SIGHUP.
fn reload(agent: &Agent, config: &str) -> Result<()> {
    let file = agent.dir().join("kvmeter.toml");
    let old = std::fs::read_to_string(&file)?;
    let place: String = old.lines().take(3).map(|line| format!("{line}\n")).collect();
    std::fs::write(file, place + config)?;
    agent.signal(Signal::SIGHUP)
}

/// Log lines that contain this, once there are so many of them.
fn told(agent: &Agent, what: &str, times: usize) -> Result<String> {
    agent.wait_until(&format!("the log to say {what:?}"), PATIENCE, |a| Ok(a.log().matches(what).count() >= times))?;
    let log = agent.log();
    log.lines().rfind(|line| line.contains(what)).map(str::to_owned).context("no such line")
}

fn samples(agent: &Agent) -> Result<f64> {
    agent.metrics()?.one("kvmeter_sample_duration_seconds_count", &[]).context("no samples")
}

#[test]
fn sighup_takes_live_keys_over_at_once() -> Result<()> {
    let Some(_host) = host("sighup_takes_live_keys_over_at_once") else { return Ok(()) };
    let agent = start("sample_interval = \"10s\"\n")?;
    let ended = TestVm::start(&["--id", "ended", "--lifetime", "100ms"])?;
    let _lives = TestVm::start(&["--id", "lives", "--duty", "10"])?;
    agent.wait_vms(&["lives"])?;
    agent.stop_line("ended")?;
    drop(ended);
    assert!(!agent.log().contains("DEBUG"));
    let before = samples(&agent)?;
    reload(
        &agent,
        "sample_interval = \"100ms\"\n[log]\nlevel = \"debug\"\n[ledger]\nheartbeat = \"1s\"\n[metrics]\nlinger = \"0s\"\n[discovery]\nscan_interval = \"1s\"\n",
    )?;
    let line = told(&agent, "configuration reloaded", 1)?;
    for key in ["sample_interval", "log.level", "ledger.heartbeat", "metrics.linger", "discovery.scan_interval"] {
        assert!(line.split("needs_restart").next().is_some_and(|applied| applied.contains(key)), "{key}: {line}");
    }
    assert!(line.contains("needs_restart=[]"), "{line}");
    agent.wait_until("ten more samples", PATIENCE, |a| Ok(samples(a)? >= before + 10.0))?;
    agent.wait_until("the end of the linger time", PATIENCE, |a| {
        Ok(a.metrics()?.all("kvmeter_vm_info", &[("vm_id", "ended")]).next().is_none())
    })?;
    agent.wait_until("two heartbeats", PATIENCE, |a| Ok(a.lines("vm.compute.usage", "lives")?.len() >= 2))?;
    // Back to slow: no more samples than one a second.
    reload(&agent, "sample_interval = \"1s\"\n")?;
    told(&agent, "configuration reloaded", 2)?;
    agent.wait_until("no more than a sample a second", PATIENCE, |a| {
        let (since, from) = (Instant::now(), samples(a)?);
        std::thread::sleep(Duration::from_secs(3));
        let (taken, most) = (samples(a)? - from, since.elapsed().as_secs_f64() + 2.0);
        Ok(taken <= most)
    })?;
    agent.verify()
}

#[test]
fn sighup_says_which_keys_need_a_restart_and_leaves_them() -> Result<()> {
    let Some(_host) = host("sighup_says_which_keys_need_a_restart_and_leaves_them") else { return Ok(()) };
    let agent = start("")?;
    let (port, file) = (agent.port(), agent.dir().join("kvmeter.toml"));
    let text = std::fs::read_to_string(&file)?;
    let changed = text.replace(&format!("127.0.0.1:{port}"), "127.0.0.1:1");
    assert_ne!(text, changed);
    std::fs::write(
        &file,
        format!("{changed}sample_interval = \"500ms\"\n[bpf]\nmax_vms = 100\n[log]\nformat = \"json\"\n"),
    )?;
    agent.signal(Signal::SIGHUP)?;
    let line = told(&agent, "configuration reloaded", 1)?;
    let (applied, restart) = line.split_once("needs_restart").context("no needs_restart")?;
    assert!(applied.contains("sample_interval") && !restart.contains("sample_interval"), "{line}");
    for key in ["listen", "bpf.max_vms", "log.format"] {
        assert!(restart.contains(key) && !applied.contains(key), "{key}: {line}");
    }
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok(), "it listens where it did");
    // They stay named as long as file and agent differ.
    agent.signal(Signal::SIGHUP)?;
    let again = told(&agent, "configuration reloaded", 2)?;
    assert!(again.contains("listen") && again.contains("applied=[]"), "{again}");
    Ok(())
}

#[test]
fn a_signal_that_comes_while_it_starts_is_heeded_once_it_runs() -> Result<()> {
    let Some(_host) = host("a_signal_that_comes_while_it_starts_is_heeded_once_it_runs") else { return Ok(()) };
    let agent = Agent::hasty()?;
    agent.signal(Signal::SIGHUP)?;
    told(&agent, "configuration reloaded", 1)?;
    let agent = Agent::hasty()?;
    let (status, _, dir) = agent.stop()?;
    let log = std::fs::read_to_string(dir.path().join("agent.log"))?;
    assert!(status.success() && log.contains("kvmeter ended in order"), "{status}: {log}");
    Ok(())
}

#[test]
fn a_key_nobody_set_needs_no_restart() -> Result<()> {
    let Some(_host) = host("a_key_nobody_set_needs_no_restart") else { return Ok(()) };
    let agent = start("sample_interval = \"30s\"\n")?;
    // The default of history.interval follows sample_interval, which is live.
    reload(&agent, "sample_interval = \"200ms\"\n")?;
    let line = told(&agent, "configuration reloaded", 1)?;
    assert!(line.contains("needs_restart=[]"), "{line}");
    Ok(())
}

#[test]
fn a_key_that_has_an_effect_is_not_said_to_have_none() -> Result<()> {
    let Some(_host) = host("a_key_that_has_an_effect_is_not_said_to_have_none") else { return Ok(()) };
    let agent = start("[history]\ninterval = \"1s\"\n")?;
    let _vm = TestVm::start(&["--id", "sampled", "--duty", "10"])?;
    agent.wait_vms(&["sampled"])?;
    // Ten seconds is the default, so two samples in a row that are less apart show the effect.
    let mut last = None;
    agent.wait_until("two samples less than six seconds apart", PATIENCE, |a| {
        let (code, body) = a.get("/v1/vms/sampled/usage")?;
        if code != 200 {
            return Ok(false);
        }
        let at = unix_ns(&serde_json::from_str::<Value>(&body)?["at"])?;
        let since = last.filter(|last| *last != at).map(|last| at - last);
        last = Some(at);
        Ok(since.is_some_and(|since| since < 6_000_000_000))
    })?;
    assert!(!agent.log().contains("it has no effect"), "{}", agent.log());
    Ok(())
}

#[test]
fn a_broken_file_changes_nothing_and_is_told() -> Result<()> {
    let Some(_host) = host("a_broken_file_changes_nothing_and_is_told") else { return Ok(()) };
    let agent = start("sample_interval = \"200ms\"\n")?;
    for (times, broken) in [
        "sample_interval = \"10s\"\n[log]\nlevel = \"loud\"\n",
        "sample_interval = \"10s\"\nunheard_of = 1\n",
        "sample_interval = \"10s\"\n[[[\n",
    ]
    .into_iter()
    .enumerate()
    {
        reload(&agent, broken)?;
        told(&agent, "was not reloaded", times + 1)?;
        let before = samples(&agent)?;
        // Of ten seconds they would take fifty.
        agent.wait_until("five samples as before", Duration::from_secs(30), |a| Ok(samples(a)? >= before + 5.0))?;
    }
    let log = agent.log();
    assert!(log.contains("loud") && log.contains("unheard_of") && log.contains("TOML"), "it says what is wrong: {log}");
    std::fs::remove_file(agent.dir().join("kvmeter.toml"))?;
    agent.signal(Signal::SIGHUP)?;
    told(&agent, "was not reloaded", 4)?;
    assert_eq!(agent.get("/healthz")?.0, 200);
    Ok(())
}

#[test]
fn one_line_sums_up_the_start() -> Result<()> {
    let Some(_host) = host("one_line_sums_up_the_start") else { return Ok(()) };
    let _vm = TestVm::start(&["--id", "there", "--duty", "10"])?;
    let agent = start("sample_interval = \"100ms\"\n")?;
    agent.wait_vms(&["there"])?;
    agent.wait_samples(10)?;
    let line = told(&agent, "kvmeter runs", 1)?;
    assert_eq!(agent.log().matches("kvmeter runs").count(), 1, "{}", agent.log());
    let status = agent.json("/v1/status")?;
    let features = status["features"].as_array().context("no features")?.iter();
    let missing: Vec<_> = features.filter(|f| f["available"] == false).filter_map(|f| f["name"].as_str()).collect();
    let missing =
        if missing.is_empty() { "missing=nothing".to_owned() } else { format!("missing={}", missing.join(",")) };
    for part in ["cpu_source=bpf", &missing, &format!("listen=127.0.0.1:{}", agent.port()), "socket="] {
        assert!(line.contains(part), "{part}: {line}");
    }
    Ok(())
}

#[test]
fn the_summing_up_counts_the_vms_that_were_found() -> Result<()> {
    let Some(_host) = host("the_summing_up_counts_the_vms_that_were_found") else { return Ok(()) };
    let _vms = (TestVm::start(&["--id", "one", "--duty", "10"])?, TestVm::start(&["--id", "two", "--duty", "10"])?);
    let agent = start("")?;
    agent.wait_vms(&["one", "two"])?;
    let line = told(&agent, "kvmeter runs", 1)?;
    assert!(!line.contains("vms=0") && !line.contains("ledger_sequence=0"), "two VMs ran before it: {line}");
    Ok(())
}

#[test]
fn a_json_log_is_one_object_a_line() -> Result<()> {
    let Some(_host) = host("a_json_log_is_one_object_a_line") else { return Ok(()) };
    let agent = start("sample_interval = \"200ms\"\n[log]\nformat = \"json\"\nlevel = \"debug\"\n")?;
    drop(TestVm::start(&["--id", "two words\n", "--name", "quote \" newline \n end", "--duty", "10"])?);
    agent.wait_samples(2)?;
    reload(&agent, "unheard_of = 1\nalso = 2\n[log]\nformat = \"json\"\n")?;
    told(&agent, "was not reloaded", 1)?;
    let (status, _, dir) = agent.stop()?;
    assert!(status.success(), "{status}");
    let log = std::fs::read_to_string(dir.path().join("agent.log"))?;
    let mut levels = std::collections::BTreeSet::new();
    for line in log.lines() {
        let object: Value = serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
        for key in ["timestamp", "level", "target"] {
            assert!(object[key].is_string(), "no {key}: {line}");
        }
        assert!(object["fields"]["message"].is_string(), "{line}");
        levels.insert(object["level"].as_str().unwrap_or("").to_owned());
    }
    assert!(levels.contains("ERROR") && levels.contains("INFO"), "{levels:?}");
    assert_eq!(log.matches("kvmeter runs").count(), 1);
    Ok(())
}
