//! Publishes events to a NATS JetStream subject and waits for the stream's acknowledgements. The message id is the
//! event's, so the stream itself drops what is sent again (within its duplicate window, two minutes by default); every
//! failure is tried again, over a new connection.

use std::{path::Path, time::Duration};

use anyhow::Context as _;
use async_nats::{
    ConnectErrorKind, ConnectOptions,
    jetstream::{self, Context, context::PublishErrorKind, message::PublishMessage},
};

use super::{
    Outlet,
    again::{Answer, Failed, until_taken},
};
use crate::ledger::Event;

/// How long a connection, and an acknowledgement, may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A stream's subject.
pub(in crate::cli::ledger) struct Nats {
    server: String,
    subject: String,
    credentials: Option<String>,
    tries: Option<u32>,
    runtime: tokio::runtime::Runtime,
    /// While the connection has not failed.
    open: Option<Context>,
}

impl Nats {
    /// `server` is `nats://host[:port]`; `credentials` a file as NATS's own tools write them; `tries` is how often events
    /// are sent before giving up, without it for ever.
    pub(in crate::cli::ledger) fn new(
        server: String,
        subject: String,
        credentials: Option<&Path>,
        tries: Option<u32>,
    ) -> anyhow::Result<Self> {
        let read =
            |path: &Path| std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()));
        let credentials = credentials.map(read).transpose()?;
        // A thread of its own answers the server's pings while there is nothing to send.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        Ok(Self { server, subject, credentials, tries, runtime, open: None })
    }

    async fn connect(&self) -> Result<Context, Failed> {
        let options = match &self.credentials {
            // The error says what is wrong with the form, and shows none of it.
            Some(text) => ConnectOptions::with_credentials(text)
                .map_err(|_| Failed::Refused(anyhow::anyhow!("the credentials file is not one of NATS")))?,
            None => ConnectOptions::new(),
        };
        let connected = options.name("kvmeter").connection_timeout(PATIENCE).connect(&self.server).await;
        let client = connected.map_err(|error| match error.kind() {
            ConnectErrorKind::Authentication
            | ConnectErrorKind::AuthorizationViolation
            | ConnectErrorKind::ServerParse => Failed::Refused(anyhow::Error::new(error).context("the server refused")),
            _ => Failed::Unheard(anyhow::Error::new(error).context("cannot connect")),
        })?;
        let mut context = jetstream::new(client);
        context.set_timeout(PATIENCE);
        Ok(context)
    }

    /// Sends events, and counts in `taken` those that the stream has, the first ones of them.
    async fn send(&self, context: &Context, events: &[Event], taken: &mut usize) -> Result<Answer, Failed> {
        let failed = |error: jetstream::context::PublishError| match error.kind() {
            PublishErrorKind::MaxPayloadExceeded => Failed::Refused(anyhow::Error::new(error)),
            _ => Failed::Unheard(anyhow::Error::new(error)),
        };
        let mut under_way = Vec::with_capacity(events.len());
        for event in events {
            let message = PublishMessage::build().message_id(&event.id).payload(event.json.clone().into());
            under_way.push(context.send_publish(self.subject.clone(), message).await.map_err(failed)?);
        }
        for acknowledgement in under_way {
            acknowledgement.await.map_err(failed)?;
            *taken += 1;
        }
        Ok(Answer::Taken)
    }
}

impl Outlet for Nats {
    fn hand(&mut self, events: &[Event]) -> anyhow::Result<()> {
        let mut taken = 0;
        let (to, tries) = (format!("{} subject {}", self.server, self.subject), self.tries);
        until_taken(&to, tries, || {
            let (outcome, open) = self.runtime.block_on(async {
                let context = match &self.open {
                    Some(context) => Ok(context.clone()),
                    None => tokio::time::timeout(PATIENCE, self.connect())
                        .await
                        .unwrap_or_else(|_| Err(Failed::Unheard(anyhow::anyhow!("no connection within {PATIENCE:?}")))),
                };
                match context {
                    Err(error) => (Err(error), None),
                    Ok(context) => match self.send(&context, &events[taken..], &mut taken).await {
                        Ok(answer) => (Ok(answer), Some(context)),
                        Err(error) => (Err(error), None),
                    },
                }
            });
            self.open = open;
            outcome
        })
    }
}

#[cfg(test)]
mod tests;
