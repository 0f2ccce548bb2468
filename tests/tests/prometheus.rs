//! Law: views only read, and a real Prometheus takes what they show: every scrape, and joins by the contract's names.

use std::{
    collections::BTreeMap,
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use kvmeter_tests::{
    agent::Agent,
    http,
    metrics::Metrics,
    pair::one_of_each,
    port,
    skip::{host, installed, skipped},
};
use serde_json::Value;
use tempfile::TempDir;

/// A real Prometheus, killed when dropped.
struct Prometheus {
    child: Child,
    port: u16,
    dir: TempDir,
}

impl Prometheus {
    fn start(target: u16) -> Result<Self> {
        let (dir, port) = (TempDir::new()?, port::free()?);
        // So long that a scrape that a busy host delays is none that failed.
        let config = format!(
            "global: {{scrape_interval: 5s, scrape_timeout: 5s}}\nscrape_configs:\n- job_name: kvmeter\n  \
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
        let (code, body) = http::get(stream, &format!("/api/v1/query?query={encoded}"))?;
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
    let end = Instant::now() + Duration::from_secs(120);
    let (join, rate) = (
        "kvmeter_vm_running * on(vm_id) group_left(hypervisor, uuid) kvmeter_vm_info",
        "sum by (vm_id) (rate(kvmeter_vm_cpu_seconds_total{vm_id=\"runs\"}[30s])) > 0",
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
    let shown = Metrics::parse(&agent.scrape()?)?.0.len();
    let (_, taken) = prometheus.query("scrape_samples_scraped")?.pop().context("no count")?;
    eprintln!("{taken} samples taken, {shown} series shown now");
    assert!(taken > 40.0);
    Ok(())
}
