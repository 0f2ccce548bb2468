//! Law: a hook is told of a line once it is durable, of each as it stands in the ledger, and delays nothing.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use kvmeter_tests::{
    agent::{Agent, Setup},
    script::{open_dir, script, text},
    skip::host,
    vmm::spawn::TestVm,
};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

fn runs(agent: &Agent, outcome: &str) -> Result<f64> {
    agent.metrics()?.one("kvmeter_hook_runs_total", &[("outcome", outcome)]).context("no runs are told")
}

fn lost(agent: &Agent, stage: &str) -> Result<f64> {
    agent.metrics()?.one("kvmeter_events_lost_total", &[("stage", stage)]).context("no losses are told")
}

#[test]
fn a_hook_gets_start_and_stop_of_a_vm_as_they_stand_in_the_ledger_and_after_they_do() -> Result<()> {
    let Some(_host) = host("a_hook_gets_start_and_stop_of_a_vm_as_they_stand_in_the_ledger_and_after_they_do") else {
        return Ok(());
    };
    let dir = open_dir()?;
    // The ledger is the agent's alone, so the first hook looks into it as root; the second is as hooks are by default.
    let ledger = dir.path().join("data/metering/ledger.jsonl");
    let sees = format!(
        "line=$(cat); if grep -qxF \"$line\" {ledger:?}; then echo \"$line\" >> {0}/seen; else echo \"$line\" >> {0}/early; fi",
        dir.path().display()
    );
    let sees = script(dir.path(), "sees", &sees)?;
    let gets = script(dir.path(), "gets", &format!("cat >> {0}/got; id -un > {0}/user", dir.path().display()))?;
    let config = format!(
        "[[hooks]]\nname = \"sees\"\ncommand = [{sees:?}]\nuser = \"root\"\nmax_concurrent = 1\n\
         [[hooks]]\nname = \"gets\"\ncommand = [{gets:?}]\nmax_concurrent = 1\n"
    );
    let outside = dir.path().to_owned();
    let agent = Agent::with(Setup { config, dir: Some(dir), ..Setup::default() })?;
    drop(TestVm::start(&["--id", "hooked", "--duty", "20"])?);
    drop(TestVm::start(&["--id", "hooked-2", "--duty", "20"])?);
    agent.stop_line("hooked-2")?;
    let count = |name: &str| text(&outside.join(name)).lines().filter(|line| line.contains("\"hooked-2\"")).count();
    agent.wait_until("both lines twice", PATIENCE, |_| Ok(count("got") == 2 && count("seen") == 2))?;
    // Of a run still going on, `user` may be empty: its process has ended when it is counted.
    agent.wait_until("all eight runs to have ended", PATIENCE, |a| Ok(runs(a, "success")? >= 8.0))?;
    assert_eq!(text(&outside.join("early")), "", "a line that was told before it was in the file");
    assert_eq!(text(&outside.join("user")).trim(), "nobody");
    let written = std::fs::read_to_string(&ledger)?;
    for name in ["got", "seen"] {
        let lines = text(&outside.join(name));
        let about: Vec<&str> = lines.lines().filter(|line| line.contains("\"hooked-2\"")).collect();
        let kinds: Vec<Value> = about
            .iter()
            .map(|line| Ok(serde_json::from_str::<Value>(line)?["kind"].clone()))
            .collect::<Result<_, serde_json::Error>>()?;
        assert_eq!(kinds, ["vm.compute.start", "vm.compute.stop"]);
        assert!(about.iter().all(|line| written.lines().any(|one| one == *line)), "{name}: {about:?}");
    }
    assert_eq!((lost(&agent, "hook")?, runs(&agent, "failure")?, runs(&agent, "timeout")?), (0.0, 0.0, 0.0));
    agent.verify()
}

