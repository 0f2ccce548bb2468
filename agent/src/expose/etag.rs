//! Tags of answers, by which who has one already is not sent it again. They are weak: compressed or not, it is the same.

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use sha2::{Digest as _, Sha256};

/// A tag that other bytes do not have.
pub(super) fn of(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    let hex: String = hash.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    format!("W/\"{hex}\"")
}

/// The answer with these bytes, or that they are the ones the client has.
pub(super) fn answer(headers: &HeaderMap, kind: &'static str, bytes: impl IntoResponse, tag: &str) -> Response {
    let mut response = if is_known(headers, tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, kind)], bytes).into_response()
    };
    let all = response.headers_mut();
    // Asked for each time, answered by the tag alone while it is the same.
    all.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(tag) = HeaderValue::from_str(tag) {
        all.insert(header::ETAG, tag);
    }
    response
}

/// Whether the client has the bytes with this tag (RFC 9110, 13.1.2, compared weakly).
fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    known.flat_map(|value| value.split(',')).any(|one| one.trim() == "*" || opaque(one) == opaque(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_it_is_not_sent_it_again_however_the_tag_is_written() {
        let tag = of(b"a");
        let strong = tag.trim_start_matches("W/").to_owned();
        let status = |known: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_NONE_MATCH, HeaderValue::from_str(known).unwrap());
            answer(&headers, "text/plain", "a", &tag).status()
        };
        for known in [tag.clone(), strong.clone(), format!("\"x\", {tag}"), "*".to_owned()] {
            assert_eq!(status(&known), StatusCode::NOT_MODIFIED, "{known}");
        }
        for unknown in [of(b"b"), "\"\"".to_owned(), strong.trim_matches('"').to_owned()] {
            assert_eq!(status(&unknown), StatusCode::OK, "{unknown}");
        }
        assert_eq!(answer(&HeaderMap::new(), "text/plain", "a", &tag).status(), StatusCode::OK);
    }
}
