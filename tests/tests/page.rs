//! Law: the page shows what the agent tells, by mouse, by keys and to a screen reader; it fetches nothing from elsewhere,
//! and nothing that a VM is called becomes markup. `KVMETER_PICTURES` names a directory to leave pictures in.

use std::net::TcpStream;

use anyhow::{Context as _, Result};
use kvmeter_tests::{
    agent::{Agent, Setup},
    browser::{self, Browser},
    http,
    skip::host,
    vmm::spawn::TestVm,
};
use serde_json::json;

const MARKUP: &str = "<img src=x onerror=alert(1)>";

fn agent() -> Result<Agent> {
    Agent::with(Setup::of("[history]\ninterval = \"1s\"\n"))
}

fn open(agent: &Agent, part: &str) -> Result<Browser> {
    Browser::open(&format!("http://127.0.0.1:{}/{part}", agent.port()), 1280, 900)
}

/// Leaves a picture for people, where they want one.
fn picture(browser: &mut Browser, name: &str) -> Result<()> {
    browser::pictures().map_or(Ok(()), |dir| browser.picture(&dir.join(format!("{name}.png"))))
}

const ROW: &str = "document.querySelector('tr[data-vm=\"spin\"]')";

#[test]
fn vms_are_listed_live_sorted_filtered_and_shown_one_by_one() -> Result<()> {
    let Some(_host) = browser::host("vms_are_listed_live_sorted_filtered_and_shown_one_by_one") else { return Ok(()) };
    let agent = agent()?;
    let _spin = TestVm::start(&["--id", "spin", "--duty", "60", "--memory", "64M", "--touch", "32M"])?;
    let _idle = TestVm::start(&["--id", "idle"])?;
    let _markup = TestVm::start(&["--id", "marked", "--name", MARKUP])?;
    agent.wait_vms(&["spin", "idle"])?;
    agent.command(&["annotate", "--vm-id", "spin", "--tenant", "acme"])?;
    let mut browser = open(&agent, "")?;
    browser.wait(&format!("{ROW} && parseFloat({ROW}.cells[3].innerText) > 0"))?;
    browser.wait(&format!("{ROW}.querySelectorAll('svg.spark path').length >= 2"))?;
    let order = "[...document.querySelectorAll('#vms tbody tr')].map((row) => row.dataset.vm)";
    browser.wait(&format!("{order}.indexOf('spin') === 0"))?;
    let names = browser.value("[...document.querySelectorAll('#vms tbody a')].map((a) => a.textContent)")?;
    assert!(names.as_array().is_some_and(|names| names.contains(&json!(MARKUP))), "a name is text: {names}");
    assert_eq!(browser.value("document.images.length")?, 0);
    picture(&mut browser, "list-light")?;

    browser.value("document.querySelector('th[data-key=name] button').focus()")?;
    browser.key("Enter")?;
    browser.wait("document.querySelector('th[data-key=name]').getAttribute('aria-sort') === 'ascending'")?;
    browser.wait(&format!("{order}.indexOf('idle') < {order}.indexOf('spin')"))?;
    browser.wait("[...document.querySelector('#tenant').options].some((option) => option.value === 'acme')")?;
    browser.value("(() => { const t = document.querySelector('#tenant'); t.value = 'acme'; t.dispatchEvent(new Event('change')); })()")?;
    browser.wait(&format!("{order}.join() === 'spin'"))?;
    let spoken = browser.spoken()?;
    for due in
        [("searchbox", "Filter VMs"), ("combobox", "Tenant"), ("table", "VMs"), ("link", "spin"), ("button", "CPU")]
    {
        assert!(spoken.iter().any(|(role, name)| (role.as_str(), name.as_str()) == due), "{due:?} is told: {spoken:?}");
    }
    assert!(spoken.iter().any(|(_, name)| name.starts_with("CPU of spin: the last hour")), "{spoken:?}");

    // A VM that comes while the page is open is shown without a reload.
    browser.value("(() => { const t = document.querySelector('#tenant'); t.value = ''; t.dispatchEvent(new Event('change')); })()")?;
    let _late = TestVm::start(&["--id", "late"])?;
    browser.wait(&format!("{order}.includes('late')"))?;
    assert_eq!(browser.wrong, Vec::<String>::new());
    Ok(())
}

