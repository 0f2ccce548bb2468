//! The OTLP backend against a local listener that reads protobuf with code of its own.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::mpsc::channel;

use super::*;
use crate::metrics::tests::everything;

/// Fields of a protobuf message: number, and the bytes of those that have a length.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let mut found = Vec::new();
    let varint = |bytes: &mut &[u8]| {
        let (mut value, mut shift) = (0u64, 0);
        loop {
            let (first, rest) = bytes.split_first().unwrap();
            *bytes = rest;
            value |= u64::from(first & 0x7f) << shift;
            shift += 7;
            if first & 0x80 == 0 {
                return value;
            }
        }
    };
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let length = match tag & 7 {
            0 => {
                found.push((tag >> 3, varint(&mut bytes).to_le_bytes().to_vec()));
                continue;
            }
            1 => 8,
            2 => usize::try_from(varint(&mut bytes)).unwrap(),
            5 => 4,
            other => panic!("wire type {other}"),
        };
        let (value, rest) = bytes.split_at(length);
        found.push((tag >> 3, value.to_vec()));
        bytes = rest;
    }
    found
}

fn inner(bytes: &[u8], number: u64) -> Vec<Vec<u8>> {
    fields(bytes).into_iter().filter(|(field, _)| *field == number).map(|(_, value)| value).collect()
}

/// Points of sums by metric and attribute's value: `as_int` (field 6) of opentelemetry/proto/metrics/v1.
fn sums(report: &[u8]) -> Vec<(String, String, i64)> {
    let mut all = Vec::new();
    let scopes = inner(report, 1).into_iter().flat_map(|resource| inner(&resource, 2));
    for metric in scopes.flat_map(|scope| inner(&scope, 2)) {
        let name = String::from_utf8(inner(&metric, 1).concat()).unwrap();
        for point in inner(&metric, 7).into_iter().flat_map(|sum| inner(&sum, 1)) {
            let attribute = inner(&point, 7).into_iter().flat_map(|pair| inner(&pair, 2)).flat_map(|v| inner(&v, 1));
            let label = String::from_utf8(attribute.collect::<Vec<_>>().concat()).unwrap();
            let value = i64::from_le_bytes(inner(&point, 6).concat().try_into().unwrap());
            all.push((name.clone(), label, value));
        }
    }
    all.sort();
    all
}

#[test]
fn a_real_listener_gets_every_count_as_protobuf_over_http() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1/metrics", listener.local_addr().unwrap()).parse().unwrap();
    let (tell, told) = channel();
    std::thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let mut bytes = Vec::new();
        let mut part = [0; 4096];
        loop {
            let read = stream.read(&mut part).unwrap();
            bytes.extend_from_slice(&part[..read]);
            let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_lowercase();
            let length: usize =
                head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap();
            if bytes.len() >= end + 4 + length {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
                tell.send((head, bytes[end + 4..].to_vec())).unwrap();
                return;
            }
        }
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let metrics = OtlpMetrics::new(&url, runtime.handle().clone()).unwrap();
    everything(&metrics.clone());
    metrics.flush().unwrap();
    let (head, body) = told.recv_timeout(Duration::from_secs(60)).unwrap();
    assert!(head.starts_with("post /v1/metrics http/1.1"), "{head}");
    assert!(head.contains("content-type: application/x-protobuf"), "{head}");
    let expected = [
        ("kvmeter.hook.runs", "failure", 1),
        ("kvmeter.hook.runs", "success", 1),
        ("kvmeter.hook.runs", "timeout", 1),
        ("kvmeter.identity_cache.lookups", "hit", 1),
        ("kvmeter.identity_cache.lookups", "miss", 1),
        ("kvmeter.vm.count", "running", 1),
        ("kvmeter.vm.count", "stopped", 1),
        ("kvmeter.vm.created", "", 1),
        ("kvmeter.vm.destroyed", "", 1),
    ];
    let sums = sums(&body);
    let sums: Vec<(&str, &str, i64)> =
        sums.iter().map(|(name, label, n)| (name.as_str(), label.as_str(), *n)).collect();
    assert_eq!(sums, expected);
    for name in ["kvmeter.vm.boot.duration", "kvmeter.hook.duration"] {
        assert!(body.windows(name.len()).any(|part| part == name.as_bytes()), "{name}");
    }
}

#[test]
fn a_collector_that_is_not_there_holds_nobody_up() {
    // Nobody listens on the first port there is.
    let url = "http://127.0.0.1:1/v1/metrics".parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let metrics = OtlpMetrics::new(&url, runtime.handle().clone()).unwrap();
    let began = std::time::Instant::now();
    (0..1_000).for_each(|_| everything(&metrics));
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    assert!(metrics.flush().is_err());
}
