//! Law: slow and hostile clients cost each other their connections. Who asks and takes what is answered gets an answer,
//! over TCP and over the Unix socket, and samples go on.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Shutdown, TcpStream},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use kvmeter_tests::{
    agent::{Agent, Setup},
    http,
    skip::{host, installed, skipped},
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

const PATIENCE: Duration = Duration::from_secs(60);
const CUT: &str = "kvmeter_http_connections_cut_total";
const OPEN: &str = "kvmeter_http_connections";

/// Room for a test's own sockets.
fn lift_limit() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}

fn with_places(places: usize) -> Result<Agent> {
    lift_limit()?;
    // A search of all processes would look through this test's own thousands of descriptors.
    let quiet = "sample_interval = \"100ms\"\n[discovery]\nscan_interval = \"1h\"\n";
    Agent::with(Setup::of(&format!("{quiet}[http]\nmax_connections = {places}\n")))
}

fn connect(agent: &Agent) -> Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", agent.port()))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn metric(agent: &Agent, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
    agent.metrics()?.one(name, labels).with_context(|| format!("no {name} {labels:?}"))
}

/// Somebody else asks, over TCP, and the operator, over the socket; samples are taken meanwhile.
fn others_are_served(agent: &Agent) -> Result<()> {
    for path in ["/metrics", "/healthz", "/v1/vms", "/v1/status"] {
        let (code, body) = http::get(connect(agent)?, path).with_context(|| format!("{path} over TCP"))?;
        ensure!(code == 200, "{path} over TCP: {code}: {body}");
        let (code, body) = agent.get(path)?;
        ensure!(code == 200, "{path} over the socket: {code}: {body}");
    }
    agent.wait_samples(2)
}

/// What is left after the other end has closed: all that came, or an error that says that it went away.
fn read_to_end(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            bail!("still open after {PATIENCE:?}, {} bytes came", bytes.len())
        }
        _ => Ok(bytes),
    }
}

/// How long another client waits for its scrapes, and how long samples take meanwhile, for whoever reads it.
fn scrapes(agent: &Agent) -> Result<String> {
    let samples = |agent: &Agent| -> Result<[f64; 2]> {
        let all = agent.metrics()?;
        let of = |part| all.one(&format!("kvmeter_sample_duration_seconds_{part}"), &[]).unwrap_or(0.0);
        Ok([of("sum"), of("count")])
    };
    let [sum, count] = samples(agent)?;
    let mut took = Vec::new();
    for _ in 0..200 {
        let began = Instant::now();
        ensure!(http::get(connect(agent)?, "/metrics")?.0 == 200);
        took.push(began.elapsed());
    }
    agent.wait_samples(5)?;
    let [sum_after, count_after] = samples(agent)?;
    let mean = (sum_after - sum) / (count_after - count) * 1e3;
    took.sort_unstable();
    Ok(format!("/metrics takes {:?}, p99 {:?}, a sample {mean:.2} ms", took[100], took[197]))
}

fn flood(name: &str, places: usize, clients: usize) -> Result<()> {
    let Some(_host) = host(name) else { return Ok(()) };
    let agent = with_places(places)?;
    let quiet = scrapes(&agent)?;
    let mut slow = Vec::new();
    for at in 0..clients {
        let mut stream = connect(&agent)?;
        // One that has given way already is as hostile.
        let _ = match at % 3 {
            0 => stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-A: "),
            1 => stream.write_all(b"G"),
            _ => Ok(()),
        };
        slow.push(stream);
    }
    others_are_served(&agent)?;
    agent.wait_until("all of them to have been taken", PATIENCE, |agent| {
        let cut =
            ["crowded", "slow_request"].map(|reason| metric(agent, CUT, &[("listener", "tcp"), ("reason", reason)]));
        let [crowded, late] = cut;
        Ok(crowded? + late? >= (clients - places) as f64)
    })?;
    ensure!(metric(&agent, OPEN, &[("listener", "tcp")])? <= places as f64);
    // A byte now and then does not help them.
    let feeder = std::thread::spawn(move || {
        let mut rounds = 0;
        while rounds < 50 {
            slow.retain_mut(|stream| stream.write_all(b"x").is_ok());
            rounds += 1;
            std::thread::yield_now();
        }
        slow
    });
    let beset = scrapes(&agent)?;
    others_are_served(&agent)?;
    eprintln!("{clients} slow clients, {places} places; before: {quiet}; then: {beset}");
    let mut slow = feeder.join().ok().context("the feeder died")?;
    // Nobody of them is served, and nobody stays for ever.
    for stream in &mut slow {
        ensure!(read_to_end(stream)?.is_empty(), "an answer to nothing");
    }
    others_are_served(&agent)
}