#[test]
fn one_vm_is_shown_with_its_time_its_events_and_zoom() -> Result<()> {
    let Some(_host) = browser::host("one_vm_is_shown_with_its_time_its_events_and_zoom") else { return Ok(()) };
    let agent = agent()?;
    let _spin = TestVm::start(&["--id", "spin", "--duty", "60", "--memory", "64M", "--touch", "32M"])?;
    agent.wait_vms(&["spin"])?;
    agent.wait_until("samples", std::time::Duration::from_secs(60), |agent| {
        Ok(agent.json("/v1/vms/spin")?["samples"].as_u64() > Some(5))
    })?;
    let mut browser = open(&agent, "#/vms/spin")?;
    browser.wait("document.querySelectorAll('figure canvas').length === 5")?;
    let label = "document.querySelector('figure [role=img]').getAttribute('aria-label')";
    browser.wait(&format!("/CPU from .* last [1-9]/.test({label})"))?;
    browser.wait("document.body.innerText.includes('vm.compute.start')")?;
    let drawn = "(() => { const c = document.querySelector('figure canvas'); \
        return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data].some((byte) => byte > 0); })()";
    browser.wait(drawn)?;
    picture(&mut browser, "vm-light")?;
    let span = "document.querySelector('#span').textContent";
    let hour = browser.value(span)?;
    browser.value("document.querySelector('figure [role=img]').focus()")?;
    browser.key("+")?;
    browser.wait(&format!("{span} !== {hour}"))?;
    let zoomed = browser.value(span)?;
    let corner = browser.value(
        "(() => { const b = document.querySelector('.u-over').getBoundingClientRect(); return [b.left, b.top, b.width, b.height]; })()",
    )?;
    let number = |at: usize| corner[at].as_f64().context("no place");
    let middle = number(1)? + number(3)? / 2.0;
    browser.drag((number(0)? + number(2)? * 0.25, middle), (number(0)? + number(2)? * 0.75, middle))?;
    browser.wait(&format!("{span} !== {zoomed}"))?;
    browser
        .value("[...document.querySelectorAll('button')].find((button) => button.textContent === '1 week').click()")?;
    browser.wait("[...document.querySelectorAll('button')].find((b) => b.textContent === '1 week').getAttribute('aria-pressed') === 'true'")?;
    browser.wait(&format!("{span}.endsWith('a point each 5040 s')"))?;
    browser.call(
        "Emulation.setEmulatedMedia",
        &json!({ "features": [{ "name": "prefers-color-scheme", "value": "dark" }] }),
    )?;
    browser.wait("getComputedStyle(document.body).backgroundColor === 'rgb(20, 23, 27)'")?;
    browser
        .value("[...document.querySelectorAll('button')].find((button) => button.textContent === '1 hour').click()")?;
    browser.wait(&format!("{span}.endsWith('a point each 30 s')"))?;
    picture(&mut browser, "vm-dark")?;
    browser.value("document.querySelector('#theme').click()")?;
    browser.wait("getComputedStyle(document.body).backgroundColor === 'rgb(253, 253, 252)'")?;
    assert_eq!(browser.wrong, Vec::<String>::new());
    Ok(())
}

#[test]
fn the_agents_own_health_is_shown_and_what_is_not_measured() -> Result<()> {
    let Some(_host) = browser::host("the_agents_own_health_is_shown_and_what_is_not_measured") else { return Ok(()) };
    let agent = Agent::with(Setup::of("[bpf]\nenabled = \"off\"\n"))?;
    let status = agent.json("/v1/status")?;
    let missing = status["features"].as_array().context("no features")?.iter().find(|f| f["available"] == false);
    let why = missing.context("all is there")?["why"].as_str().context("no why")?.to_owned();
    let mut browser = open(&agent, "#/agent")?;
    browser.wait(&format!("document.body.innerText.includes({})", json!(why)))?;
    browser.wait("document.querySelector('#health').textContent.startsWith('healthy, ')")?;
    picture(&mut browser, "agent-light")?;
    browser.value("location.hash = '#/events'")?;
    browser.wait("document.body.innerText.includes('agent.up')")?;
    assert_eq!(browser.wrong, Vec::<String>::new());
    agent.stop()?;
    browser.wait("document.querySelector('#health').textContent === 'the agent does not answer'")
}

#[test]
fn the_page_is_whole_without_anybody_else() -> Result<()> {
    let Some(_host) = host("the_page_is_whole_without_anybody_else") else { return Ok(()) };
    let agent = Agent::start()?;
    let get = |path: &str| http::request(TcpStream::connect(("127.0.0.1", agent.port()))?, "GET", path);
    let page = get("/")?;
    assert_eq!((page.code, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let policy = page.header("content-security-policy").context("no policy")?;
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    for file in ["page/main.js", "page/uplot.js", "page/uplot.css", "page/page.css"] {
        assert!(page.body.contains(file), "{file} is named");
        let part = get(&format!("/{file}"))?;
        assert!(part.code == 200 && part.body.len() > 200 && part.header("etag").is_some(), "{file}: {}", part.head);
    }
    Ok(())
}
