//! Law: views only read. The text is Prometheus's own format, every family is one of the catalogue's, and what is shown
//! is durable.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    net::{TcpListener, TcpStream},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use kvmeter_tests::{
    agent::{Agent, Answer, Setup, http_get},
    metrics::Metrics,
    skip::{host, skipped},
    vmm::spawn::TestVm,
};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(20);

fn setup(config: &str) -> Setup {
    Setup { config: config.to_owned(), ..Setup::default() }
}

fn installed(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success())
}

fn scrape(agent: &Agent) -> Result<String> {
    let (code, body) = agent.get("/metrics")?;
    ensure!(code == 200, "/metrics: {code}: {body}");
    Ok(body)
}

/// One VM that runs, and one that has ended and is still shown.
fn one_of_each(agent: &Agent) -> Result<TestVm> {
    let runs = TestVm::start(&["--id", "runs", "--duty", "20", "--vcpus", "2"])?;
    let _ended = TestVm::start(&["--id", "ended", "--lifetime", "200ms"])?.wait()?;
    agent.wait_until("one of each", PATIENCE, |a| {
        let metrics = a.metrics()?;
        let state = |id| metrics.one("kvmeter_vm_running", &[("vm_id", id)]);
        Ok(state("runs") == Some(1.0) && state("ended") == Some(0.0))
    })?;
    Ok(runs)
}

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
    assert_promtool_is_content(&scrape(&agent)?)?;
    let _vm = one_of_each(&agent)?;
    assert_promtool_is_content(&scrape(&agent)?)
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
    let (text, catalogue) = (scrape(&agent)?, catalogue(&agent)?);
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
    let agent = Agent::with(setup("[metrics]\nlinger = \"3s\"\n"))?;
    let _vm = one_of_each(&agent)?;
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
    let text = scrape(&agent)?;
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
    let (code, body) = http_get(TcpStream::connect(("127.0.0.1", agent.port()))?, "/metrics")?;
    assert_eq!(code, 200);
    Metrics::parse(&body)?;
    Ok(())
}

/// A real Prometheus, killed when dropped.
struct Prometheus {
    child: Child,
    port: u16,
    dir: TempDir,
}