#[test]
fn a_thousand_clients_that_never_finish_their_request_keep_nobody_out() -> Result<()> {
    flood("a_thousand_clients_that_never_finish_their_request_keep_nobody_out", 32, 1_000)
}

#[test]
#[ignore = "takes half a minute; cargo test -p kvmeter-tests --test hostile -- --ignored --nocapture"]
fn ten_thousand_clients_that_never_finish_their_request_keep_nobody_out() -> Result<()> {
    flood("ten_thousand_clients_that_never_finish_their_request_keep_nobody_out", 256, 10_000)
}

#[test]
fn clients_that_take_no_answer_keep_nobody_out() -> Result<()> {
    let Some(_host) = host("clients_that_take_no_answer_keep_nobody_out") else { return Ok(()) };
    let agent = with_places(8)?;
    let mut slow = Vec::new();
    for _ in 0..24 {
        let mut stream = connect(&agent)?;
        stream.set_nonblocking(true)?;
        // As many requests as the agent takes, and not a byte of an answer read.
        let asked = "GET /page/uplot.js HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2_000);
        let _ = stream.write(asked.as_bytes());
        slow.push(stream);
        others_are_served(&agent)?;
    }
    ensure!(metric(&agent, CUT, &[("listener", "tcp"), ("reason", "crowded")])? >= 16.0);
    ensure!(metric(&agent, OPEN, &[("listener", "tcp")])? <= 8.0);
    Ok(())
}

