//! The address of a web hook, checked and taken apart. Pure.

use std::fmt;
use std::str::FromStr;

use hyper::Uri;

/// The longest address.
const MAX_BYTES: usize = 2048;

/// An http or https address without a secret in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Whether it is https.
    pub tls: bool,
    /// Name or address of the host; an IPv6 address without its brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Host and port as they are written, for the `Host` header.
    pub authority: String,
    /// Path and query.
    pub path: String,
}

/// What is wrong with an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// No address.
    #[error("must be an address such as \"https://example.org/path\", of at most {MAX_BYTES} bytes")]
    Malformed,
    /// Neither http nor https.
    #[error("must begin with http:// or https://")]
    Scheme,
    /// A name or password in front of the host.
    #[error("must not have a user or password in it, which would be logged; use secret_file")]
    Secret,
    /// https, but nothing that could speak it.
    #[error("https takes a kvmeter built with the cargo feature \"tls\", which this one is not; http works")]
    NoTls,
}

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        if text.len() > MAX_BYTES || text.contains('#') {
            return Err(UrlError::Malformed);
        }
        let uri: Uri = text.parse().map_err(|_| UrlError::Malformed)?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(UrlError::Scheme),
        };
        let authority = uri.authority().ok_or(UrlError::Malformed)?;
        if authority.as_str().contains('@') {
            return Err(UrlError::Secret);
        }
        if tls && !cfg!(feature = "tls") {
            return Err(UrlError::NoTls);
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let after_host = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
        let port = match (after_host, authority.port_u16()) {
            ("", _) => {
                if tls {
                    443
                } else {
                    80
                }
            }
            (_, Some(port)) => port,
            _ => return Err(UrlError::Malformed),
        };
        if host.is_empty() || port == 0 {
            return Err(UrlError::Malformed);
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { tls, host, port, authority: authority.as_str().to_owned(), path })
    }
}

impl fmt::Display for Url {
    /// Without the query, in which some put a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.split('?').next().unwrap_or_default();
        write!(f, "{}://{}{path}", if self.tls { "https" } else { "http" }, self.authority)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        let of = |text: &str| text.parse::<Url>().map(|u| (u.tls, u.host, u.port, u.path));
        assert_eq!(of("http://a.example/x?y=1"), Ok((false, "a.example".into(), 80, "/x?y=1".into())));
        assert_eq!(of("http://[::1]:8080"), Ok((false, "::1".into(), 8080, "/".into())));
        if cfg!(feature = "tls") {
            assert_eq!(of("https://a.example:8443/"), Ok((true, "a.example".into(), 8443, "/".into())));
        } else {
            assert_eq!(of("https://a.example/"), Err(UrlError::NoTls));
        }
        for (text, error) in [
            ("ftp://a.example/", UrlError::Scheme),
            ("a.example", UrlError::Scheme),
            ("/path", UrlError::Scheme),
            ("http://", UrlError::Malformed),
            ("http://a.example:0/", UrlError::Malformed),
            ("http://a.example:99999/", UrlError::Malformed),
            ("http://a.example:/", UrlError::Malformed),
            ("http://a.example/\r\nX: y", UrlError::Malformed),
            ("http://a.example/#x", UrlError::Malformed),
            ("http://me:secret@a.example/", UrlError::Secret),
        ] {
            assert_eq!(of(text), Err(error), "{text}");
        }
    }

    #[test]
    fn what_is_shown_has_no_query() {
        assert_eq!("http://a.example/x?token=1".parse::<Url>().unwrap().to_string(), "http://a.example/x");
    }

    proptest! {
        #[test]
        fn no_text_panics_and_none_that_passes_can_end_a_header(text in "https?://[ -~\\r\\n]{0,40}|.{0,40}") {
            if let Ok(url) = text.parse::<Url>() {
                for part in [&url.host, &url.authority, &url.path] {
                    prop_assert!(!part.contains(['\r', '\n', ' ', '@']) || part == &url.path && !part.contains(['\r', '\n', ' ']));
                }
                prop_assert!(url.path.starts_with('/') || url.path.starts_with('?'), "{:?}", url.path);
            }
        }
    }
}
