//! The file's form, which is that of Prometheus' exporter-toolkit. What this agent cannot honour is a mistake that is named.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use axum::http::{HeaderName, HeaderValue};
use serde::Deserialize;

use super::{users::Users, yaml};

/// The whole file.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    pub(super) tls_server_config: Tls,
    pub(super) http_server_config: Http,
    basic_auth_users: BTreeMap<String, String>,
    rate_limit: RateLimit,
}

/// `tls_server_config`
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Tls {
    pub(super) cert: Option<String>,
    pub(super) key: Option<String>,
    pub(super) client_ca: Option<String>,
    pub(super) cert_file: Option<PathBuf>,
    pub(super) key_file: Option<PathBuf>,
    pub(super) client_ca_file: Option<PathBuf>,
    pub(super) client_auth_type: Option<String>,
    client_allowed_sans: Option<Vec<String>>,
    pub(super) min_version: Option<String>,
    pub(super) max_version: Option<String>,
    pub(super) cipher_suites: Option<Vec<String>>,
    pub(super) prefer_server_cipher_suites: Option<bool>,
    pub(super) curve_preferences: Option<Vec<String>>,
}

/// `http_server_config`
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Http {
    http2: Option<bool>,
    headers: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RateLimit {
    interval: Option<serde_json::Value>,
    burst: Option<serde_json::Value>,
}

/// Headers that may be added, and the values that are taken; none is any.
const HEADERS: [(&str, &[&str]); 5] = [
    ("Strict-Transport-Security", &[]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-XSS-Protection", &[]),
    ("Content-Security-Policy", &[]),
];

impl File {
    /// Reads it; names of files in it are taken from `dir`.
    pub(super) fn parse(text: &str, dir: &Path) -> Result<Self, String> {
        let value = yaml::parse(text)?;
        let mut file: Self = serde_path_to_error::deserialize(value).map_err(|error| {
            let path = error.path().to_string();
            let place = if path == "." { String::new() } else { format!("{path}: ") };
            format!("{place}{}", error.into_inner())
        })?;
        if file.rate_limit.interval.is_some() || file.rate_limit.burst.is_some() {
            return Err("rate_limit is not taken by kvmeter: connections have limits of their own".to_owned());
        }
        file.tls_server_config.check()?;
        file.tls_server_config.take_from(dir);
        file.http_server_config.check()?;
        Ok(file)
    }

    /// Who may ask.
    pub(super) fn users(&self) -> Result<Users, String> {
        for (name, hash) in &self.basic_auth_users {
            Users::check(name, hash).map_err(|why| format!("basic_auth_users.{name}: {why}"))?;
        }
        Ok(Users::new(self.basic_auth_users.clone()))
    }
}

impl Tls {
    /// Whether anything of it is.
    pub(super) fn is_set(&self) -> bool {
        self.cert.is_some()
            || self.key.is_some()
            || self.cert_file.is_some()
            || self.key_file.is_some()
            || self.client_ca.is_some()
            || self.client_ca_file.is_some()
            || self.client_auth_type.is_some()
            || self.min_version.is_some()
            || self.max_version.is_some()
            || self.cipher_suites.is_some()
            || self.curve_preferences.is_some()
            || self.prefer_server_cipher_suites.is_some()
    }

    /// Whether a client must show a certificate, and one that is good.
    pub(super) fn asks_certificates(&self) -> bool {
        self.client_auth_type.as_deref() == Some("RequireAndVerifyClientCert")
    }

    /// All files that it names.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        [&self.cert_file, &self.key_file, &self.client_ca_file].into_iter().flatten().map(PathBuf::as_path)
    }

    fn check(&self) -> Result<(), String> {
        if self.client_allowed_sans.is_some() {
            let why = "tls_server_config.client_allowed_sans is not taken by kvmeter: give the clients that may ask a CA of \
                       their own";
            return Err(why.to_owned());
        }
        for (name, inline, file) in [
            ("cert", &self.cert, &self.cert_file),
            ("key", &self.key, &self.key_file),
            ("client_ca", &self.client_ca, &self.client_ca_file),
        ] {
            if inline.is_some() && file.is_some() {
                return Err(format!("tls_server_config: {name} and {name}_file are both there"));
            }
            if self.is_set() && name != "client_ca" && inline.is_none() && file.is_none() {
                return Err(format!("tls_server_config: {name}_file is missing"));
            }
        }
        let ca = self.client_ca.is_some() || self.client_ca_file.is_some();
        match self.client_auth_type.as_deref().unwrap_or("NoClientCert") {
            "NoClientCert" if ca => Err("tls_server_config: client_ca_file without a client_auth_type".to_owned()),
            "RequireAndVerifyClientCert" | "VerifyClientCertIfGiven" if !ca => {
                Err("tls_server_config: client_auth_type without a client_ca_file".to_owned())
            }
            "NoClientCert" | "RequireAndVerifyClientCert" | "VerifyClientCertIfGiven" => Ok(()),
            other => Err(format!(
                "tls_server_config.client_auth_type: {other:?} is not taken by kvmeter, a certificate that is not verified \
                 says nothing: must be \"NoClientCert\", \"VerifyClientCertIfGiven\" or \"RequireAndVerifyClientCert\""
            )),
        }
    }

    fn take_from(&mut self, dir: &Path) {
        for file in [&mut self.cert_file, &mut self.key_file, &mut self.client_ca_file].into_iter().flatten() {
            *file = dir.join(&*file);
        }
    }
}

impl Http {
    fn check(&self) -> Result<(), String> {
        if self.http2 == Some(true) {
            let why = "http_server_config.http2: kvmeter serves HTTP/1.1 only: leave it out, or set it to false";
            return Err(why.to_owned());
        }
        self.headers().map(drop)
    }

    /// What is added to answers; an empty one is not.
    pub(super) fn headers(&self) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
        let mut all = Vec::new();
        for (name, text) in &self.headers {
            let wrong = |why: &str| format!("http_server_config.headers.{name}: {why}");
            let known = HEADERS.iter().find(|(known, _)| known == name).ok_or_else(|| wrong("cannot be set"))?;
            if text.is_empty() {
                continue;
            }
            if !known.1.is_empty() && !known.1.contains(&text.as_str()) {
                return Err(wrong(&format!("must be one of {}, not {text:?}", known.1.join(", "))));
            }
            let value = HeaderValue::from_str(text).map_err(|error| wrong(&error.to_string()))?;
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| wrong(&error.to_string()))?;
            all.push((name, value));
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What bcrypt makes of "s3cret" at its least cost.
    const HASH: &str = "$2y$04$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy";

    fn parse(text: &str) -> Result<File, String> {
        let file = File::parse(text, Path::new("/etc/x"))?;
        file.users().map(|_| file)
    }

    #[test]
    fn the_toolkits_own_sample_is_read_but_for_what_cannot_be_honoured() {
        let file = parse(&format!(
            "tls_server_config:\n  cert_file: server.crt\n  key_file: /k/server.key\n  min_version: TLS12\n\
             http_server_config:\n  http2: false\n  headers:\n    X-Frame-Options: deny\n    X-XSS-Protection: ''\n\
             # Usernames and passwords.\nbasic_auth_users:\n  alice: {HASH}\n  \"bob b\": '{HASH}'\n"
        ))
        .unwrap();
        let files: Vec<_> = file.tls_server_config.files().collect();
        assert_eq!(files, [Path::new("/etc/x/server.crt"), Path::new("/k/server.key")]);
        assert_eq!(file.http_server_config.headers().unwrap().len(), 1, "an empty one is unset");
        assert_eq!(file.basic_auth_users.len(), 2);
        for empty in ["", "# nothing\n", "tls_server_config:\nbasic_auth_users:\n", "{}"] {
            let file = parse(empty).unwrap();
            assert!(!file.tls_server_config.is_set() && file.basic_auth_users.is_empty(), "{empty:?}");
        }
    }

    #[test]
    fn what_is_wrong_or_cannot_be_honoured_is_named() {
        let tls = "tls_server_config: {cert_file: a, key_file: b";
        for (text, named) in [
            ("tls_server_confg: {}", "tls_server_confg"),
            ("tls_server_config: {cert_fil: a}", "cert_fil"),
            ("tls_server_config: {cert_file: a}", "key_file is missing"),
            ("tls_server_config: {min_version: TLS12}", "cert_file is missing"),
            ("tls_server_config: {cert_file: [a]}", "tls_server_config.cert_file"),
            (&format!("{tls}, key: x}}"), "key and key_file"),
            (&format!("{tls}, client_ca_file: c}}"), "client_auth_type"),
            (&format!("{tls}, client_auth_type: RequireAndVerifyClientCert}}"), "client_ca_file"),
            (&format!("{tls}, client_ca_file: c, client_auth_type: RequestClientCert}}"), "RequestClientCert"),
            (&format!("{tls}, client_allowed_sans: [a]}}"), "client_allowed_sans"),
            ("http_server_config: {http2: true}", "http2"),
            ("http_server_config: {headers: {Server: me}}", "Server"),
            ("http_server_config: {headers: {X-Frame-Options: perhaps}}", "deny"),
            ("basic_auth_users: {alice: secret}", "basic_auth_users.alice"),
            ("basic_auth_users: {1: secret}", "quotes"),
            ("rate_limit: {interval: 1s, burst: 5}", "rate_limit"),
            ("a: 1\na: 2\n", "duplicated"),
            ("[", "YAML"),
            ("--- {}\n--- {}\n", "more than one"),
            ("- a", "invalid type"),
        ] {
            let Err(said) = parse(text).map(drop) else { panic!("{text} is taken") };
            assert!(said.contains(named), "{text}: {said}");
        }
    }

    #[test]
    fn a_password_that_stands_there_as_it_is_is_not_repeated() {
        for text in ["basic_auth_users: {alice: hunter2}", "basic_auth_users: [hunter2]"] {
            let said = parse(text).map(drop).unwrap_err();
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
}