#[test]
fn streams_of_events_take_no_places() -> Result<()> {
    let Some(_host) = host("streams_of_events_take_no_places") else { return Ok(()) };
    let agent = with_places(8)?;
    let mut streams = Vec::new();
    for _ in 0..24 {
        let mut stream = connect(&agent)?;
        stream.write_all(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        ensure!(&head == b"HTTP/1.1 200", "{}", String::from_utf8_lossy(&head));
        streams.push(stream);
    }
    others_are_served(&agent)?;
    agent
        .wait_until("no place to be held", PATIENCE, |agent| Ok(metric(agent, OPEN, &[("listener", "tcp")])? == 0.0))?;
    ensure!(metric(&agent, CUT, &[("listener", "tcp"), ("reason", "crowded")])? == 0.0);
    Ok(())
}

/// Writes until the other end has had enough, at most 64 MiB; what it said to that.
fn pour(mut stream: TcpStream, head: &str, again: &str) -> Result<String> {
    let block = again.repeat(1 + 65_536 / again.len());
    let _ = stream.write_all(head.as_bytes());
    let refused = (0..1024).find_map(|_| stream.write_all(block.as_bytes()).err());
    let refused = refused.context("64 MiB were taken without a word")?;
    ensure!(!matches!(refused.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "held up: {refused}");
    Ok(String::from_utf8_lossy(&read_to_end(&mut stream)?).into_owned())
}

#[test]
fn heads_without_end_and_bodies_that_nobody_wants_are_cut() -> Result<()> {
    let Some(_host) = host("heads_without_end_and_bodies_that_nobody_wants_are_cut") else { return Ok(()) };
    let agent = with_places(8)?;
    let post = "POST /v1/annotations HTTP/1.1\r\nHost: x\r\n";
    for (head, again, code) in [
        ("GET / HTTP/1.1\r\n".to_owned(), "X-Header: of which there are more and more\r\n", "431"),
        ("GET / HTTP/1.1\r\nX: ".to_owned(), "one that does not end ", "431"),
        ("GET /".to_owned(), "a-path-that-does-not-end-", "4"),
        (format!("{post}Content-Length: 100000000000\r\n\r\n"), "a body", "403"),
        (format!("{post}Transfer-Encoding: chunked\r\n\r\n"), "5\r\nhello\r\n", "403"),
    ] {
        let said = pour(connect(&agent)?, &head, again)?;
        // The system may throw the answer away when it says that nobody reads.
        ensure!(said.is_empty() || said.starts_with(&format!("HTTP/1.1 {code}")), "{head}: {said}");
        others_are_served(&agent)?;
    }
    // Over the socket bodies are read, up to their bound.
    let mut stream = UnixStream::connect(agent.socket())?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "{post}Content-Length: 100000000\r\n\r\n")?;
    let block = vec![b' '; 1 << 16];
    let _ = (0..1024).find_map(|_| stream.write_all(&block).err());
    let mut said = String::new();
    let _ = stream.read_to_string(&mut said);
    ensure!(said.starts_with("HTTP/1.1 400") && said.contains("\"parameter\":\"body\""), "{said}");
    others_are_served(&agent)
}

#[test]
fn who_says_nothing_half_a_request_or_half_a_body_is_let_go() -> Result<()> {
    let Some(_host) = host("who_says_nothing_half_a_request_or_half_a_body_is_let_go") else { return Ok(()) };
    let agent = with_places(8)?;
    let mut silent = connect(&agent)?;
    let mut half = connect(&agent)?;
    half.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n")?;
    let mut closed = connect(&agent)?;
    closed.write_all(b"GET /metrics HTT")?;
    closed.shutdown(Shutdown::Write)?;
    let mut after_one = connect(&agent)?;
    after_one.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")?;
    let mut said = Vec::new();
    while !said.ends_with(b"\r\n\r\nok\n") {
        let mut part = [0; 4096];
        let read = after_one.read(&mut part)?;
        ensure!(read > 0, "closed after {:?}", String::from_utf8_lossy(&said));
        said.extend_from_slice(&part[..read]);
    }
    after_one.write_all(b"GET /heal")?;
    let mut body = UnixStream::connect(agent.socket())?;
    body.set_read_timeout(Some(2 * PATIENCE))?;
    body.write_all(b"POST /v1/annotations HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"vm_id\"")?;
    for stream in [&mut silent, &mut half] {
        ensure!(read_to_end(stream)?.is_empty());
    }
    let said = read_to_end(&mut closed)?;
    ensure!(said.is_empty() || said.starts_with(b"HTTP/1.1 400"));
    ensure!(read_to_end(&mut after_one)?.is_empty(), "one was whole");
    let late = metric(&agent, CUT, &[("listener", "tcp"), ("reason", "slow_request")])?;
    ensure!(late >= 3.0, "{late} were late");
    let mut said = String::new();
    body.read_to_string(&mut said).context("the body that does not come is waited for")?;
    ensure!(said.starts_with("HTTP/1.1 408") && said.contains("application/problem+json"), "{said}");
    others_are_served(&agent)
}

#[test]
fn a_client_is_answered_again_and_again_on_one_connection() -> Result<()> {
    let Some(_host) = host("a_client_is_answered_again_and_again_on_one_connection") else { return Ok(()) };
    let agent = with_places(8)?;
    let mut stream = connect(&agent)?;
    let mut told = Vec::new();
    for at in 0..200 {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")?;
        while told.windows(4).filter(|end| end == b"\nok\n").count() <= at {
            let mut part = [0; 4096];
            let read = stream.read(&mut part)?;
            ensure!(read > 0, "closed after {at} answers");
            told.extend_from_slice(&part[..read]);
        }
    }
    Ok(())
}

#[test]
fn an_agent_that_may_open_few_files_takes_few_connections() -> Result<()> {
    let name = "an_agent_that_may_open_few_files_takes_few_connections";
    if !installed("prlimit") {
        skipped(name, "needs prlimit");
        return Ok(());
    }
    let Some(_host) = host(name) else { return Ok(()) };
    let wrapper = ["prlimit", "--nofile=256:256"].map(Into::into).to_vec();
    let agent = Agent::with(Setup { wrapper, ..Setup::default() })?;
    ensure!(agent.log().contains("http.max_connections is lowered"), "{}", agent.log());
    let silent: Vec<_> = (0..200).map(|_| connect(&agent)).collect::<Result<_>>()?;
    others_are_served(&agent)?;
    let open = metric(&agent, OPEN, &[("listener", "tcp")])?;
    ensure!(open <= 32.0, "{open} of {} are open", silent.len());
    Ok(())
}
