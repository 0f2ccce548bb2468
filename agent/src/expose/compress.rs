//! gzip for who asks for it: text and JSON of a kilobyte and more. Streams of events never, their bytes must go at once.

use std::io::Write as _;

use axum::{
    body::{Body, Bytes},
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::Response,
};
use flate2::{Compression, write::GzEncoder};
use tokio::sync::Semaphore;

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
    // All that is text was made whole in memory.
    let Ok(bytes) = axum::body::to_bytes(body, usize::MAX).await else {
        return Response::from_parts(parts, Body::empty());
    };
    let plain = bytes.clone();
    let small = match bytes.len() {
        ..LEAST => None,
        LEAST..LARGE => gzip(&bytes),
        _ => {
            let _turn = AT_ONCE.acquire().await;
            tokio::task::spawn_blocking(move || gzip(&bytes)).await.ok().flatten()
        }
    };
    let Some(small) = small else { return Response::from_parts(parts, Body::from(plain)) };
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    Response::from_parts(parts, Body::from(small))
}

fn gzip(bytes: &Bytes) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 8), LEVEL);
    encoder.write_all(bytes).ok()?;
    encoder.finish().ok()
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
    use std::io::Read as _;

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

    #[test]
    fn what_is_compressed_is_what_was_said() {
        let plain = Bytes::from("kvmeter_vm_running{vm_id=\"a\"} 1\n".repeat(5_000));
        let small = gzip(&plain).unwrap();
        assert!(small.len() * 20 < plain.len(), "{}", small.len());
        let mut again = Vec::new();
        flate2::read::GzDecoder::new(&small[..]).read_to_end(&mut again).unwrap();
        assert_eq!(again, plain);
    }
}
