//! Law: `top` shows what the agent tells, at a terminal of 80 by 24, and gives the terminal back whatever ends it; nothing
//! that a VM is called can steer the terminal.

use anyhow::{Context as _, Result};
use kvmeter_tests::{
    agent::Agent,
    command::{code, kvmeter, one_chain, out},
    skip::host,
    terminal::Terminal,
    vmm::spawn::TestVm,
};
use nix::sys::signal::Signal;
use serde_json::Value;

/// Sets a title, clears, asks for the terminal's name: each in both spellings of the control codes.
const HOSTILE: &str = "evil\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}2J\u{9d}0;owned\u{9c}\u{1b}[c\u{202e}x";

/// The numbers of a line of the list: the columns behind the state.
fn columns(screen: &str, vm: &str) -> Option<Vec<String>> {
    let line = screen.lines().find(|line| line.starts_with(vm))?;
    Some(line.split_whitespace().skip_while(|word| *word != "running").skip(1).map(str::to_owned).collect())
}

fn cpu(screen: &str, vm: &str) -> Option<f64> {
    columns(screen, vm)?.get(1)?.parse().ok()
}

fn start(agent: &Agent) -> Result<Terminal> {
    let terminal = Terminal::start(agent.socket(), &["top", "--delay", "500ms"], 24, 80)?;
    terminal.wait("the first screen", |screen| screen.contains("kvmeter top") && screen.contains("q out"))?;
    Ok(terminal)
}

#[test]
fn vms_are_shown_live_sorted_filtered_and_one_by_one() -> Result<()> {
    let Some(_host) = host("vms_are_shown_live_sorted_filtered_and_one_by_one") else { return Ok(()) };
    let agent = Agent::start()?;
    // More than two CPUs can run, so somebody waits for somebody.
    let _spin = TestVm::start(&["--id", "spin", "--vcpus", "4", "--duty", "100"])?;
    let _half = TestVm::start(&["--id", "half", "--duty", "50"])?;
    let _idle = TestVm::start(&["--id", "idle"])?;
    agent.wait_vms(&["spin", "half", "idle"])?;
    let mut top = start(&agent)?;
    let place = |screen: &str, vm: &str| screen.lines().position(|line| line.starts_with(vm));
    top.wait("rates, the busiest first", |screen| {
        let both = cpu(screen, "spin").zip(cpu(screen, "idle"));
        both.is_some_and(|(spin, idle)| spin > idle) && place(screen, "spin") < place(screen, "idle")
    })?;
    let screen = top.text();
    assert!(screen.lines().all(|line| line.chars().count() <= 80), "{screen}");
    assert_eq!(columns(&screen, "spin").context("no line")?.len(), 8, "no column is cut: {screen}");
    top.keys("vr")?;
    top.wait("names turned round", |screen| {
        place(screen, "spin") < place(screen, "idle") && place(screen, "idle") < place(screen, "half")
    })?;

    top.keys("w")?;
    top.wait("who waits for whom", |screen| {
        screen.lines().any(|line| line.starts_with("half") && line.trim_end().ends_with("spin"))
    })?;
    top.keys("\u{1b}")?;
    top.wait("the list", |screen| screen.contains("STATE"))?;
    top.keys("/HAL\r")?;
    top.wait("the filter", |screen| place(screen, "half").is_some() && place(screen, "spin").is_none())?;
    top.keys("\r")?;
    top.wait("one VM", |screen| {
        screen.contains("IT WAITS FOR") && screen.contains("  0 tid") && screen.contains("vmm")
    })?;
    let tid = agent.json("/v1/vms/half")?["vcpus"][0]["tid"].to_string();
    assert!(top.text().contains(&tid), "{}", top.text());
    top.keys("q")?;
    top.wait("the list", |screen| screen.contains("STATE"))?;
    top.keys("?")?;
    top.wait("the keys", |screen| screen.contains("who waits for whom") && screen.contains("Ctrl-C"))?;
    top.keys("qq")?;
    assert_eq!(top.ended()?.code(), Some(0));
    Ok(())
}