impl Prometheus {
    fn start(target: u16) -> Result<Self> {
        let (dir, port) = (TempDir::new()?, TcpListener::bind("127.0.0.1:0")?.local_addr()?.port());
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n- job_name: kvmeter\n  \
             static_configs: [{{targets: ['127.0.0.1:{target}']}}]\n"
        );
        std::fs::write(dir.path().join("prometheus.yml"), config)?;
        let log = std::fs::File::create(dir.path().join("log"))?;
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", dir.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        Ok(Self { child, port, dir })
    }

    /// The results of an instant query: labels and value. Empty until it answers.
    fn query(&self, query: &str) -> Result<Vec<(Value, f64)>> {
        let Ok(stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return Ok(Vec::new()) };
        let encoded: String = query.bytes().map(|b| format!("%{b:02X}")).collect();
        let (code, body) = http_get(stream, &format!("/api/v1/query?query={encoded}"))?;
        if code == 503 {
            return Ok(Vec::new());
        }
        ensure!(code == 200, "{query}: {code}: {body}");
        let answer: Value = serde_json::from_str(&body)?;
        let result = answer["data"]["result"].as_array().context("no result")?;
        let one = |r: &Value| Ok((r["metric"].clone(), r["value"][1].as_str().context("no value")?.parse()?));
        result.iter().map(one).collect()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn a_real_prometheus_takes_every_scrape_and_joins_with_info() -> Result<()> {
    if !installed("prometheus") {
        skipped("a_real_prometheus_takes_every_scrape_and_joins_with_info", "needs prometheus");
        return Ok(());
    }
    let Some(_host) = host("a_real_prometheus_takes_every_scrape_and_joins_with_info") else { return Ok(()) };
    let agent = Agent::start()?;
    let _vm = one_of_each(&agent)?;
    let prometheus = Prometheus::start(agent.port())?;
    let end = Instant::now() + Duration::from_secs(30);
    let (join, rate) = (
        "kvmeter_vm_running * on(vm_id) group_left(hypervisor, uuid) kvmeter_vm_info",
        "sum by (vm_id) (rate(kvmeter_vm_cpu_seconds_total{vm_id=\"runs\"}[10s])) > 0",
    );
    while prometheus.query(rate)?.is_empty() || prometheus.query(join)?.len() < 2 {
        ensure!(Instant::now() < end, "nothing to be seen:\n{}", prometheus.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    let up = prometheus.query("min_over_time(up[1m])")?;
    assert_eq!(up.iter().map(|(_, value)| *value).collect::<Vec<_>>(), [1.0], "{}", prometheus.log());
    let states: BTreeMap<_, _> = prometheus
        .query(join)?
        .into_iter()
        .map(|(labels, v)| (labels["vm_id"].as_str().unwrap_or("").to_owned(), v))
        .collect();
    assert_eq!((states.get("ended"), states.get("runs")), (Some(&0.0), Some(&1.0)), "{states:?}");
    let (_, used) = prometheus.query(rate)?.pop().context("no rate")?;
    eprintln!("Prometheus sees runs at {used:.3} cores, {:?}", prometheus.query("scrape_duration_seconds")?);
    let shown = Metrics::parse(&scrape(&agent)?)?.0.len();
    let (_, taken) = prometheus.query("scrape_samples_scraped")?.pop().context("no count")?;
    eprintln!("{taken} samples taken, {shown} series shown now");
    assert!(taken > 40.0);
    Ok(())
}

fn slowest(agent: &Agent, times: u32) -> Result<Duration> {
    let mut slowest = Duration::ZERO;
    for _ in 0..times {
        let began = Instant::now();
        agent.metrics()?;
        slowest = slowest.max(began.elapsed());
    }
    Ok(slowest)
}

#[test]
fn a_vmm_that_is_stopped_delays_no_scrape() -> Result<()> {
    let Some(_host) = host("a_vmm_that_is_stopped_delays_no_scrape") else { return Ok(()) };
    let agent = Agent::start()?;
    let vm = TestVm::start(&["--id", "hung", "--duty", "30", "--workers", "2", "--worker-duty", "5"])?;
    agent.wait_vms(&["hung"])?;
    let before = slowest(&agent, 20)?;
    vm.signal(Signal::SIGSTOP)?;
    let during = slowest(&agent, 20)?;
    agent.wait_samples(2)?;
    let later = slowest(&agent, 20)?;
    eprintln!("slowest of 20 scrapes: {before:?} before, {during:?} and {later:?} while stopped");
    assert!(during.max(later) < Duration::from_secs(1), "{before:?} {during:?} {later:?}");
    assert_eq!(agent.metrics()?.one("kvmeter_vm_running", &[("vm_id", "hung")]), Some(1.0));
    Ok(())
}

#[test]
fn scraping_changes_no_state() -> Result<()> {
    let Some(_host) = host("scraping_changes_no_state") else { return Ok(()) };
    let agent = Agent::with(setup("sample_interval = \"60s\"\n"))?;
    let _vm = TestVm::start(&["--id", "busy", "--duty", "60"])?;
    agent.wait_vms(&["busy"])?;
    let serial = || -> Result<i64> { agent.json("/v1/status")?["snapshot"]["serial"].as_i64().context("no serial") };
    let lines = || -> Result<Vec<_>> {
        // What the agent reads of itself when asked is no state.
        Ok(agent.metrics()?.0.into_iter().filter(|s| s.name != "kvmeter_ledger_free_bytes").collect())
    };
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(100));
        let (before, first) = (serial()?, lines()?);
        for path in
            ["/metrics", "/v1/vms", "/v1/vms?detail=true", "/v1/vms/busy", "/v1/vms/busy/usage", "/healthz", "/nowhere"]
        {
            for _ in 0..5 {
                agent.get(path)?;
            }
        }
        let (last, after) = (lines()?, serial()?);
        // A wake-up from outside (a uevent of another device) may have made a turn between the two.
        if before == after {
            assert_eq!(first, last);
            return Ok(());
        }
    }
    bail!("twenty times the state moved on under 37 reads; do they move it?")
}

fn problem(answer: &Answer, code: u16) -> Result<Value> {
    let context = format!("{}\n{}", answer.head, answer.body);
    ensure!(answer.code == code, "{code} expected: {context}");
    ensure!(answer.header("content-type") == Some("application/problem+json"), "no problem+json: {context}");
    let body = answer.json()?;
    ensure!(body["status"] == code, "{context}");
    for key in ["type", "title", "detail"] {
        ensure!(body[key].as_str().is_some_and(|text| !text.is_empty()), "no {key}: {context}");
    }
    Ok(body)
}

#[test]
fn every_error_is_a_problem_that_says_what_is_wrong() -> Result<()> {
    let Some(_host) = host("every_error_is_a_problem_that_says_what_is_wrong") else { return Ok(()) };
    let agent = Agent::start()?;
    for path in ["/v1/vms/nobody", "/v1/vms/nobody/usage", "/v1/vms/a%2Fb%20c"] {
        problem(&agent.request("GET", path)?, 404)?;
    }
    let unknown = problem(&agent.request("GET", "/v1/nothing")?, 404)?;
    assert!(unknown["detail"].as_str().unwrap_or("").contains("/v1/nothing"));
    for (method, path) in [("POST", "/metrics"), ("DELETE", "/v1/vms"), ("PUT", "/v1/vms/x")] {
        let answer = agent.request(method, path)?;
        problem(&answer, 405)?;
        assert!(
            answer.header("allow").is_some_and(|allowed| allowed.contains("GET")),
            "405 names what is allowed: {}",
            answer.head
        );
    }
    let bad = problem(&agent.request("GET", "/v1/vms?detail=perhaps")?, 400)?;
    assert_eq!(bad["parameter"], "detail");
    assert_eq!(agent.request("HEAD", "/metrics")?.code, 200);
    Ok(())
}

#[test]
fn a_path_that_is_no_text_is_a_problem_too() -> Result<()> {
    let Some(_host) = host("a_path_that_is_no_text_is_a_problem_too") else { return Ok(()) };
    let agent = Agent::start()?;
    let answer = agent.request("GET", "/v1/vms/%FF%FE")?;
    let code = if answer.code == 404 { 404 } else { 400 };
    problem(&answer, code).map(drop)
}

/// A small disk of its own, which a test can fill; unmounted when dropped.
struct Disk(TempDir);

impl Disk {
    fn mount(bytes: u32) -> Result<Self> {
        let dir = TempDir::new()?;
        let size = format!("size={bytes},mode=0700");
        nix::mount::mount(
            Some("kvmeter-tests"),
            dir.path(),
            Some("tmpfs"),
            nix::mount::MsFlags::empty(),
            Some(size.as_str()),
        )?;
        Ok(Self(dir))
    }

    fn fill(&self) -> Result<()> {
        let mut file = std::fs::File::create(self.0.path().join("ballast"))?;
        let full = loop {
            match file.write_all(&[0; 4096]) {
                Ok(()) => {}
                Err(error) => break error,
            }
        };
        ensure!(full.kind() == std::io::ErrorKind::StorageFull, "{full}");
        Ok(())
    }

    fn free(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.0.path().join("ballast"))?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(self.0.path(), nix::mount::MntFlags::MNT_DETACH);
    }
}

