//! Law: many VMs are as readable as a few, on the page and at a terminal: a screenful at a time, the busiest first, and each
//! is found. `KVMETER_FLEET` names another number of them than CI has; `KVMETER_PICTURES` a directory for what it looks like.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use kvmeter_tests::{
    agent::{Agent, Setup},
    browser::{self, Browser},
    command::{code, out},
    skip::host,
    terminal::Terminal,
    vmm::spawn::{TestFleet, TestVm, fleet_size},
};
use serde_json::{Value, json};

const VMS: u32 = 200;
const PATIENCE: Duration = Duration::from_secs(120);

/// That many idle VMs and a busy one; how many there are.
fn many() -> Result<(Agent, (TestFleet, TestVm), u32)> {
    let count = fleet_size(VMS);
    let agent = Agent::with(Setup::of("[history]\ninterval = \"1s\"\n"))?;
    let vms = (TestFleet::start(count, &["--id", "m"])?, TestVm::start(&["--id", "spin", "--duty", "60"])?);
    agent.wait_running(count + 1, PATIENCE)?;
    agent.wait_samples(3)?;
    Ok((agent, vms, count + 1))
}

#[test]
fn the_page_shows_fifty_of_many_vms_the_busiest_first_and_finds_each() -> Result<()> {
    const TEST: &str = "the_page_shows_fifty_of_many_vms_the_busiest_first_and_finds_each";
    const ORDER: &str = "[...document.querySelectorAll('#vms tbody tr')].map((row) => row.dataset.vm)";
    const COUNT: &str = "document.querySelector('.count').textContent";
    let Some(_host) = browser::host(TEST) else { return Ok(()) };
    let (agent, _vms, count) = many()?;
    let mut browser = Browser::open(&format!("http://127.0.0.1:{}/", agent.port()), 1280, 900)?;
    browser.wait(&format!("{ORDER}.length === 50 && {ORDER}[0] === 'spin'"))?;
    browser.wait(&format!("{COUNT} === '1–50 of {count}, {count} VMs in all'"))?;
    browser.wait("document.querySelectorAll('svg.spark.cpu path').length === 50")?;
    // No VM has a tenant.
    browser
        .wait("[...document.querySelector('#tenant').options].map((option) => option.textContent).join() === 'all'")?;
    if let Some(dir) = browser::pictures() {
        browser.picture(&dir.join("many-light.png"))?;
    }
    let button =
        |name: &str| format!("[...document.querySelectorAll('button')].find((b) => b.textContent === '{name}')");
    browser.value(&format!("{}.click()", button("Next")))?;
    browser.wait(&format!("{COUNT}.startsWith('51–100 of ')"))?;
    // Idle ones change places; the busy one does not.
    let spin = browser.value(&format!("{ORDER}.length === 50 && !{ORDER}.includes('spin')"))?;
    ensure!(spin == json!(true), "the second fifty: {}", browser.value(ORDER)?);
    browser.value("document.querySelector('th[data-key=name] button').click()")?;
    let type_in = |text: &str| {
        format!(
            "(() => {{ const f = document.querySelector('#filter'); f.value = {}; f.dispatchEvent(new Event('input')); }})()",
            json!(text)
        )
    };
    for id in ["spin", &format!("m-{}", count - 2), "m-0"] {
        browser.value(&type_in(id))?;
        browser.wait(&format!("{ORDER}.includes('{id}')"))?;
    }
    browser.value(&type_in(""))?;
    browser.wait(&format!("{ORDER}.length === 50"))?;
    let took = "(() => { const from = performance.now(); for (let i = 0; i < 10; i += 1) \
        document.querySelector('th[data-key=cpu] button').click(); return (performance.now() - from) / 10; })()";
    println!("{count} VMs are sorted and drawn in {} ms", browser.value(took)?);
    ensure!(browser.wrong.is_empty(), "{:?}", browser.wrong);
    Ok(())
}

#[test]
fn a_terminal_shows_the_busiest_of_many_vms_and_finds_each() -> Result<()> {
    let Some(_host) = host("a_terminal_shows_the_busiest_of_many_vms_and_finds_each") else { return Ok(()) };
    let (agent, _vms, count) = many()?;
    let mut top = Terminal::start(agent.socket(), &["top", "--delay", "500ms"], 24, 80)?;
    let is_vm = |line: &&str| line.split_whitespace().nth(1) == Some("running");
    let line = |screen: &str, at: usize| screen.lines().filter(is_vm).nth(at).map(str::to_owned);
    top.wait("the busiest first", |screen| {
        screen.contains("STATE") && line(screen, 0).is_some_and(|first| first.starts_with("spin "))
    })?;
    let screen = top.text();
    ensure!(screen.lines().all(|line| line.chars().count() <= 80), "{screen}");
    ensure!(screen.lines().filter(is_vm).count() >= 15, "a screenful: {screen}");
    if let Some(dir) = browser::pictures() {
        fs::write(dir.join("many-top.txt"), &screen)?;
    }
    let last = format!("m-{}", count - 2);
    top.keys(&format!("/{last}\r"))?;
    top.wait("the one that was asked for", |screen| {
        line(screen, 0).is_some_and(|first| first.starts_with(&format!("{last} "))) && line(screen, 1).is_none()
    })?;
    top.keys("qq")?;
    top.ended()?;
    let batch = agent.command(&["top", "--batch", "--json", "--delay", "200ms"])?;
    code(&batch, 0)?;
    let look: Value = serde_json::from_str(out(&batch).lines().next().context("no line")?)?;
    let told = look["vms"].as_array().context("no VMs")?.len();
    ensure!(told == count as usize, "{told} of {count}");
    Ok(())
}
