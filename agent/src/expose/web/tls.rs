//! `tls_server_config` as rustls has it.

use std::{io, path::PathBuf, sync::Arc};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig, SupportedProtocolVersion,
        crypto::{CryptoProvider, ring},
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
        server::WebPkiClientVerifier,
        version::{TLS12, TLS13},
    },
};

use super::{file::Tls, text};
use crate::expose::connection::{Handshake, Io};

/// Encrypts a connection.
#[derive(Clone)]
pub(in crate::expose) struct Acceptor(TlsAcceptor);

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Handshake<S> for Option<Acceptor> {
    type Io = Io<S, tokio_rustls::server::TlsStream<S>>;
    async fn shake(self, io: S) -> io::Result<<Self as Handshake<S>>::Io> {
        match self {
            None => Ok(Io::Plain(io)),
            Some(Acceptor(acceptor)) => Ok(Io::Wrapped(Box::new(acceptor.accept(io).await?))),
        }
    }
}

/// What encrypts as configured.
pub(super) fn acceptor(tls: &Tls) -> Result<Acceptor, String> {
    let provider = Arc::new(provider(tls)?);
    let named = |what: &str, error: &dyn std::fmt::Display| format!("tls_server_config.{what}: {error}");
    let chain = certificates(&pem(&tls.cert, &tls.cert_file)?).map_err(|error| named("cert_file", &error))?;
    let key = PrivateKeyDer::from_pem_slice(pem(&tls.key, &tls.key_file)?.as_bytes());
    let key = key.map_err(|error| named("key_file", &error))?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions(tls)?)
        .map_err(|error| named("min_version", &error))?;
    let builder = match tls.client_auth_type.as_deref() {
        None | Some("NoClientCert") => builder.with_no_client_auth(),
        asked => {
            let mut roots = RootCertStore::empty();
            for one in
                certificates(&pem(&tls.client_ca, &tls.client_ca_file)?).map_err(|e| named("client_ca_file", &e))?
            {
                roots.add(one).map_err(|error| named("client_ca_file", &error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let must = asked == Some("RequireAndVerifyClientCert");
            let verifier = if must { verifier } else { verifier.allow_unauthenticated() };
            builder.with_client_cert_verifier(verifier.build().map_err(|error| named("client_ca_file", &error))?)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| named("cert_file", &error))?;
    config.ignore_client_order = tls.prefer_server_cipher_suites.unwrap_or(true);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Acceptor(TlsAcceptor::from(Arc::new(config))))
}

/// The text, or the file's.
fn pem(inline: &Option<String>, file: &Option<PathBuf>) -> Result<String, String> {
    match (inline, file) {
        (Some(inline), _) => Ok(inline.clone()),
        (None, Some(file)) => text(file),
        (None, None) => Ok(String::new()),
    }
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| error.to_string())?;
    if found.is_empty() { Err("no certificate in PEM is there".to_owned()) } else { Ok(found) }
}

fn versions(tls: &Tls) -> Result<Vec<&'static SupportedProtocolVersion>, String> {
    let place = |key: &str, asked: &Option<String>, default: usize| match asked.as_deref() {
        None => Ok(default),
        Some("TLS12") => Ok(0),
        Some("TLS13") => Ok(1),
        Some(other) => Err(format!(
            "tls_server_config.{key}: {other:?} is not taken by kvmeter: must be \"TLS12\" or \"TLS13\", older ones are broken"
        )),
    };
    let (least, most) = (place("min_version", &tls.min_version, 0)?, place("max_version", &tls.max_version, 1)?);
    [&TLS12, &TLS13]
        .get(least..=most)
        .map(<[_]>::to_vec)
        .ok_or_else(|| "tls_server_config: min_version is above max_version".to_owned())
}

/// Cipher suites and curves, in the order they are named; those of TLS 1.3 are not chosen, as in Go.
fn provider(tls: &Tls) -> Result<CryptoProvider, String> {
    let mut provider = ring::default_provider();
    if let Some(names) = tls.cipher_suites.as_deref().filter(|names| !names.is_empty()) {
        let is_13 = |suite: &tokio_rustls::rustls::SupportedCipherSuite| suite.tls13().is_some();
        let mut suites: Vec<_> = provider.cipher_suites.iter().copied().filter(is_13).collect();
        for name in names {
            let found = provider.cipher_suites.iter().find(|suite| {
                suite.suite().as_str().is_some_and(|own| own == name || own.strip_suffix("_SHA256") == Some(name))
            });
            let known: Vec<_> = provider.cipher_suites.iter().filter_map(|suite| suite.suite().as_str()).collect();
            match found {
                Some(suite) if is_13(suite) => {}
                Some(suite) => suites.push(*suite),
                None => {
                    let known = known.join(", ");
                    return Err(format!("tls_server_config.cipher_suites: {name:?} is not one of {known}"));
                }
            }
        }
        provider.cipher_suites = suites;
    }
    if let Some(names) = tls.curve_preferences.as_deref().filter(|names| !names.is_empty()) {
        let own = |name: &str| match name {
            "CurveP256" => Some(ring::kx_group::SECP256R1),
            "CurveP384" => Some(ring::kx_group::SECP384R1),
            "X25519" => Some(ring::kx_group::X25519),
            _ => None,
        };
        let groups = names.iter().map(|name| {
            own(name).ok_or_else(|| {
                format!("tls_server_config.curve_preferences: {name:?} is not one of CurveP256, CurveP384, X25519")
            })
        });
        provider.kx_groups = groups.collect::<Result<_, _>>()?;
    }
    Ok(provider)
}