/// An agent whose ledger is on this disk.
fn agent_on(disk: &Disk, config: &str) -> Result<Agent> {
    let dir = TempDir::new()?;
    std::os::unix::fs::symlink(disk.0.path(), dir.path().join("data"))?;
    Agent::with(Setup { dir: Some(dir), ..setup(config) })
}

#[test]
fn a_full_disk_makes_health_bad_and_loses_no_line() -> Result<()> {
    let Some(_host) = host("a_full_disk_makes_health_bad_and_loses_no_line") else { return Ok(()) };
    let disk = Disk::mount(256 << 10)?;
    let agent = agent_on(&disk, "[ledger]\nheartbeat = \"1s\"\n")?;
    let early = TestVm::start(&["--id", "early", "--duty", "10"])?;
    agent.wait_vms(&["early"])?;
    assert_eq!(agent.get("/healthz")?, (200, "ok\n".to_owned()));
    disk.fill()?;
    // More lines than the rest of the file's last page holds.
    let mut late = (0..8).map(|n| TestVm::start(&["--id", &format!("late{n}")])).collect::<Result<Vec<_>>>()?;
    agent.wait_until("bad health", PATIENCE, |a| Ok(a.get("/healthz")?.0 == 503))?;
    let said = problem(&agent.request("GET", "/healthz")?, 503)?;
    assert!(said["detail"].as_str().unwrap_or("").contains("ledger"), "{said}");
    drop(late.pop());
    drop(early);
    agent.wait_samples(3)?;
    let metrics = agent.metrics()?;
    let spooled = metrics.one("kvmeter_ledger_spooled_records", &[]).unwrap_or(0.0);
    let failures = metrics.sum("kvmeter_ledger_write_failures_total", &[]);
    assert!(spooled > 0.0 && failures > 0.0, "{spooled} spooled, {failures} failures");
    let status = agent.json("/v1/status")?;
    assert_eq!(status["ledger"]["degraded"], true, "{status}");
    let doctor = agent.command(&["doctor"])?;
    assert_eq!(doctor.status.code(), Some(3), "doctor asks the agent: {}", String::from_utf8_lossy(&doctor.stdout));
    disk.free()?;
    agent.wait_until("good health", PATIENCE, |a| Ok(a.get("/healthz")?.0 == 200))?;
    agent.wait_until("an empty spool", PATIENCE, |a| {
        Ok(a.metrics()?.one("kvmeter_ledger_spooled_records", &[]) == Some(0.0))
    })?;
    eprintln!("{spooled} lines waited, {failures} failed attempts");
    drop(late);
    for id in ["early", "late0", "late7"] {
        agent.stop_line(id)?;
    }
    let lines = agent.ledger()?;
    let seqs: Vec<_> = lines.iter().map(|line| line["seq"].as_u64().unwrap_or(0)).collect();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>(), "no hole and in order");
    kvmeter_tests::agent::lives(&lines)?;
    assert_eq!(agent.lines("vm.compute.start", "late7")?.len(), 1);
    assert_eq!(agent.json("/v1/status")?["ledger"]["dropped_heartbeats"], 0);
    agent.verify()
}