#[test]
fn a_hanging_and_a_failing_hook_are_counted_and_the_agents_end_cancels_what_hangs() -> Result<()> {
    let Some(_host) = host("a_hanging_and_a_failing_hook_are_counted_and_the_agents_end_cancels_what_hangs") else {
        return Ok(());
    };
    let dir = open_dir()?;
    let at = dir.path().display();
    let ours = "[ \"$KVMETER_VM_ID\" = hooked ] || exit 0";
    let hangs = format!("{ours}; echo $$ >> {at}/pids; sleep 1000 & echo $! >> {at}/pids; wait");
    let hangs = script(dir.path(), "hangs", &hangs)?;
    let fails = script(dir.path(), "fails", &format!("{ours}; echo x >> {at}/tries; exit 3"))?;
    let config = format!(
        "[[hooks]]\nname = \"hangs\"\ncommand = [{hangs:?}]\nkinds = [\"vm.compute.start\"]\ntimeout = \"3s\"\nretries = 0\n\
         [[hooks]]\nname = \"fails\"\ncommand = [{fails:?}]\nkinds = [\"vm.compute.start\"]\nretries = 2\nbackoff = \"50ms\"\n\
         [[hooks]]\nname = \"ends\"\ncommand = [{hangs:?}]\nkinds = [\"vm.compute.stop\"]\ntimeout = \"1h\"\n"
    );
    let agent = Agent::with(Setup { config, ..Setup::default() })?;
    drop(TestVm::start(&["--id", "hooked", "--duty", "20"])?);
    agent.stop_line("hooked")?;
    agent.wait_until("the runs", PATIENCE, |a| Ok(runs(a, "timeout")? >= 1.0 && runs(a, "failure")? >= 3.0))?;
    assert_eq!((runs(&agent, "timeout")?, runs(&agent, "failure")?), (1.0, 3.0));
    agent.wait_until("both given up", PATIENCE, |a| Ok(lost(a, "hook_given_up")? == 2.0))?;
    assert_eq!((text(&dir.path().join("tries")).lines().count(), runs(&agent, "canceled")?), (3, 0.0));
    let told = agent.metrics()?.one("kvmeter_hook_duration_seconds_sum", &[("outcome", "timeout")]);
    assert!(told.is_some_and(|seconds| (3.0..60.0).contains(&seconds)), "{told:?}");
    agent.wait_until("the third to hang", PATIENCE, |_| Ok(text(&dir.path().join("pids")).lines().count() == 4))?;
    let (status, took, _) = agent.stop()?;
    assert!(status.success(), "{status}");
    assert!((Duration::from_secs(2)..Duration::from_secs(60)).contains(&took), "2 s of grace, not an hour: {took:?}");
    for pid in text(&dir.path().join("pids")).lines() {
        let stat = || text(Path::new(&format!("/proc/{pid}/stat")));
        // What was killed ends when it next has a CPU.
        let end = Instant::now() + PATIENCE;
        while !stat().is_empty() && !stat().contains(") Z ") {
            assert!(Instant::now() < end, "process {pid} of a hook lives on: {}", stat());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    Ok(())
}

/// Seconds from a VM's end to its line, for each of so many VMs one after the other.
fn latencies(agent: &Agent, name: &str, count: usize) -> Result<Vec<f64>> {
    let mut all = Vec::new();
    for number in 0..count {
        let id = format!("{name}-{number}");
        drop(TestVm::start(&["--id", &id, "--duty", "20"])?);
        let stop = agent.stop_line(&id)?;
        let at = |key: &str| humantime_seconds(stop[key].as_str().unwrap_or_default());
        all.push(at("recorded_at")? - at("emitted_at")?);
    }
    all.sort_by(f64::total_cmp);
    Ok(all)
}

/// Seconds within the hour of an RFC 3339 instant; enough for differences of milliseconds.
fn humantime_seconds(text: &str) -> Result<f64> {
    let at = humantime::parse_rfc3339(text).with_context(|| format!("no instant: {text:?}"))?;
    Ok(at.duration_since(std::time::UNIX_EPOCH)?.as_secs_f64())
}

#[test]
fn a_flood_of_events_with_a_slow_hook_delays_no_line_and_what_is_lost_is_counted() -> Result<()> {
    let Some(_host) = host("a_flood_of_events_with_a_slow_hook_delays_no_line_and_what_is_lost_is_counted") else {
        return Ok(());
    };
    let without = Agent::with(Setup::of("sample_interval = \"200ms\"\n"))?;
    let free = latencies(&without, "free", 20)?;
    drop(without);
    let slow = "sample_interval = \"200ms\"\n[[hooks]]\nname = \"slow\"\ncommand = [\"/bin/sleep\", \"1000\"]\n\
        max_concurrent = 2\nqueue = 4\ntimeout = \"1h\"\n";
    let agent = Agent::with(Setup::of(slow))?;
    let burdened = latencies(&agent, "slow", 20)?;
    let median = |all: &[f64]| all[all.len() / 2];
    println!("end to line: median {:.4} s without a hook, {:.4} s with a slow one", median(&free), median(&burdened));
    for outcome in ["success", "failure", "timeout", "canceled"] {
        assert_eq!(runs(&agent, outcome)?, 0.0, "every line came before the first run ended, which takes 1,000 s");
    }
    // Heartbeats are told to a hook that asks for them only.
    let told = |line: &&Value| line["kind"] != "vm.compute.usage" && line["vm_id"].is_string();
    let told = agent.ledger()?.iter().filter(told).count();
    assert!(told >= 40, "{told} lines");
    // Two run, four wait.
    agent.wait_until("the losses", PATIENCE, |a| Ok(lost(a, "hook")? >= told as f64 - 6.0))?;
    assert_eq!(lost(&agent, "hook")?, told as f64 - 6.0, "of {told} lines");
    assert_eq!(agent.get("/healthz")?.0, 200);
    agent.verify()
}

/// Answers 200 to everything and hands on what it was sent.
fn receiver() -> Result<(u16, Receiver<(String, String)>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let (tell, told) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut bytes = Vec::new();
            let mut part = [0; 4096];
            while let Ok(read @ 1..) = stream.read(&mut part) {
                bytes.extend_from_slice(&part[..read]);
                let text = String::from_utf8_lossy(&bytes).into_owned();
                let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
                if body.len() >= length.unwrap_or(0) {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
                    let _ = tell.send((head.to_owned(), body.to_owned()));
                    break;
                }
            }
        }
    });
    Ok((port, told))
}

