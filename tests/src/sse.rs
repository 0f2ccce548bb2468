//! A reader of server-sent events, as slow as a test wants.

use std::{
    io::{BufRead as _, BufReader, Read, Write},
    os::unix::net::UnixStream,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::agent::Agent;

/// How long an event may take to come.
const PATIENCE: Duration = Duration::from_secs(60);

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its name.
    pub event: String,
    /// Its id; of those that have one.
    pub id: Option<u64>,
    /// Its data.
    pub data: Value,
    /// The same as it came.
    pub text: String,
}

/// An open stream.
pub struct Sse(BufReader<UnixStream>);

impl Sse {
    /// Opens one; `last` is the id of the event it comes back with.
    pub fn open(agent: &Agent, path: &str, last: Option<u64>) -> Result<Self> {
        let mut stream = UnixStream::connect(agent.socket())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let last = last.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        write!(stream, "GET {path} HTTP/1.0\r\nHost: kvmeter\r\n{last}\r\n")?;
        let mut stream = Self(BufReader::new(stream));
        let status = stream.line()?;
        ensure!(status.contains(" 200 "), "{path}: {status}");
        let mut is_stream = false;
        loop {
            let line = stream.line()?;
            is_stream |= line.eq_ignore_ascii_case("content-type: text/event-stream");
            if line.is_empty() {
                break;
            }
        }
        ensure!(is_stream, "{path} is no text/event-stream");
        Ok(stream)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.0.read_line(&mut line)? > 0, "the stream has ended");
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    }

    /// The next event; comments are passed over.
    pub fn event(&mut self) -> Result<Event> {
        let (mut event, mut id, mut text) = (String::new(), None, String::new());
        loop {
            let line = self.line()?;
            match line.split_once(": ") {
                Some(("event", name)) => name.clone_into(&mut event),
                Some(("id", number)) => id = Some(number.parse()?),
                Some(("data", data)) => data.clone_into(&mut text),
                _ if line.is_empty() && !event.is_empty() => break,
                _ if line.is_empty() || line.starts_with(':') => {}
                _ => bail!("no line of an event: {line:?}"),
            }
        }
        let data = serde_json::from_str(&text).with_context(|| format!("no JSON: {text}"))?;
        Ok(Event { event, id, data, text })
    }

    /// The next one of this name that has an id.
    pub fn next_of(&mut self, name: &str) -> Result<(u64, Event)> {
        let event = self.event()?;
        ensure!(event.event == name, "{name} expected: {event:?}");
        Ok((event.id.with_context(|| format!("no id: {event:?}"))?, event))
    }

    /// Whether it is closed, after what was read.
    pub fn is_closed(mut self) -> Result<bool> {
        let mut rest = String::new();
        self.0.read_to_string(&mut rest)?;
        Ok(rest.is_empty())
    }
}