#[test]
fn a_ledger_that_hangs_shows_no_new_vm_and_makes_health_bad() -> Result<()> {
    let Some(_host) = host("a_ledger_that_hangs_shows_no_new_vm_and_makes_health_bad") else { return Ok(()) };
    let Some(disk) = Frozen::mount()? else {
        skipped(
            "a_ledger_that_hangs_shows_no_new_vm_and_makes_health_bad",
            "needs a loop device with ext4 and fsfreeze",
        );
        return Ok(());
    };
    let agent = agent_on(&disk.disk, "")?;
    let ice = disk.freeze()?;
    let vm = TestVm::start(&["--id", "unwritten", "--duty", "10"])?;
    agent.wait_samples(3)?;
    assert!(
        agent.metrics()?.all("kvmeter_vm_info", &[("vm_id", "unwritten")]).next().is_none(),
        "shown, and not durable"
    );
    assert_eq!(agent.get("/v1/vms/unwritten")?.0, 404);
    let bad = agent.wait_until("bad health", Duration::from_secs(20), |a| Ok(a.get("/healthz")?.0 == 503));
    drop(ice);
    bad.context("a ledger whose sync hangs is stuck")?;
    agent.wait_vms(&["unwritten"])?;
    drop(vm);
    agent.stop_line("unwritten")?;
    agent.wait_until("good health", PATIENCE, |a| Ok(a.get("/healthz")?.0 == 200))?;
    agent.verify()
}

/// An ext4 file system that can be frozen: then writing to it hangs.
struct Frozen {
    disk: Disk,
    _image: tempfile::NamedTempFile,
}

