//! Agents that are asked over TLS and with passwords: certificates of a test's own, the files that name them, and a client.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, pem::PemObject as _},
    version::{TLS12, TLS13},
};

use crate::agent::{Agent, Setup};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A CA of a test's own.
pub type Ca = CertifiedIssuer<'static, KeyPair>;

/// A new one.
pub fn ca() -> Result<Ca> {
    let mut params = CertificateParams::new(Vec::new())?;
    // OpenSSL takes who is named as its issuer for its own issuer.
    params.distinguished_name.push(DnType::CommonName, "a CA of kvmeter's tests");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}

/// A certificate for `name`, and its key.
pub fn issue(ca: &Ca, name: &str) -> Result<(String, String)> {
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec![name.to_owned()])?.signed_by(&key, ca)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// Files that a web configuration names.
#[derive(Debug)]
pub struct Files(TempDir);

impl Files {
    /// None yet.
    pub fn new() -> Result<Self> {
        Ok(Self(TempDir::new()?))
    }

    /// Puts a file there as a whole.
    pub fn put(&self, name: &str, text: &str) -> Result<()> {
        let half = self.0.path().join("half");
        fs::write(&half, text)?;
        Ok(fs::rename(half, self.0.path().join(name))?)
    }

    /// A certificate for this name, and its key.
    pub fn certify(&self, ca: &Ca, name: &str) -> Result<()> {
        let (certificate, key) = issue(ca, name)?;
        self.put("server.crt", &certificate)?;
        self.put("server.key", &key)
    }

    /// Where the web configuration is.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.at("web.yml")
    }

    /// Where a file is.
    #[must_use]
    pub fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// An agent by it.
    pub fn agent(&self) -> Result<Agent> {
        Agent::with(Setup::of(&format!("web_config = {:?}\n", self.path())))
    }
}

/// A web configuration that names them.
pub const TLS: &str = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n";

/// A connection to its port.
pub fn connect(agent: &Agent) -> Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", agent.port()))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// A client that trusts this CA, and shows a certificate if it has one.
pub fn client(trusted: &Ca, own: Option<&(String, String)>) -> Result<ClientConfig> {
    speaking(&[&TLS13, &TLS12], trusted, own)
}

/// The same, which speaks these protocols alone.
pub fn speaking(
    versions: &[&'static SupportedProtocolVersion],
    trusted: &Ca,
    own: Option<&(String, String)>,
) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.der().clone())?;
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)?
        .with_root_certificates(roots);
    Ok(match own {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes())?];
            let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from_pem_slice(key.as_bytes())?);
            builder.with_client_auth_cert(chain, key)?
        }
    })
}

/// The same encrypted, with who answers to this name.
pub fn secured(agent: &Agent, client: ClientConfig, name: &str) -> Result<StreamOwned<ClientConnection, TcpStream>> {
    let name = ServerName::try_from(name.to_owned())?;
    Ok(StreamOwned::new(ClientConnection::new(Arc::new(client), name)?, connect(agent)?))
}

/// A request with these header lines: the whole answer.
pub fn ask(mut stream: impl Read + Write, path: &str, headers: &str) -> Result<String> {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n")?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said)
}

/// The header line that says who asks: `user:password`.
#[must_use]
pub fn basic(words: &str) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut coded = String::new();
    for three in words.as_bytes().chunks(3) {
        let number = three.iter().fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte)) << (8 * (3 - three.len()));
        for at in 0..4 {
            let letter = LETTERS[number >> (18 - 6 * at) & 63];
            coded.push(if at <= three.len() { char::from(letter) } else { '=' });
        }
    }
    format!("Authorization: Basic {coded}\r\n")
}
