//! Encrypted connections of web hooks: rustls with the system's certificates, or with those of one file.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Why nothing can be encrypted.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file with certificates.
    #[error("ca_file {path} holds no certificates in PEM: {why}")]
    File {
        /// The file.
        path: PathBuf,
        /// What was found.
        why: String,
    },
    /// The system's certificates.
    #[error("this system trusts no certificates (install ca-certificates, or set ca_file): {0}")]
    System(String),
    /// The host cannot stand in a certificate.
    #[error("{host:?} is no name that a certificate can have")]
    Name {
        /// The host.
        host: String,
        /// Why.
        source: InvalidDnsNameError,
    },
    /// The library's own.
    #[error("encryption cannot be set up")]
    Library(#[source] tokio_rustls::rustls::Error),
}

/// Encrypts connections to one host.
pub(super) struct Connector {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Connector {
    pub(super) fn new(ca_file: Option<&Path>, host: &str) -> Result<Self, TlsError> {
        let name =
            ServerName::try_from(host.to_owned()).map_err(|source| TlsError::Name { host: host.to_owned(), source })?;
        let roots = match ca_file {
            Some(path) => of_file(path)?,
            None => of_system()?,
        };
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Library)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), name })
    }

    pub(super) async fn connect(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.connector.connect(self.name.clone(), stream).await
    }
}

fn of_file(path: &Path) -> Result<RootCertStore, TlsError> {
    let wrong = |why: String| TlsError::File { path: path.to_owned(), why };
    let read = CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?;
    let found: Vec<_> = read.collect::<Result<_, _>>().map_err(|error| wrong(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    let (added, refused) = roots.add_parsable_certificates(found);
    if added > 0 { Ok(roots) } else { Err(wrong(format!("{refused} refused"))) }
}

fn of_system() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    let why = || found.errors.first().map_or_else(|| "none found".to_owned(), ToString::to_string);
    if added > 0 { Ok(roots) } else { Err(TlsError::System(why())) }
}
