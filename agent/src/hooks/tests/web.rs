//! Web hooks, against a small server that answers what it is told to.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};

use super::*;

/// A request as it arrived: head and body.
struct Request {
    head: String,
    body: String,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        let mut pairs = self.head.lines().filter_map(|line| line.split_once(": "));
        pairs.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

fn receive(mut stream: impl std::io::Read) -> Option<Request> {
    let mut bytes = Vec::new();
    loop {
        let mut part = [0; 4096];
        let read = stream.read(&mut part).ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&part[..read]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let request = Request { head: head.to_owned(), body: body.to_owned() };
        let length = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        if body.len() >= length {
            return Some(request);
        }
    }
}

/// Answers each request with the next of these; an empty one is silence.
fn server(answers: Vec<&'static str>) -> (u16, Receiver<Request>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, told) = channel();
    std::thread::spawn(move || {
        let mut silent: Vec<TcpStream> = Vec::new();
        for answer in answers {
            let mut stream = listener.accept().unwrap().0;
            let Some(request) = receive(&stream) else { continue };
            tell.send(request).unwrap();
            if answer.is_empty() {
                silent.push(stream);
            } else {
                stream.write_all(format!("HTTP/1.1 {answer}\r\ncontent-length: 2\r\n\r\nok").as_bytes()).unwrap();
            }
        }
        // Those that got no answer are kept open.
        std::thread::sleep(Duration::from_secs(600));
    });
    (port, told)
}

fn hook(port: u16, keys: &str) -> String {
    format!("[[hooks]]\nname = \"w\"\nurl = \"http://127.0.0.1:{port}/a?b=c\"\nbackoff = \"20ms\"\n{keys}\n")
}

fn rig_with_secret(port: u16, keys: &str) -> Rig {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    fs::write(&secret, "hunter2\n").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    Rig::in_dir(dir, &hook(port, &format!("secret_file = \"DIR/secret\"\n{keys}")))
}

#[test]
fn the_line_is_posted_as_it_stands_with_what_it_is_about() {
    let (port, told) = server(vec!["204 No Content"]);
    let rig = Rig::new(&hook(port, ""));
    rig.bus.publish(start(9));
    let request = told.recv_timeout(Duration::from_secs(60)).unwrap();
    assert!(request.head.starts_with("POST /a?b=c HTTP/1.1\r\n"), "{}", request.head);
    assert_eq!(request.body, "{\"kind\":\"vm.compute.start\",\"seq\":9}");
    let host = format!("127.0.0.1:{port}");
    for (name, value) in [
        ("host", host.as_str()),
        ("content-type", "application/json"),
        ("kvmeter-hook", "w"),
        ("kvmeter-kind", "vm.compute.start"),
        ("kvmeter-id", "00000000000000000000000000000009"),
    ] {
        assert_eq!(request.header(name), Some(value), "{}", request.head);
    }
    assert_eq!(request.header("authorization"), None);
    until("the success", || rig.runs("success") == 1);
}

#[test]
fn a_secret_is_sent_as_bearer_or_signs() {
    let (port, told) = server(vec!["200 OK", "200 OK"]);
    let bearer = rig_with_secret(port, "");
    bearer.bus.publish(start(1));
    let request = told.recv_timeout(Duration::from_secs(60)).unwrap();
    assert_eq!(request.header("authorization"), Some("Bearer hunter2"));
    drop(bearer);
    let signing = rig_with_secret(port, "secret_as = \"hmac\"");
    signing.bus.publish(start(2));
    let request = told.recv_timeout(Duration::from_secs(60)).unwrap();
    assert_eq!(request.header("authorization"), None);
    assert!(!request.head.contains("hunter2") && !request.body.contains("hunter2"));
    let time: u64 = request.header("kvmeter-timestamp").unwrap().parse().unwrap();
    let now = crate::clock::now().unwrap().unix_ns / 1_000_000_000;
    assert!(now - time < 60, "{time} at {now}");
    let own = super::super::request::signature("hunter2", time, request.body.as_bytes());
    assert_eq!(request.header("kvmeter-signature"), Some(own.as_str()));
}

#[test]
fn a_server_in_trouble_is_asked_again_and_one_that_refuses_is_not() {
    let (port, told) = server(vec!["503 Unavailable", "429 Slow", "200 OK", "404 Not Found", "301 Moved", "200 OK"]);
    let rig = Rig::new(&hook(port, "retries = 5\nmax_concurrent = 1"));
    rig.bus.publish(start(1));
    until("the third answer", || rig.runs("success") == 1);
    assert_eq!((rig.runs("failure"), rig.lost(GIVEN_UP)), (2, 0));
    rig.bus.publish(start(2));
    rig.bus.publish(start(3));
    rig.bus.publish(start(4));
    until("the rest", || rig.runs("success") == 2);
    assert_eq!((rig.runs("failure"), rig.lost(GIVEN_UP)), (4, 2));
    let seqs: Vec<char> = told.try_iter().filter_map(|request| request.body.chars().rev().nth(1)).collect();
    assert_eq!(seqs, ['1', '1', '1', '2', '3', '4']);
}

#[test]
fn a_server_that_says_nothing_is_a_timeout_and_one_that_is_not_there_a_failure() {
    let (port, _told) = server(vec!["", "200 OK"]);
    let rig = Rig::new(&hook(port, "timeout = \"3s\"\nretries = 1"));
    rig.bus.publish(start(1));
    until("the second try", || rig.runs("success") == 1);
    assert_eq!((rig.runs("timeout"), rig.runs("failure")), (1, 0));
    // Nobody listens on the first port there is.
    let gone = Rig::new(&hook(1, "retries = 0"));
    gone.bus.publish(start(1));
    until("the failure", || gone.runs("failure") == 1);
}

#[cfg(feature = "tls")]
#[test]
fn https_is_spoken_with_those_whose_certificate_is_trusted_and_with_nobody_else() {
    use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned, pki_types::PrivateKeyDer};
    let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::try_from(pair.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(vec![pair.cert.der().clone()], key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, told) = channel();
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let mut tls = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
            let Some(request) = receive(&mut tls) else { continue };
            tell.send(request).unwrap();
            tls.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
        }
    });
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("ca.pem"), pair.cert.pem()).unwrap();
    let url = |name: &str, keys: &str| {
        format!("[[hooks]]\nname = \"w\"\nurl = \"https://{name}:{port}/\"\nretries = 0\n{keys}\n")
    };
    let trusting = Rig::in_dir(dir, &url("localhost", "ca_file = \"DIR/ca.pem\""));
    trusting.bus.publish(start(1));
    let request = told.recv_timeout(Duration::from_secs(60)).unwrap();
    assert_eq!(request.body, "{\"kind\":\"vm.compute.start\",\"seq\":1}");
    until("the success", || trusting.runs("success") == 1);
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    for (name, pem) in [("localhost", other.cert.pem()), ("127.0.0.1", pair.cert.pem())] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ca.pem"), pem).unwrap();
        let distrusting = Rig::in_dir(dir, &url(name, "ca_file = \"DIR/ca.pem\""));
        distrusting.bus.publish(start(2));
        until("the refusal", || distrusting.runs("failure") == 1);
    }
    assert!(told.try_iter().next().is_none(), "a stranger is told nothing");
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("ca.pem"), "nothing").unwrap();
    let broken = Rig::in_dir(dir, &url("localhost", "ca_file = \"DIR/ca.pem\""));
    broken.bus.publish(start(3));
    assert_eq!(broken.lost(LOST), 1);
}
