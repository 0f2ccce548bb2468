//! Without the cargo feature `tls` nothing is encrypted, and who asks for it is told.

use super::file::Tls;

/// None can be made.
#[derive(Clone)]
pub(in crate::expose) enum Acceptor {}

pub(super) fn acceptor(_: &Tls) -> Result<Acceptor, String> {
    Err("tls_server_config takes a kvmeter built with the cargo feature \"tls\", which this one is not".to_owned())
}

impl<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send> crate::expose::connection::Handshake<S>
    for Option<Acceptor>
{
    type Io = S;
    async fn shake(self, io: S) -> std::io::Result<S> {
        Ok(io)
    }
}
