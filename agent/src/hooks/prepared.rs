//! A hook as it is run: its user found, its certificates loaded. Made when a configuration is taken over, so that what
//! can be known to be wrong is said then.

use super::user::{RunAs, UserError};
use crate::config::{Hook, HookAction, SecretAs, Url};
use crate::host::HostFacts;

/// Why hooks cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// Its user.
    #[error("hook {name:?} cannot be used")]
    User {
        /// The hook.
        name: String,
        /// Why.
        source: UserError,
    },
    /// Its certificates.
    #[cfg(feature = "tls")]
    #[error("hook {name:?} cannot be used")]
    Tls {
        /// The hook.
        name: String,
        /// Why.
        source: super::tls::TlsError,
    },
    /// The threads that run hooks.
    #[error("hooks cannot be run")]
    Runtime(#[source] std::io::Error),
}

/// A command.
pub(super) struct Program {
    pub(super) words: Vec<String>,
    pub(super) user: RunAs,
}

/// A request.
pub(super) struct Target {
    pub(super) url: Url,
    pub(super) secret_as: SecretAs,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<super::tls::Connector>,
}

/// What is done.
pub(super) enum Action {
    Run(Program),
    Post(Target),
}

/// A hook that can be run.
pub(super) struct Prepared {
    pub(super) hook: Hook,
    pub(super) action: Action,
}

impl Prepared {
    pub(super) fn new(hook: Hook, facts: &HostFacts) -> Result<Self, HookError> {
        let action = match &hook.action {
            HookAction::Command { words, user } => {
                let user =
                    RunAs::find(user, facts).map_err(|source| HookError::User { name: hook.name.clone(), source })?;
                Action::Run(Program { words: words.clone(), user })
            }
            HookAction::Request { url, secret_as, ca_file } => {
                #[cfg(feature = "tls")]
                let tls = url
                    .tls
                    .then(|| super::tls::Connector::new(ca_file.as_deref(), &url.host))
                    .transpose()
                    .map_err(|source| HookError::Tls { name: hook.name.clone(), source })?;
                #[cfg(not(feature = "tls"))]
                let _ = ca_file;
                Action::Post(Target {
                    url: url.clone(),
                    secret_as: *secret_as,
                    #[cfg(feature = "tls")]
                    tls,
                })
            }
        };
        Ok(Self { hook, action })
    }
}
