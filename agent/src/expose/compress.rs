//! gzip for who asks for it: text and JSON of a kilobyte and more. Streams of events never, their bytes must go at once.

use std::io::Write as _;

use axum::{
    body::{Body, HttpBody as _},
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use flate2::{Compression, write::GzEncoder};
use futures_util::StreamExt as _;
use tokio::{runtime::Handle, sync::Semaphore, task::spawn_blocking};

use super::problem::Problem;

/// Bytes below which nothing is won.
const LEAST: usize = 1024;
/// Bytes above which it is done beside the runtime's threads, which others wait for.
const LARGE: usize = 64 << 10;
/// Large answers that are made small at the same time: a host's CPUs are its guests'.
static AT_ONCE: Semaphore = Semaphore::const_new(2);
/// The fastest: a scrape is compressed anew each time, and is mostly repetition.
const LEVEL: Compression = Compression::fast();

/// Compresses what the inner routes answer, if the client takes it.
pub(super) async fn compress(request: Request, next: Next) -> Response {
    let wanted = wants_gzip(request.headers());
    let is_head = request.method() == Method::HEAD;
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let encoded = headers.contains_key(header::CONTENT_ENCODING);
    let text = headers.get(header::CONTENT_TYPE).is_some_and(is_text) && !encoded;
    if !text && response.status() != StatusCode::NOT_MODIFIED {
        return response;
    }
    let headers = response.headers_mut();
    // Also if this one is not: a cache must know that another client may get another one.
    headers.append(header::VARY, HeaderValue::from_static("accept-encoding"));
    if !wanted || !text {
        return response;
    }
    if is_head {
        // How long it would be is known only to who makes it.
        headers.remove(header::CONTENT_LENGTH);
        return response;
    }
    squeeze(response).await
}

async fn squeeze(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    // What is written as it is sent does not say how much it will be.
    let length = body.size_hint().exact().map_or(usize::MAX, |length| usize::try_from(length).unwrap_or(usize::MAX));
    let small = match length {
        ..LEAST => return Response::from_parts(parts, body),
        LEAST..LARGE => gzip(body).await,
        _ => {
            let _turn = AT_ONCE.acquire().await;
            let runtime = Handle::current();
            spawn_blocking(move || runtime.block_on(gzip(body)))
                .await
                .unwrap_or_else(|error| Err(axum::Error::new(error)))
        }
    };
    match small {
        Ok(small) => {
            parts.headers.remove(header::CONTENT_LENGTH);
            parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            Response::from_parts(parts, Body::from(small))
        }
        Err(error) => Problem::internal(format!("the answer cannot be compressed: {error}")).into_response(),
    }
}

/// A body as gzip, piece by piece; none of them has to be waited for, as all is made from memory.
async fn gzip(body: Body) -> Result<Vec<u8>, axum::Error> {
    let mut encoder = GzEncoder::new(Vec::new(), LEVEL);
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        encoder.write_all(&piece?).map_err(axum::Error::new)?;
    }
    encoder.finish().map_err(axum::Error::new)
}

fn is_text(kind: &HeaderValue) -> bool {
    let kind = kind.as_bytes();
    let is = |start: &str| kind.starts_with(start.as_bytes());
    (is("text/") && !is("text/event-stream")) || is("application/json") || is("application/problem+json")
}

/// Whether gzip is taken, and not less gladly than bytes as they are (RFC 9110, 12.5.3).
fn wants_gzip(headers: &HeaderMap) -> bool {
    let (mut gzip, mut any, mut identity) = (None, None, 0.0);
    let values = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    for one in values.flat_map(|value| value.split(',')) {
        let (name, weight) = one.split_once(';').unwrap_or((one, ""));
        let weight = match weight.trim().split_once('=') {
            Some((key, number)) if key.trim().eq_ignore_ascii_case("q") => number.trim().parse().unwrap_or(0.0),
            _ => 1.0_f32,
        };
        match name.trim().to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => gzip = Some(weight),
            "*" => any = Some(weight),
            "identity" => identity = weight,
            _ => {}
        }
    }
    gzip.or(any).is_some_and(|weight| weight > 0.0 && weight >= identity)
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, io::Read as _};

    use super::*;

    fn wants(value: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_str(value).unwrap());
        wants_gzip(&headers)
    }

    #[test]
    fn gzip_is_used_when_it_is_named_and_never_when_it_is_refused() {
        for yes in
            ["gzip", "deflate, gzip;q=1.0, *;q=0.5", "GZIP", "*", "gzip;q=0.1", "br,x-gzip", "identity;q=0.5, gzip"]
        {
            assert!(wants(yes), "{yes}");
        }
        for no in
            ["", "br", "gzip;q=0", "gzip; q=0.000, *", "*;q=0", "identity", "gzip;q=0.2, identity;q=0.8", "gzip;q=x"]
        {
            assert!(!wants(no), "{no}");
        }
        assert!(!wants_gzip(&HeaderMap::new()));
    }

    #[tokio::test]
    async fn what_is_compressed_is_what_was_said_whole_or_in_pieces() {
        let plain = "kvmeter_vm_running{vm_id=\"a\"} 1\n".repeat(5_000);
        let pieces: Vec<_> = plain.as_bytes().chunks(999).map(|piece| Ok::<_, Infallible>(piece.to_vec())).collect();
        for body in [Body::from(plain.clone()), Body::from_stream(futures_util::stream::iter(pieces))] {
            let small = squeeze(Response::new(body)).await;
            assert_eq!(small.headers()[header::CONTENT_ENCODING], "gzip");
            let small = axum::body::to_bytes(small.into_body(), usize::MAX).await.unwrap();
            assert!(small.len() * 20 < plain.len(), "{}", small.len());
            let mut again = String::new();
            flate2::read::GzDecoder::new(&small[..]).read_to_string(&mut again).unwrap();
            assert_eq!(again, plain);
        }
        assert!(!squeeze(Response::new(Body::from("short"))).await.headers().contains_key(header::CONTENT_ENCODING));
    }
}