impl Frozen {
    fn mount() -> Result<Option<Self>> {
        let (image, dir) = (tempfile::NamedTempFile::new()?, TempDir::new()?);
        image.as_file().set_len(32 << 20)?;
        let ok = |program: &str, args: &[&std::ffi::OsStr]| {
            let status = Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
            status.is_ok_and(|status| status.success())
        };
        let (file, folder) = (image.path().as_os_str(), dir.path().as_os_str());
        if !ok("mkfs.ext4", &["-q".as_ref(), file]) || !ok("mount", &["-o".as_ref(), "loop".as_ref(), file, folder]) {
            return Ok(None);
        }
        let frozen = Self { disk: Disk(dir), _image: image };
        let works = frozen.freeze().is_ok();
        Ok(works.then_some(frozen))
    }

    fn freeze(&self) -> Result<Ice<'_>> {
        let status = Command::new("fsfreeze").arg("-f").arg(self.disk.0.path()).stderr(Stdio::null()).status()?;
        ensure!(status.success(), "fsfreeze: {status}");
        Ok(Ice(self.disk.0.path()))
    }
}

/// A frozen file system, thawed when dropped: before the agent is, which could not be reaped while it hangs.
struct Ice<'a>(&'a std::path::Path);

impl Drop for Ice<'_> {
    fn drop(&mut self) {
        drop(Command::new("fsfreeze").arg("-u").arg(self.0).stderr(Stdio::null()).status());
    }
}

const ENTRY: [&str; 11] = [
    "vm_id",
    "incarnation",
    "name",
    "uuid",
    "tenant",
    "labels",
    "hypervisor",
    "state",
    "shape",
    "started_at",
    "stopped_at",
];

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect()
}

fn is_instant(value: &Value) -> bool {
    // RFC 3339 with nine decimals and Z.
    value.as_str().is_some_and(|text| text.len() == 30 && text.ends_with('Z') && text.as_bytes().get(10) == Some(&b'T'))
}

#[test]
fn the_api_shows_a_vm_in_the_shape_of_the_contract() -> Result<()> {
    let Some(_host) = host("the_api_shows_a_vm_in_the_shape_of_the_contract") else { return Ok(()) };
    let agent = Agent::start()?;
    let uuid = "0b5e1b70-7d0f-4c2e-9d5c-0d7a3f1f2a01";
    let mut vm = TestVm::start(&["--id", "a:b.c", "--vcpus", "2"])?;
    let _other = TestVm::start(&["--id", "x", "--uuid", &uuid.to_uppercase(), "--name", "with uuid"])?;
    agent.wait_vms(&[uuid, "a:b.c"])?;
    let list = agent.json("/v1/vms")?;
    assert_eq!(keys(&list), BTreeSet::from(["vms"]));
    let all = list["vms"].as_array().context("no list")?;
    assert!(all.is_sorted_by_key(|entry| entry["vm_id"].as_str()), "{list}");
    let entries: Vec<_> = all.iter().filter(|e| e["vm_id"] == uuid || e["vm_id"] == "a:b.c").collect();
    assert_eq!(entries.len(), 2, "{list}");
    for entry in &entries {
        assert_eq!(keys(entry), BTreeSet::from(ENTRY), "{entry}");
        assert!(
            is_instant(&entry["started_at"]) && entry["stopped_at"].is_null() && entry["labels"].is_object(),
            "{entry}"
        );
        assert_eq!((&entry["state"], &entry["hypervisor"]), (&"running".into(), &"unknown".into()));
    }
    assert_eq!((&entries[0]["uuid"], &entries[0]["name"]), (&uuid.into(), &"with uuid".into()));
    assert_eq!(entries[1]["shape"], serde_json::json!({ "cpu": 2 }), "zeros are left out");
    for path in ["/v1/vms/a:b.c", "/v1/vms/a%3Ab%2Ec", "/v1/vms/%61%3a%62.c"] {
        let one = agent.json(path)?;
        for key in ENTRY {
            assert_eq!(one[key], entries[1][key], "{path} {key}");
        }
        assert_eq!(one["pid"], vm.pid());
    }
    let start = agent.lines("vm.compute.start", "a:b.c")?;
    assert_eq!(
        (&start[0]["incarnation"], &start[0]["emitted_at"]),
        (&entries[1]["incarnation"], &entries[1]["started_at"])
    );
    vm.signal(Signal::SIGKILL)?;
    vm.wait()?;
    agent.wait_until("its end", PATIENCE, |a| Ok(a.json("/v1/vms/a:b.c")?["state"] == "stopped"))?;
    let ended = agent.json("/v1/vms/a:b.c")?;
    assert_eq!(ended["stopped_at"], agent.stop_line("a:b.c")?["emitted_at"]);
    assert!(is_instant(&ended["stopped_at"]));
    Ok(())
}

