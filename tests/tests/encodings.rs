//! Law: an answer is sent small to who takes it small, and not at all to who has it; it is the same answer.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use flate2::read::GzDecoder;
use kvmeter_tests::{
    agent::Agent,
    http::Answer,
    skip::host,
    vmm::spawn::{TestFleet, TestVm},
};

/// A request with these header lines, over TCP: the answer and, apart, its bytes.
fn ask(agent: &Agent, method: &str, path: &str, headers: &str) -> Result<(Answer, Vec<u8>)> {
    let mut stream = TcpStream::connect(("127.0.0.1", agent.port()))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n")?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").context("no head")?;
    let head = String::from_utf8(bytes[..end].to_vec())?;
    let code = head.split(' ').nth(1).context("no status")?.parse()?;
    let answer = Answer { code, head, body: String::new() };
    let body = &bytes[end + 4..];
    let chunked = method != "HEAD" && answer.header("transfer-encoding") == Some("chunked");
    let body = if chunked { whole(body)? } else { body.to_vec() };
    Ok((answer, body))
}

/// A body whose length was not known when it began (RFC 9112, 7.1): its chunks together, up to the one without bytes.
fn whole(mut chunks: &[u8]) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        let end = chunks.windows(2).position(|two| two == b"\r\n").context("a chunk without a length")?;
        let length = usize::from_str_radix(std::str::from_utf8(&chunks[..end])?, 16)?;
        let chunk = chunks.get(end + 2..end + 2 + length).context("a chunk that was cut")?;
        all.extend_from_slice(chunk);
        chunks = &chunks[end + 2 + length..];
        ensure!(chunks.starts_with(b"\r\n"), "a chunk of another length than told");
        chunks = &chunks[2..];
        if length == 0 {
            ensure!(chunks.is_empty(), "something behind the end");
            return Ok(all);
        }
    }
}

const GZIP: &str = "Accept-Encoding: deflate, gzip;q=1.0\r\n";

#[test]
fn text_is_compressed_for_who_takes_it_and_is_the_same() -> Result<()> {
    let Some(_host) = host("text_is_compressed_for_who_takes_it_and_is_the_same") else { return Ok(()) };
    let agent = Agent::start()?;
    for path in ["/page/main.js", "/page/uplot.js", "/page/page.css", "/metrics", "/v1/status"] {
        let (plain, bytes) = ask(&agent, "GET", path, "")?;
        ensure!(plain.code == 200 && plain.header("content-encoding").is_none(), "{path}: {}", plain.head);
        ensure!(plain.header("vary") == Some("accept-encoding"), "{path}: {}", plain.head);
        let (small, squeezed) = ask(&agent, "GET", path, GZIP)?;
        ensure!(small.header("content-encoding") == Some("gzip"), "{path}: {}", small.head);
        ensure!(small.header("vary") == Some("accept-encoding"), "{path}: {}", small.head);
        ensure!(small.header("content-type") == plain.header("content-type"));
        ensure!(small.header("etag") == plain.header("etag"));
        ensure!(small.header("content-length") == Some(squeezed.len().to_string().as_str()));
        ensure!(squeezed.len() < bytes.len(), "{path}: {} of {}", squeezed.len(), bytes.len());
        let mut again = Vec::new();
        GzDecoder::new(&squeezed[..]).read_to_end(&mut again)?;
        if path.contains("page") {
            ensure!(again == bytes, "{path} is another one");
        } else {
            // What is told of a later moment differs in numbers.
            let first = |bytes: &[u8]| bytes.iter().take(20).copied().collect::<Vec<_>>();
            ensure!(first(&again) == first(&bytes), "{path}: {}", String::from_utf8_lossy(&again));
        }
        let (refused, _) = ask(&agent, "GET", path, "Accept-Encoding: gzip;q=0, *;q=1\r\n")?;
        ensure!(refused.header("content-encoding").is_none(), "{path}: {}", refused.head);
        let (head, nothing) = ask(&agent, "HEAD", path, GZIP)?;
        ensure!(head.code == 200 && nothing.is_empty(), "{path}: {}", head.head);
    }
    let (small, bytes) = ask(&agent, "GET", "/healthz", GZIP)?;
    ensure!(small.header("content-encoding").is_none() && bytes == b"ok\n", "three bytes do not get fewer");
    Ok(())
}

#[test]
fn a_stream_is_never_compressed() -> Result<()> {
    let Some(_host) = host("a_stream_is_never_compressed") else { return Ok(()) };
    let agent = Agent::start()?;
    let mut stream = TcpStream::connect(("127.0.0.1", agent.port()))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    write!(stream, "GET /v1/events HTTP/1.1\r\nHost: x\r\n{GZIP}\r\n")?;
    let mut told = String::new();
    while !told.contains("\r\n\r\n") {
        let mut part = [0; 512];
        let read = stream.read(&mut part)?;
        ensure!(read > 0, "closed: {told}");
        told.push_str(std::str::from_utf8(&part[..read])?);
    }
    ensure!(told.starts_with("HTTP/1.1 200") && !told.contains("gzip"), "{told}");
    Ok(())
}

/// Whether it is the same between two requests; that it is then told in each form, and sent to who has another.
fn is_known(agent: &Agent, path: &str) -> Result<bool> {
    let (first, bytes) = ask(agent, "GET", path, "")?;
    let tag = first.header("etag").with_context(|| format!("{path}: {}", first.head))?.to_owned();
    for encoding in ["", GZIP] {
        let (again, nothing) = ask(agent, "GET", path, &format!("If-None-Match: \"x\", {tag}\r\n{encoding}"))?;
        ensure!((again.code == 304) == (again.header("etag") == Some(&tag)), "{path}: {}", again.head);
        if again.code != 304 {
            return Ok(false);
        }
        ensure!(nothing.is_empty() && !bytes.is_empty(), "{path}: {}", again.head);
    }
    let (other, _) = ask(agent, "GET", path, "If-None-Match: W/\"0\"\r\n")?;
    ensure!(other.code == 200, "{path}: {}", other.head);
    Ok(true)
}

#[test]
fn who_has_an_answer_is_told_that_it_is_the_same_until_it_is_not() -> Result<()> {
    let Some(_host) = host("who_has_an_answer_is_told_that_it_is_the_same_until_it_is_not") else { return Ok(()) };
    let agent = Agent::start()?;
    let _fleet = TestFleet::start(20, &["--id", "f"])?;
    agent.wait_until("the fleet", Duration::from_secs(60), |agent| {
        Ok(agent.json("/v1/vms")?["vms"].as_array().is_some_and(|vms| vms.len() == 20))
    })?;
    for path in ["/", "/page/main.js", "/v1/vms"] {
        // What is known of a VM grows in its first moments.
        agent.wait_until(&format!("{path} to stand still"), Duration::from_secs(60), |agent| is_known(agent, path))?;
    }
    let (list, _) = ask(&agent, "GET", "/v1/vms", "")?;
    let tag = list.header("etag").context("no tag")?.to_owned();
    let _vm = TestVm::start(&["--id", "newcomer"])?;
    agent.wait_vms(&["newcomer"])?;
    let (changed, bytes) = ask(&agent, "GET", "/v1/vms", &format!("If-None-Match: {tag}\r\n"))?;
    ensure!(changed.code == 200 && String::from_utf8(bytes)?.contains("newcomer"), "{}", changed.head);
    Ok(())
}
