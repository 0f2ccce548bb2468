//! Requests by HTTP/1.0, whose answers end with the connection.

use std::io::{Read, Write};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// `GET path`: status code and body.
pub fn get(stream: impl Read + Write, path: &str) -> Result<(u16, String)> {
    let answer = request(stream, "GET", path)?;
    Ok((answer.code, answer.body))
}

/// Any request, with the answer's headers.
pub fn request(stream: impl Read + Write, method: &str, path: &str) -> Result<Answer> {
    send(stream, method, path, "")
}

/// The same with a body.
pub fn send(mut stream: impl Read + Write, method: &str, path: &str, body: &str) -> Result<Answer> {
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.0\r\nHost: kvmeter\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(format!("{head}{body}").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    let code = head.split(' ').nth(1).context("no status")?.parse()?;
    Ok(Answer { code, head: head.to_owned(), body: body.to_owned() })
}

/// A whole HTTP answer.
#[derive(Debug)]
pub struct Answer {
    /// Status code.
    pub code: u16,
    /// Status line and headers.
    pub head: String,
    /// Body.
    pub body: String,
}

impl Answer {
    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut pairs = self.head.lines().filter_map(|line| line.split_once(':'));
        pairs.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// The body as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("not JSON: {}", self.body))
    }

    /// The body as a problem (RFC 9457) with this status; an error unless it is one that says what is wrong.
    pub fn problem(&self, code: u16) -> Result<Value> {
        let context = format!("{}\n{}", self.head, self.body);
        ensure!(self.code == code, "{code} expected: {context}");
        ensure!(self.header("content-type") == Some("application/problem+json"), "no problem+json: {context}");
        let body = self.json()?;
        ensure!(body["status"] == code, "{context}");
        for key in ["type", "title", "detail"] {
            ensure!(body[key].as_str().is_some_and(|text| !text.is_empty()), "no {key}: {context}");
        }
        Ok(body)
    }
}