#[test]
fn usage_is_204_before_the_first_sample_and_then_the_latest_one() -> Result<()> {
    let Some(_host) = host("usage_is_204_before_the_first_sample_and_then_the_latest_one") else { return Ok(()) };
    let agent = Agent::with(setup("[history]\ninterval = \"2s\"\n"))?;
    let _vm = TestVm::start(&["--id", "u", "--duty", "50"])?;
    agent.wait_vms(&["u"])?;
    let first = agent.request("GET", "/v1/vms/u/usage")?;
    assert_eq!((first.code, first.body.as_str()), (204, ""));
    agent.wait_until("a sample", PATIENCE, |a| Ok(a.get("/v1/vms/u/usage")?.0 == 200))?;
    let sample = agent.json("/v1/vms/u/usage")?;
    let known = [
        "at",
        "cpu_percent",
        "cpu_delay_percent",
        "memory_used_bytes",
        "memory_limit_bytes",
        "network_in_bytes_per_sec",
        "network_out_bytes_per_sec",
        "disk_read_bytes_per_sec",
        "disk_write_bytes_per_sec",
    ];
    assert!(keys(&sample).is_subset(&BTreeSet::from(known)), "{sample}");
    assert!(is_instant(&sample["at"]), "{sample}");
    assert!(keys(&sample).iter().all(|key| !sample[*key].is_null()), "absent, not null: {sample}");
    assert!(!keys(&sample).contains("memory_limit_bytes"), "this VMM does not tell its memory: {sample}");
    let percent = sample["cpu_percent"].as_f64().context("no cpu_percent")?;
    assert!(percent > 1.0 && percent < 150.0, "half of a core is used: {sample}");
    agent.wait_until("the next sample", PATIENCE, |a| Ok(a.json("/v1/vms/u/usage")?["at"] != sample["at"]))
}

#[test]
fn no_vm_is_shown_before_its_start_line_is_in_the_ledger() -> Result<()> {
    let Some(_host) = host("no_vm_is_shown_before_its_start_line_is_in_the_ledger") else { return Ok(()) };
    let agent = Agent::start()?;
    let starter =
        std::thread::spawn(|| (0..40).map(|n| TestVm::start(&["--id", &format!("d{n}")])).collect::<Result<Vec<_>>>());
    let mut shown = BTreeSet::new();
    let end = Instant::now() + Duration::from_secs(60);
    while shown.len() < 40 {
        ensure!(Instant::now() < end, "only {} of 40 are shown", shown.len());
        let mut now: BTreeSet<String> =
            agent.metrics()?.all("kvmeter_vm_info", &[]).map(|s| s.labels["incarnation"].clone()).collect();
        let list = agent.json("/v1/vms")?;
        // Read after what was shown, so whatever was durable then is in it.
        now.extend(
            list["vms"].as_array().into_iter().flatten().map(|vm| vm["incarnation"].as_str().unwrap_or("").to_owned()),
        );
        if now.is_subset(&shown) {
            continue;
        }
        let text = std::fs::read_to_string(agent.metering().join("ledger.jsonl"))?;
        let written: BTreeSet<&str> = text
            .lines()
            .filter(|line| line.contains("\"kind\":\"vm.compute.start\""))
            .filter_map(|line| line.split_once("\"incarnation\":\"")?.1.split('"').next())
            .collect();
        for incarnation in now {
            assert!(written.contains(incarnation.as_str()), "{incarnation} is shown and not in the ledger");
            shown.insert(incarnation);
        }
    }
    drop(starter.join().map_err(|_| anyhow::anyhow!("the starter died"))??);
    Ok(())
}
