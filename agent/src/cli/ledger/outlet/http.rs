//! Posts events and waits for the answer. 2xx acknowledges; an answer that says "later" (408, 425, 429, 5xx) and every
//! failure to get one is tried again, after waits that double up to a minute; any other answer ends it, because sending
//! the same again would not help. Plain HTTP: what leaves the host goes through a proxy that speaks TLS.

use std::{path::Path, time::Duration};

use anyhow::Context as _;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Request, StatusCode, Uri,
    body::Bytes,
    client::conn::http1,
    header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER},
};
use hyper_util::rt::TokioIo;

use super::{
    Outlet,
    again::{Answer, Failed, until_taken},
};
use crate::ledger::{Event, ExportFormat};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// As much of a refusal as is shown.
const SHOWN_BYTES: usize = 1024;

/// A receiver.
pub(in crate::cli::ledger) struct Http {
    to: Uri,
    host: String,
    port: u16,
    headers: HeaderMap,
    format: ExportFormat,
    batch: usize,
    tries: Option<u32>,
    runtime: tokio::runtime::Runtime,
}

impl Http {
    /// `tries` is how often a request is made before giving up; without it, for ever.
    pub(in crate::cli::ledger) fn new(
        to: Uri,
        header_file: Option<&Path>,
        format: ExportFormat,
        batch: usize,
        tries: Option<u32>,
    ) -> anyhow::Result<Self> {
        let host = to.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let headers = header_file.map(headers).transpose()?.unwrap_or_default();
        let port = to.port_u16().unwrap_or(80);
        Ok(Self { host, port, to, headers, format, batch, tries, runtime })
    }

    fn post(&self, body: Vec<u8>) -> anyhow::Result<()> {
        let body = Bytes::from(body);
        until_taken(&self.to, self.tries, || {
            let answer = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, self.ask(body.clone())).await });
            answer.unwrap_or_else(|_| Err(Failed::Unheard(anyhow::anyhow!("no answer within {PATIENCE:?}"))))
        })
    }

    async fn ask(&self, body: Bytes) -> Result<Answer, Failed> {
        let unheard = |error: anyhow::Error| Failed::Unheard(error);
        let stream = tokio::net::TcpStream::connect((self.host.as_str(), self.port)).await;
        let stream = stream.context("cannot connect").map_err(unheard)?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.context("no HTTP").map_err(unheard)?;
        let driver = tokio::spawn(connection);
        let path = self.to.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::post(path).header(CONTENT_TYPE, self.format.content_type());
        if let Some(authority) = self.to.authority() {
            request = request.header(HOST, authority.as_str());
        }
        let mut request = request.body(Full::new(body)).map_err(|e| Failed::Refused(e.into()))?;
        request.headers_mut().extend(self.headers.clone());
        let response = sender.send_request(request).await.context("no answer").map_err(unheard)?;
        let (head, body) = response.into_parts();
        let shown = Limited::new(body, SHOWN_BYTES).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        driver.abort();
        let text: String = String::from_utf8_lossy(&shown).chars().filter(|c| !c.is_control()).collect();
        let why = format!("answered {} {text}", head.status);
        match head.status {
            status if status.is_success() => Ok(Answer::Taken),
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
                Ok(Answer::Later { why, wait: retry_after(&head.headers) })
            }
            status if status.is_server_error() => Ok(Answer::Later { why, wait: retry_after(&head.headers) }),
            _ => Err(Failed::Refused(anyhow::anyhow!("{} {why}", self.to))),
        }
    }
}

impl Outlet for Http {
    fn hand(&mut self, events: &[Event]) -> anyhow::Result<()> {
        self.format.bodies(events, self.batch).try_for_each(|body| self.post(body))
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// `Name: value`, one a line; empty lines and those that begin with `#` say nothing. Values are secrets: no error
/// shows one.
fn headers(path: &Path) -> anyhow::Result<HeaderMap> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let mut headers = HeaderMap::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
        let parsed = line.split_once(':').and_then(|(name, value)| {
            let mut value = HeaderValue::from_str(value.trim()).ok()?;
            value.set_sensitive(true);
            Some((HeaderName::try_from(name.trim()).ok()?, value))
        });
        let (name, value) =
            parsed.with_context(|| format!("{} line {} is no `Name: value`", path.display(), at + 1))?;
        headers.insert(name, value);
    }
    Ok(headers)
}