#[test]
fn a_web_hook_posts_lines_with_its_secret_and_a_reload_takes_it_away() -> Result<()> {
    let Some(_host) = host("a_web_hook_posts_lines_with_its_secret_and_a_reload_takes_it_away") else { return Ok(()) };
    let (port, told) = receiver()?;
    let dir = TempDir::new()?;
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "hunter2\n")?;
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600))?;
    let agent = Agent::with(Setup::of(&format!(
        "[[hooks]]\nname = \"w\"\nurl = \"http://127.0.0.1:{port}/events\"\nsecret_file = {secret:?}\nmax_concurrent = 1\n\
         kinds = [\"agent.up\", \"vm.compute.start\", \"vm.compute.stop\"]\n"
    )))?;
    drop(TestVm::start(&["--id", "posted", "--duty", "20"])?);
    agent.stop_line("posted")?;
    let ledger = std::fs::read_to_string(agent.metering().join("ledger.jsonl"))?;
    let mut kinds = Vec::new();
    while kinds.last() != Some(&Value::from("vm.compute.stop")) {
        let (head, body) = told.recv_timeout(PATIENCE).context("the lines are not posted")?;
        assert!(head.starts_with("POST /events HTTP/1.1") && head.contains("authorization: Bearer hunter2"), "{head}");
        assert!(ledger.lines().any(|line| line == body), "no line of the ledger: {body}");
        let line: Value = serde_json::from_str(&body)?;
        if line["vm_id"].is_null() || line["vm_id"] == "posted" {
            kinds.push(line["kind"].clone());
        }
    }
    assert_eq!(kinds, ["agent.up", "vm.compute.start", "vm.compute.stop"], "from this agent's first line on");
    assert!(!agent.log().contains("hunter2"), "the secret is nobody's to read");
    let file = agent.dir().join("kvmeter.toml");
    let place: String = std::fs::read_to_string(&file)?.lines().take(3).map(|line| format!("{line}\n")).collect();
    std::fs::write(file, place)?;
    agent.signal(Signal::SIGHUP)?;
    agent.wait_until("the reload", PATIENCE, |a| Ok(a.log().contains("configuration reloaded")))?;
    assert!(agent.log().lines().any(|line| line.contains("applied=[\"hooks\"]")), "{}", agent.log());
    drop(TestVm::start(&["--id", "untold", "--duty", "20"])?);
    agent.stop_line("untold")?;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(1) {
        if let Ok((_, body)) = told.recv_timeout(Duration::from_millis(100)) {
            assert!(!body.contains("untold"), "told after it was taken away: {body}");
        }
    }
    assert_eq!((lost(&agent, "hook")?, runs(&agent, "failure")?), (0.0, 0.0));
    Ok(())
}
