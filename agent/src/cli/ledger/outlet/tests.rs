//! Laws of handing over by HTTP and by file: acknowledged or sent again, never neither.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    thread::JoinHandle,
};

use super::*;

fn event(n: u32) -> Event {
    Event { id: n.to_string(), json: format!("{{\"n\":{n}}}").into_bytes() }
}

/// A receiver that gives these answers, one a connection, and says what it was sent.
fn receiver(answers: &'static [&'static str]) -> (String, JoinHandle<Vec<(String, String)>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/in?x=1", listener.local_addr().unwrap());
    let thread = std::thread::spawn(move || {
        let mut got = Vec::new();
        for answer in answers {
            let (stream, _) = listener.accept().unwrap();
            let mut from = BufReader::new(stream);
            let (mut head, mut line, mut length) = (String::new(), String::new(), 0);
            while from.read_line(&mut line).unwrap() > 2 {
                if let Some(text) = line.to_lowercase().strip_prefix("content-length:") {
                    length = text.trim().parse().unwrap();
                }
                head.push_str(&std::mem::take(&mut line));
            }
            let mut body = vec![0; length];
            from.read_exact(&mut body).unwrap();
            got.push((head, String::from_utf8(body).unwrap()));
            if !answer.is_empty() {
                write!(from.get_mut(), "HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n").unwrap();
            }
        }
        got
    });
    (address, thread)
}

#[test]
fn what_is_not_acknowledged_is_sent_again_until_it_is() {
    let (to, receiver) = receiver(&["503 Busy", "", "429 Slow\r\nretry-after: 0", "202 Accepted"]);
    let mut outlet = Http::new(to.parse().unwrap(), None, ExportFormat::CloudeventsBatch, 10, None).unwrap();
    outlet.hand(&[event(1), event(2)]).unwrap();
    let got = receiver.join().unwrap();
    assert_eq!(got.len(), 4);
    for (head, body) in got {
        assert!(head.starts_with("POST /in?x=1 HTTP/1.1"), "{head}");
        assert!(head.contains("application/cloudevents-batch+json"), "{head}");
        assert_eq!(body, "[{\"n\":1},{\"n\":2}]");
    }
}

#[test]
fn a_refusal_ends_it_and_so_do_too_many_failures() {
    let (to, receiver) = receiver(&["422 No"]);
    let mut outlet = Http::new(to.parse().unwrap(), None, ExportFormat::Lago, 10, None).unwrap();
    let error = format!("{:#}", outlet.hand(&[event(1)]).unwrap_err());
    assert!(error.contains("422"), "{error}");
    assert_eq!(receiver.join().unwrap()[0].1, "{\"events\":[{\"n\":1}]}");
    let mut outlet = Http::new("http://127.0.0.1:1/".parse().unwrap(), None, ExportFormat::Lago, 10, Some(2)).unwrap();
    let error = format!("{:#}", outlet.hand(&[event(1)]).unwrap_err());
    assert!(error.contains("in 2 tries"), "{error}");
}

#[test]
fn each_form_has_its_own_bodies_and_headers_come_from_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys");
    std::fs::write(&keys, "# a comment\n\nAuthorization: Bearer secret\n").unwrap();
    let (to, receiver) = receiver(&["200 OK", "200 OK", "200 OK"]);
    let mut outlet = Http::new(to.parse().unwrap(), Some(&keys), ExportFormat::Cloudevents, 10, Some(1)).unwrap();
    outlet.hand(&[event(1), event(2)]).unwrap();
    let mut outlet = Http::new(to.parse().unwrap(), None, ExportFormat::Cocoon, 10, Some(1)).unwrap();
    outlet.hand(&[event(3), event(4)]).unwrap();
    let got = receiver.join().unwrap();
    assert!(got[0].0.contains("authorization: Bearer secret"), "{}", got[0].0);
    let bodies: Vec<_> = got.into_iter().map(|(_, body)| body).collect();
    assert_eq!(bodies, ["{\"n\":1}", "{\"n\":2}", "{\"n\":3}\n{\"n\":4}\n"]);
    std::fs::write(&keys, "secret without colon").unwrap();
    let error = Http::new(to.parse().unwrap(), Some(&keys), ExportFormat::Lago, 10, None).err().unwrap().to_string();
    assert!(error.contains("line 1") && !error.contains("secret w"), "{error}");
}

#[test]
fn a_line_that_a_crash_left_half_written_is_cut_before_more_is_appended() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.jsonl");
    for before in ["", "{\"n\":0}\n", "{\"n\":0}\n{\"n\"", "{\"n"] {
        std::fs::write(&path, before).unwrap();
        let mut outlet = Stream::append(&path, ExportFormat::Openmeter, 10).unwrap();
        outlet.hand(&[event(1)]).unwrap();
        let kept = before.rfind('\n').map_or("", |at| &before[..=at]);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{kept}{{\"n\":1}}\n"));
    }
    std::fs::write(&path, [b'x'; 200_000]).unwrap();
    assert_eq!(whole_lines(&mut File::open(&path).unwrap()).unwrap(), 0);
}