#[test]
fn no_name_steers_the_terminal() -> Result<()> {
    let Some(_host) = host("no_name_steers_the_terminal") else { return Ok(()) };
    let agent = Agent::start()?;
    let _evil = TestVm::start(&["--id", "bad", "--name", HOSTILE])?;
    agent.wait_until("it", std::time::Duration::from_secs(30), |agent| Ok(agent.get("/v1/vms")?.1.contains("evil")))?;
    let mut top = start(&agent)?;
    top.wait("it", |screen| screen.contains("evil"))?;
    top.keys("\r")?;
    top.wait("it by itself", |screen| screen.contains("IT WAITS FOR"))?;
    top.keys("qq")?;
    assert_eq!(top.ended()?.code(), Some(0));
    let table = agent.command(&["top", "--batch", "--delay", "200ms"])?.stdout;
    let json = agent.command(&["top", "--batch", "--json", "--delay", "200ms"])?.stdout;
    for bytes in [top.bytes(), table, json] {
        let text = String::from_utf8(bytes).context("no UTF-8")?;
        for sequence in ["\u{1b}]", "\u{7}", "\u{1b}[c", "\u{9b}", "\u{9d}", "\u{202e}"] {
            assert!(!text.contains(sequence), "{sequence:?} reaches the terminal: {text:?}");
        }
    }
    Ok(())
}

#[test]
fn the_terminal_is_given_back_after_ctrl_c_a_signal_and_an_agent_that_went() -> Result<()> {
    let Some(_host) = host("the_terminal_is_given_back_after_ctrl_c_a_signal_and_an_agent_that_went") else {
        return Ok(());
    };
    let agent = Agent::start()?;
    let mut top = start(&agent)?;
    top.keys("\u{3}")?;
    assert_eq!(top.ended()?.code(), Some(0));
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let mut top = start(&agent)?;
        top.signal(signal)?;
        assert_eq!(top.ended()?.code(), Some(0), "{signal}");
    }
    let mut top = start(&agent)?;
    agent.stop()?;
    top.wait("word of it", |screen| screen.contains("agent away"))?;
    assert_eq!(top.ended()?.code(), Some(1));
    top.wait("the reason", |screen| {
        screen.contains("kvmeter: the agent has been away") && screen.contains("no agent answers")
    })
}

#[test]
fn a_batch_has_the_names_of_the_api_and_is_no_terminals() -> Result<()> {
    let Some(_host) = host("a_batch_has_the_names_of_the_api_and_is_no_terminals") else { return Ok(()) };
    let agent = Agent::start()?;
    let _vm = TestVm::start(&["--id", "b", "--duty", "50", "--vcpus", "2", "--memory", "32M", "--touch", "8M"])?;
    agent.wait_vms(&["b"])?;
    let output = agent.command(&["top", "--batch", "--json", "--count", "2", "--delay", "2s"])?;
    code(&output, 0)?;
    let looks: Vec<Value> = out(&output).lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    assert_eq!(looks.len(), 2, "one line a look");
    for look in &looks {
        let vm = look["vms"].as_array().and_then(|vms| vms.iter().find(|vm| vm["vm_id"] == "b")).context("no b")?;
        let number = |key: &str| vm[key].as_f64().with_context(|| format!("no {key}: {vm}"));
        assert!(number("cpu_percent")? > 0.0 && number("memory_used_bytes")? > 8e6, "{vm}");
        assert!(vm["state"] == "running" && vm["at"].is_string() && number("cpu_delay_percent")? >= 0.0, "{vm}");
        assert!(vm["network_in_bytes_per_sec"].is_null(), "it has no network, which is not 0: {vm}");
        let by_vcpu: f64 = vm["vcpus"].as_array().into_iter().flatten().filter_map(|v| v["cpu_percent"].as_f64()).sum();
        let by_role: f64 = vm["roles"].as_array().into_iter().flatten().filter_map(|r| r["cpu_percent"].as_f64()).sum();
        assert!((by_role - number("cpu_percent")?).abs() < 0.01, "roles sum to the whole: {vm}");
        assert!(by_vcpu > 0.0 && by_vcpu <= by_role + 0.01, "{vm}");
    }
    let table = agent.command(&["top", "--batch", "--delay", "200ms", "--filter", "B"])?;
    code(&table, 0)?;
    assert!(out(&table).lines().any(|line| line.starts_with("b ") && line.contains("running")), "{}", out(&table));
    let piped = agent.command(&["top"])?;
    code(&piped, 2)?;
    assert!(one_chain(&piped)?.contains("--batch"));
    let nobody = kvmeter(&["top", "--batch", "--socket", "/nonexistent/k.sock"])?;
    code(&nobody, 1)?;
    one_chain(&nobody).map(drop)
}
