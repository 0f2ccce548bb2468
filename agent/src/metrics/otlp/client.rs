//! The one request the OTLP exporter makes, on the agent's own runtime: the exporter's thread has none.

use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue};
use hyper_util::rt::TokioIo;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::config::Url;

/// The longest answer that is read.
const ANSWER_BYTES: usize = 64 * 1024;

#[derive(Clone, Debug)]
pub(super) struct Client {
    collector: Url,
    runtime: Handle,
    timeout: Duration,
}

impl Client {
    pub(super) const fn new(collector: Url, runtime: Handle, timeout: Duration) -> Self {
        Self { collector, runtime, timeout }
    }
}

#[async_trait::async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (collector, timeout) = (self.collector.clone(), self.timeout);
        let exchange = async move { tokio::time::timeout(timeout, exchange(&collector, request)).await? };
        self.runtime.spawn(exchange).await?
    }
}

async fn exchange(collector: &Url, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let stream = TcpStream::connect((collector.host.as_str(), collector.port)).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let (mut head, body) = request.into_parts();
    head.uri = collector.path.parse()?;
    head.headers.insert(HOST, HeaderValue::try_from(&collector.authority)?);
    let answer = sender.send_request(Request::from_parts(head, Full::new(body))).await?;
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, ANSWER_BYTES).collect().await?.to_bytes();
    Ok(Response::from_parts(head, body))
}
