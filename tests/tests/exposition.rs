//! Law: everything shown is bounded and named. The text is Prometheus's own format, every family is one of the
//! catalogue's, no name forges a line.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    net::TcpStream,
    process::{Command, Output, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use kvmeter_tests::{
    agent::{Agent, Setup},
    http,
    metrics::Metrics,
    pair::one_of_each,
    skip::{host, installed, skipped},
    vmm::spawn::{TestFleet, TestVm},
};

const PATIENCE: Duration = Duration::from_secs(60);

fn promtool(text: &str) -> Result<Output> {
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    child.stdin.take().context("no stdin")?.write_all(text.as_bytes())?;
    Ok(child.wait_with_output()?)
}

fn assert_promtool_is_content(text: &str) -> Result<()> {
    let output = promtool(text)?;
    let said = [output.stdout, output.stderr].concat();
    ensure!(
        output.status.success() && said.is_empty(),
        "promtool: {}: {}",
        output.status,
        String::from_utf8_lossy(&said)
    );
    Ok(())
}

#[test]
fn promtool_has_no_complaint() -> Result<()> {
    if !installed("promtool") {
        skipped("promtool_has_no_complaint", "needs promtool (Debian package prometheus)");
        return Ok(());
    }
    let Some(_host) = host("promtool_has_no_complaint") else { return Ok(()) };
    let agent = Agent::start()?;
    assert_promtool_is_content(&agent.scrape()?)?;
    let _vm = one_of_each(&agent)?;
    assert_promtool_is_content(&agent.scrape()?)
}

#[test]
fn a_scrape_that_is_sent_in_pieces_is_whole_and_each_family_is_in_one_place() -> Result<()> {
    const TEST: &str = "a_scrape_that_is_sent_in_pieces_is_whole_and_each_family_is_in_one_place";
    /// Many times the text of a piece.
    const VMS: u32 = 120;
    let Some(_host) = host(TEST) else { return Ok(()) };
    let agent = Agent::start()?;
    let _fleet = TestFleet::start(VMS, &["--id", "p", "--vcpus", "1"])?;
    agent.wait_running(VMS, PATIENCE)?;
    agent.wait_samples(2)?;
    let text = agent.scrape()?;
    ensure!(text.len() > 256 << 10, "{} bytes are not many pieces", text.len());
    ensure!(text.contains("\nkvmeter_build_info{"), "no end");
    let mut families = BTreeSet::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# HELP ")) {
        let name = line.split(' ').next().context("no name")?;
        ensure!(families.insert(name.to_owned()), "{name} in two places");
    }
    let metrics = Metrics::parse(&text)?;
    for name in ["kvmeter_vm_info", "kvmeter_vm_running", "kvmeter_vm_memory_byte_seconds_total"] {
        let vms: BTreeSet<_> = metrics.all(name, &[]).map(|series| series.labels["vm_id"].clone()).collect();
        ensure!(vms.len() == VMS as usize, "{name} has {} of {VMS} VMs", vms.len());
    }
    if installed("promtool") { assert_promtool_is_content(&text) } else { Ok(()) }
}

/// A row of `kvmeter catalog`: type, labels, help.
type Row = (String, BTreeSet<String>, String);

/// `kvmeter catalog`, cut at the columns its head names.
fn catalogue(agent: &Agent) -> Result<BTreeMap<String, Row>> {
    let text = String::from_utf8(agent.command(&["catalog"])?.stdout)?;
    let mut lines = text.lines();
    let head = lines.next().context("an empty catalogue")?;
    let column = |name: &str| head.find(name).with_context(|| format!("no column {name}: {head}"));
    let (kind, unit, labels, help) = (column("TYPE")?, column("UNIT")?, column("LABELS")?, column("HELP")?);
    let mut rows = BTreeMap::new();
    for line in lines {
        let cell = |from: usize, to: usize| line.get(from..to).map(str::trim).context("a short line");
        let keys = cell(labels, help)?.split(',').filter(|l| !l.is_empty()).map(str::to_owned).collect();
        let row = (cell(kind, unit)?.to_owned(), keys, cell(help, line.len())?.to_owned());
        ensure!(rows.insert(cell(0, kind)?.to_owned(), row).is_none(), "twice in the catalogue: {line}");
    }
    Ok(rows)
}

/// The family of a series: its name without a histogram's suffix.
fn family<'a>(series: &'a str, catalogue: &BTreeMap<String, Row>) -> &'a str {
    let stems = ["_bucket", "_sum", "_count"].iter().filter_map(|suffix| series.strip_suffix(suffix));
    stems.into_iter().find(|stem| catalogue.get(*stem).is_some_and(|row| row.0 == "histogram")).unwrap_or(series)
}

