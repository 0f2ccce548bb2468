//! `[[hooks]]`: what is run when something happens.

use std::{path::PathBuf, time::Duration};

use crate::{config::Url, ledger::Kind};

/// `[[hooks]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Tells it apart from others.
    pub name: String,
    /// Which lines it is told of.
    pub kinds: Vec<Kind>,
    /// What is done.
    pub action: HookAction,
    /// A file with a secret.
    pub secret_file: Option<PathBuf>,
    /// How long a try may take.
    pub timeout: Duration,
    /// Tries under way at once.
    pub max_concurrent: u32,
    /// Tries after the first.
    pub retries: u32,
    /// Pause before the second try; doubled before each further one.
    pub backoff: Duration,
    /// Lines that may wait.
    pub queue: u32,
}

/// What a hook does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HookAction {
    /// Runs a program.
    Command {
        /// Its path and arguments.
        words: Vec<String>,
        /// Who it runs as.
        user: String,
    },
    /// Posts to an address.
    Request {
        /// The address.
        url: Url,
        /// How the secret is used.
        secret_as: SecretAs,
        /// Certificates trusted instead of the system's.
        ca_file: Option<PathBuf>,
    },
}

/// `secret_as`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretAs {
    /// Sent, as `Authorization: Bearer`.
    Bearer,
    /// Kept: it is the key of a signature.
    Hmac,
}
