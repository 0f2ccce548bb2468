//! Laws of handing over to a real NATS server (`cargo xtask setup` brings it): once each, whatever fails in between.

use std::{
    process::{Child, Command, Stdio},
    time::Instant,
};

use tempfile::TempDir;

use super::*;

const SUBJECT: &str = "meter.host";

/// A server with JetStream, killed when dropped; its streams lie in `dir`.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    /// On this port, or on one that is free.
    fn start(dir: &TempDir, port: Option<u16>) -> Self {
        let mut command = Command::new("nats-server");
        command.args(["-js", "-a", "127.0.0.1", "-p"]).arg(port.map_or("-1".to_owned(), |port| port.to_string()));
        command.arg("-sd").arg(dir.path()).arg("--ports_file_dir").arg(dir.path());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.expect("nats-server is missing: cargo xtask setup brings it");
        let told = dir.path().join(format!("nats-server_{}.ports", child.id()));
        let end = Instant::now() + Duration::from_secs(60);
        let port = loop {
            assert!(Instant::now() < end, "nats-server does not say where it listens");
            let ports = std::fs::read(&told).ok().and_then(|text| serde_json::from_slice(&text).ok());
            let url = ports.and_then(|ports: serde_json::Value| ports["nats"][0].as_str().map(str::to_owned));
            if let Some(port) = url.and_then(|url| url.rsplit_once(':')?.1.parse().ok()) {
                break port;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        Self { child, port }
    }

    fn outlet(&self, tries: Option<u32>) -> Nats {
        Nats::new(format!("nats://127.0.0.1:{}", self.port), SUBJECT.to_owned(), None, tries).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// The stream's messages: id and payload.
fn stored(nats: &Nats) -> Vec<(String, Vec<u8>)> {
    nats.runtime.block_on(async {
        let Ok(context) = nats.connect().await else { panic!("no connection") };
        let mut stream = context.get_stream("METER").await.unwrap();
        let last = stream.info().await.unwrap().state.last_sequence;
        let mut all = Vec::new();
        for sequence in 1..=last {
            let message = stream.get_raw_message(sequence).await.unwrap();
            all.push((message.headers.get("Nats-Msg-Id").unwrap().to_string(), message.payload.to_vec()));
        }
        all
    })
}

fn make_stream(nats: &Nats) {
    nats.runtime.block_on(async {
        let Ok(context) = nats.connect().await else { panic!("no connection") };
        let config =
            jetstream::stream::Config { name: "METER".into(), subjects: vec!["meter.>".into()], ..Default::default() };
        context.create_stream(config).await.unwrap();
    });
}

fn events(range: std::ops::Range<u32>) -> Vec<Event> {
    range.map(|n| Event { id: format!("{n:032x}"), json: format!("{{\"n\":{n}}}").into_bytes() }).collect()
}

fn expected(range: std::ops::Range<u32>) -> Vec<(String, Vec<u8>)> {
    events(range).into_iter().map(|event| (event.id, event.json)).collect()
}

#[test]
fn a_stream_has_each_event_once_however_often_it_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir, None);
    let mut outlet = server.outlet(Some(1));
    make_stream(&outlet);
    outlet.hand(&events(0..200)).unwrap();
    // As after a crash before the cursor was stored: by another process, from further back.
    server.outlet(Some(1)).hand(&events(100..250)).unwrap();
    assert_eq!(stored(&outlet), expected(0..250));
}

#[test]
fn what_a_server_that_went_away_has_not_acknowledged_is_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir, None);
    let (port, mut outlet) = (server.port, server.outlet(None));
    make_stream(&outlet);
    outlet.hand(&events(0..10)).unwrap();
    drop(server);
    let server = std::thread::scope(|scope| {
        let handing = scope.spawn(|| outlet.hand(&events(10..20)));
        std::thread::sleep(Duration::from_millis(600));
        let server = Server::start(&dir, Some(port));
        handing.join().unwrap().unwrap();
        server
    });
    assert_eq!(stored(&server.outlet(Some(1))), expected(0..20));
}

#[test]
fn a_subject_without_a_stream_and_a_server_that_is_not_there_are_said() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir, None);
    let mut outlet = server.outlet(Some(2));
    let error = format!("{:#}", outlet.hand(&events(0..1)).unwrap_err());
    assert!(error.contains(SUBJECT) && error.contains("in 2 tries") && error.contains("no stream"), "{error}");
    drop(server);
    let error = format!("{:#}", outlet.hand(&events(0..1)).unwrap_err());
    assert!(error.contains("in 2 tries"), "{error}");
    let keys = dir.path().join("keys");
    std::fs::write(&keys, "secret").unwrap();
    let mut outlet = Nats::new("nats://127.0.0.1:1".to_owned(), SUBJECT.to_owned(), Some(&keys), Some(1)).unwrap();
    let error = format!("{:#}", outlet.hand(&events(0..1)).unwrap_err());
    assert!(error.contains("credentials") && !error.contains("secret"), "{error}");
}