const FORBIDDEN: [&str; 14] = [
    "pid",
    "tgid",
    "tid",
    "ppid",
    "path",
    "file",
    "dir",
    "time",
    "timestamp",
    "at",
    "error",
    "message",
    "comm",
    "argv",
];

#[test]
fn every_family_is_in_the_catalogue_with_its_type_labels_and_help() -> Result<()> {
    let Some(_host) = host("every_family_is_in_the_catalogue_with_its_type_labels_and_help") else { return Ok(()) };
    let agent = Agent::start()?;
    let _vm = one_of_each(&agent)?;
    let (text, catalogue) = (agent.scrape()?, catalogue(&agent)?);
    let mut shown = BTreeSet::new();
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        let (Some("#"), Some(what), Some(name), Some(rest)) = (words.next(), words.next(), words.next(), words.next())
        else {
            continue;
        };
        let (kind, _, help) = catalogue.get(name).with_context(|| format!("not in the catalogue: {name}"))?;
        match what {
            "TYPE" => assert_eq!(rest, kind, "{name}"),
            "HELP" => assert_eq!(rest, help, "{name}"),
            _ => bail!("an unknown comment: {line}"),
        }
        shown.insert(name.to_owned());
    }
    for series in &Metrics::parse(&text)?.0 {
        let name = family(&series.name, &catalogue);
        assert!(shown.contains(name), "{name} has no TYPE and HELP");
        let keys: BTreeSet<String> = series.labels.keys().filter(|key| *key != "le").cloned().collect();
        assert_eq!(keys, catalogue[name].1, "{name}");
        assert!(!keys.iter().any(|key| FORBIDDEN.contains(&key.as_str())), "{name}: {keys:?}");
    }
    let absent: Vec<_> = catalogue.keys().filter(|name| !shown.contains(*name)).collect();
    eprintln!("{} families of {} shown; not shown now: {absent:?}", shown.len(), catalogue.len());
    assert!(catalogue.keys().all(|name| name.starts_with("kvmeter_")));
    Ok(())
}

#[test]
fn one_scrape_has_a_vm_once_and_no_more_than_65_series_of_it() -> Result<()> {
    let Some(_host) = host("one_scrape_has_a_vm_once_and_no_more_than_65_series_of_it") else { return Ok(()) };
    let agent = Agent::start()?;
    let _runs = one_of_each(&agent)?;
    // The same id again while the first lives, and one that comes back after its end.
    let copy = TestVm::start(&["--id", "runs"])?;
    let _again = TestVm::start(&["--id", "ended", "--vcpus", "4", "--workers", "3", "--exit-rate", "500"])?;
    let is_copy = |id: &str| id.starts_with(&format!("kvmeter-testvm-{}-", copy.pid()));
    agent.wait_until("the copy", PATIENCE, |a| {
        Ok(a.metrics()?.all("kvmeter_vm_info", &[]).any(|s| is_copy(&s.labels["vm_id"])))
    })?;
    agent.wait_vms(&["runs", "ended"])?;
    agent.wait_samples(2)?;
    let metrics = agent.metrics()?;
    let mut seen = BTreeSet::new();
    for series in &metrics.0 {
        assert!(seen.insert((&series.name, &series.labels)), "twice: {series:?}");
    }
    let ids: Vec<_> = metrics.all("kvmeter_vm_info", &[]).map(|s| s.labels["vm_id"].as_str()).collect();
    let unique: BTreeSet<_> = ids.iter().copied().collect();
    assert_eq!(ids.len(), unique.len(), "{ids:?}");
    assert_eq!(metrics.one("kvmeter_vm_running", &[("vm_id", "ended")]), Some(1.0), "the new life replaced the old");
    assert_eq!(metrics.one("kvmeter_vm_id_conflicts_total", &[]), Some(1.0), "the copy took its fallback");
    for id in unique {
        let count = metrics.0.iter().filter(|s| s.labels.get("vm_id").is_some_and(|v| v == id)).count();
        eprintln!("{id}: {count} series");
        assert!(count <= 65, "{id}: {count}");
    }
    Ok(())
}

