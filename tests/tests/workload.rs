//! Law: what a workload says of itself is in its VM's samples, and whatever goes wrong with it is no signal and says why.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use kvmeter_tests::{
    agent::{Agent, Setup},
    command::code,
    skip::host,
    vmm::spawn::TestVm,
};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);
/// A sample each second.
const CONFIG: &str = "[workload]\nlabel = \"metrics_url\"\n[history]\ninterval = \"1s\"\n";

/// A workload: answers each connection with what `say` makes of it.
fn workload(say: impl Fn(TcpStream) -> Result<()> + Send + Sync + 'static) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let say = Arc::new(say);
    // They end with the test's process.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let say = Arc::clone(&say);
            std::thread::spawn(move || say(stream));
        }
    });
    Ok(address)
}

/// Reads a request's head; returns its first line.
fn asked(stream: &mut TcpStream) -> Result<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        ensure!(stream.read(&mut byte)? == 1, "the request broke off");
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned())
}

fn answer(mut stream: TcpStream, status: &str, body: &str) -> Result<()> {
    let length = body.len();
    Ok(write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")?)
}

/// 200 requests each second, of which 90 in 100 take less than 0.1 s and all less than 0.5 s.
fn busy(since: Instant) -> String {
    let n = since.elapsed().as_secs_f64() * 200.0;
    let bucket =
        |le: &str, count: f64| format!("http_request_duration_seconds_bucket{{path=\"/\",le=\"{le}\"}} {count}\n");
    format!(
        "# HELP x\n{}{}{}http_requests_total{{code=\"200\"}} {n}\n",
        bucket("0.1", n * 0.9),
        bucket("0.5", n),
        bucket("+Inf", n)
    )
}

fn annotate(agent: &Agent, vm: &str, address: &str) -> Result<()> {
    code(&agent.command(&["annotate", "--vm-id", vm, "--label", &format!("metrics_url={address}")])?, 0)
}

fn usage(agent: &Agent, vm: &str) -> Result<Value> {
    let (code, body) = agent.get(&format!("/v1/vms/{vm}/usage"))?;
    Ok(if code == 200 { serde_json::from_str(&body)? } else { Value::Null })
}

fn wait_error(agent: &Agent, vm: &str, says: &str) -> Result<()> {
    agent.wait_until(says, PATIENCE, |agent| {
        let told = agent.json(&format!("/v1/vms/{vm}"))?;
        Ok(told["workload"]["error"].as_str().is_some_and(|error| error.contains(says)))
    })
}

#[test]
fn requests_and_latency_of_a_workload_are_in_its_vms_samples_and_outlive_the_agent() -> Result<()> {
    let Some(_host) = host("requests_and_latency_of_a_workload_are_in_its_vms_samples_and_outlive_the_agent") else {
        return Ok(());
    };
    let (since, paths) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let seen = Arc::clone(&paths);
    let address = workload(move |mut stream| {
        let line = asked(&mut stream)?;
        seen.fetch_add(u64::from(line == "GET /metrics HTTP/1.1"), Relaxed);
        answer(stream, "200 OK", &busy(since))
    })?;
    let agent = Agent::with(Setup::of(CONFIG))?;
    let _vm = TestVm::start(&["--id", "web", "--duty", "5"])?;
    let _other = TestVm::start(&["--id", "other"])?;
    agent.wait_vms(&["web", "other"])?;
    annotate(&agent, "web", &format!("http://{address}"))?;
    let told = |agent: &Agent| {
        agent.wait_until("a signal", PATIENCE, |agent| Ok(usage(agent, "web")?["latency_p95_ms"].is_f64()))?;
        let sample = usage(agent, "web")?;
        let (rate, p95) = (sample["requests_per_sec"].as_f64(), sample["latency_p95_ms"].as_f64());
        // Counters are read a moment before or after the answer comes.
        ensure!(rate.is_some_and(|rate| (100.0..400.0).contains(&rate)), "{sample}");
        ensure!(p95.is_some_and(|p95| (p95 - 300.0).abs() < 1.0), "{sample}");
        Ok(())
    };
    told(&agent)?;
    ensure!(paths.load(Relaxed) >= 2, "asked for /metrics");
    let detail = agent.json("/v1/vms/web")?;
    assert_eq!(detail["workload"]["requests"], "http_requests_total", "{detail}");
    assert_eq!(detail["workload"]["latency"], "http_request_duration_seconds", "{detail}");
    agent.wait_until("a point of the past", PATIENCE, |agent| {
        let range = agent.json("/v1/vms/web/usage/range?range=1h")?;
        let points = range["points"].as_array().context("points")?;
        Ok(points.iter().any(|point| point["requests_per_sec"]["mean"].is_f64()))
    })?;
    let silent = usage(&agent, "other")?;
    ensure!(silent["requests_per_sec"].is_null() && agent.json("/v1/vms/other")?["workload"].is_null(), "{silent}");
    // The ledger keeps the label.
    let (_, _, dir) = agent.stop()?;
    let agent = Agent::with(Setup { dir: Some(dir), ..Setup::of(CONFIG) })?;
    agent.wait_vms(&["web"])?;
    told(&agent)
}

#[test]
fn a_workload_that_fails_or_attacks_is_no_signal_and_no_harm() -> Result<()> {
    let Some(_host) = host("a_workload_that_fails_or_attacks_is_no_signal_and_no_harm") else { return Ok(()) };
    let agent = Agent::with(Setup::of(CONFIG))?;
    let _vm = TestVm::start(&["--id", "web", "--duty", "5"])?;
    agent.wait_vms(&["web"])?;
    let since = Instant::now();
    let good = workload(move |mut stream| asked(&mut stream).and_then(|_| answer(stream, "200 OK", &busy(since))))?;
    let elsewhere = format!("302 Found\r\nLocation: http://{good}/");
    let cases: [(&str, SocketAddr); 6] = [
        ("302", workload(move |mut s| asked(&mut s).and_then(|_| answer(s, &elsewhere, "")))?),
        ("none of the names", workload(|mut s| asked(&mut s).and_then(|_| answer(s, "200 OK", "<html>no</html>\n")))?),
        ("line 1", workload(|mut s| asked(&mut s).and_then(|_| answer(s, "200 OK", "http_requests_total{a=\"b 5\n")))?),
        (
            "longer than",
            workload(|mut s| {
                asked(&mut s)?;
                s.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
                loop {
                    s.write_all(&[b'#'; 65_536])?;
                }
            })?,
        ),
        (
            "no whole answer within",
            workload(|mut s| {
                asked(&mut s)?;
                s.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n#")?;
                // Until the other side has had enough.
                Ok(s.read_to_end(&mut Vec::new()).map(drop)?)
            })?,
        ),
        (
            "no answer",
            workload(|mut s| {
                asked(&mut s)?;
                loop {
                    s.write_all(b"X: y\r\n")?;
                }
            })?,
        ),
    ];
    for (says, address) in cases {
        annotate(&agent, "web", &format!("http://{good}/metrics"))?;
        agent.wait_until("a signal", PATIENCE, |agent| Ok(usage(agent, "web")?["requests_per_sec"].is_f64()))?;
        annotate(&agent, "web", &format!("http://{address}/metrics"))?;
        wait_error(&agent, "web", says)?;
        agent.wait_until("no signal", PATIENCE, |agent| {
            let sample = usage(agent, "web")?;
            Ok(sample["requests_per_sec"].is_null()
                && sample["latency_p95_ms"].is_null()
                && sample["cpu_percent"].is_f64())
        })?;
    }
    for (address, says) in
        [("http://localhost:9/", "IP address"), ("https://127.0.0.1/", "http://"), ("nonsense", "http://")]
    {
        annotate(&agent, "web", address)?;
        wait_error(&agent, "web", says)?;
    }
    agent.wait_samples(2)?;
    agent.verify()
}

#[test]
fn nobody_is_asked_unless_the_configuration_names_a_label() -> Result<()> {
    let Some(_host) = host("nobody_is_asked_unless_the_configuration_names_a_label") else { return Ok(()) };
    let asked_for = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&asked_for);
    let address = workload(move |_| {
        seen.fetch_add(1, Relaxed);
        Ok(())
    })?;
    let agent = Agent::with(Setup::of("[history]\ninterval = \"1s\"\n"))?;
    let _vm = TestVm::start(&["--id", "web", "--duty", "5"])?;
    agent.wait_vms(&["web"])?;
    annotate(&agent, "web", &format!("http://{address}"))?;
    agent.wait_samples(5)?;
    assert_eq!(asked_for.load(Relaxed), 0);
    ensure!(agent.json("/v1/vms/web")?["workload"].is_null());
    Ok(())
}