#[test]
fn a_stopped_vm_shows_its_counters_and_info_and_no_gauge_but_running() -> Result<()> {
    let Some(_host) = host("a_stopped_vm_shows_its_counters_and_info_and_no_gauge_but_running") else { return Ok(()) };
    // It lingers for longer than the next sample takes, also on a busy machine.
    let agent = Agent::with(Setup::of("sample_interval = \"200ms\"\n[metrics]\nlinger = \"15s\"\n"))?;
    let _vm = one_of_each(&agent)?;
    // What is read at a sample only is not there before the first.
    agent.wait_samples(1)?;
    let (metrics, catalogue) = (agent.metrics()?, catalogue(&agent)?);
    let of = |id: &str| -> BTreeSet<String> {
        let series = metrics.0.iter().filter(|s| s.labels.get("vm_id").is_some_and(|v| v == id));
        series.map(|s| family(&s.name, &catalogue).to_owned()).collect()
    };
    let allowed = |name: &&String| {
        catalogue[*name].0 != "gauge" || ["kvmeter_vm_info", "kvmeter_vm_running"].contains(&name.as_str())
    };
    let expected: BTreeSet<String> = of("runs").iter().filter(allowed).cloned().collect();
    assert_eq!(of("ended"), expected);
    agent.wait_until("the end of its linger time", PATIENCE, |a| {
        Ok(a.metrics()?.all("kvmeter_vm_info", &[("vm_id", "ended")]).next().is_none())
    })
}

/// Names as hostile as a command line allows, with what a label may show of them.
fn hostile() -> [(String, String); 5] {
    let same = |text: &str| (text.to_owned(), text.to_owned());
    [
        same("say \"hi\" \\ {x=\"1\"} # 2"),
        ("two\nlines\r\tand \u{1b}[2J".to_owned(), "two\u{fffd}lines\u{fffd}\u{fffd}and \u{fffd}[2J".to_owned()),
        same("größe 虚拟机 🦀"),
        ("é".repeat(100), "é".repeat(64)),
        (
            "\"}\nkvmeter_vm_running{vm_id=\"forged\",name=\"\"} 7\n".to_owned(),
            "\"}\u{fffd}kvmeter_vm_running{vm_id=\"forged\",name=\"\"} 7\u{fffd}".to_owned(),
        ),
    ]
}

#[test]
fn hostile_names_are_escaped_bounded_and_forge_nothing() -> Result<()> {
    let Some(_host) = host("hostile_names_are_escaped_bounded_and_forge_nothing") else { return Ok(()) };
    let agent = Agent::start()?;
    let names = hostile();
    let start = |name: &String| TestVm::start(&["--id", "same id\n", "--name", name]);
    let vms = names.iter().map(|(name, _)| start(name)).collect::<Result<Vec<_>>>()?;
    agent.wait_until("all of them", PATIENCE, |a| {
        let metrics = a.metrics()?;
        Ok(names.iter().all(|(_, shown)| metrics.all("kvmeter_vm_info", &[("name", shown)]).count() == 1))
    })?;
    let text = agent.scrape()?;
    let metrics = Metrics::parse(&text)?;
    for (vm, (_, shown)) in vms.iter().zip(&names) {
        let prefix = format!("kvmeter-testvm-{}-", vm.pid());
        let wanted = [("name", shown.as_str())];
        let info = metrics.all("kvmeter_vm_info", &wanted).next().with_context(|| format!("no {shown:?}:\n{text}"))?;
        assert!(info.labels["vm_id"].starts_with(&prefix), "{:?}", info.labels);
        let id = &info.labels["vm_id"];
        let one = agent.json(&format!("/v1/vms/{id}"))?;
        assert_eq!(one["name"], shown.as_str());
        assert_eq!(agent.lines("vm.compute.start", id)?.len(), 1);
    }
    assert!(metrics.0.iter().all(|s| s.labels.values().all(|v| v.len() <= 128 && !v.chars().any(char::is_control))));
    assert!(metrics.all("kvmeter_vm_running", &[("vm_id", "forged")]).next().is_none());
    if installed("promtool") {
        assert_promtool_is_content(&text)?;
    }
    let table = String::from_utf8(agent.command(&["vms"])?.stdout)?;
    let rows =
        table.lines().filter(|line| vms.iter().any(|vm| line.starts_with(&format!("kvmeter-testvm-{}-", vm.pid()))));
    assert_eq!((rows.count(), table.contains('\u{1b}')), (vms.len(), false), "one line a VM:\n{table}");
    agent.verify()
}

#[test]
fn the_content_type_is_the_text_formats_on_both_listeners() -> Result<()> {
    let Some(_host) = host("the_content_type_is_the_text_formats_on_both_listeners") else { return Ok(()) };
    let agent = Agent::start()?;
    let answer = agent.request("GET", "/metrics")?;
    let kind = answer.header("content-type").context("no content type")?;
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    assert!(answer.body.ends_with('\n'));
    let (code, body) = http::get(TcpStream::connect(("127.0.0.1", agent.port()))?, "/metrics")?;
    assert_eq!(code, 200);
    Metrics::parse(&body)?;
    Ok(())
}
