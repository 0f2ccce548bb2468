//! Who a command runs as: found by name once, when the configuration is taken over.

use nix::unistd::{Gid, Uid, User, geteuid};

use crate::host::{Capability, HostFacts};

/// What switching to another user and ending that user's processes takes.
const NEEDED: [Capability; 3] = [Capability::Kill, Capability::SetGid, Capability::SetUid];

/// Why a command cannot run as a user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// Nobody is called so.
    #[error("there is no user \"{0}\" on this host")]
    Unknown(String),
    /// Another name for root.
    #[error("user \"{0}\" has user id 0; a hook runs as root only where user = \"root\" is written")]
    AlsoRoot(String),
    /// The agent may not become somebody else.
    #[error("running as \"{user}\" takes root with {}; this agent lacks {missing}", NEEDED.map(Capability::as_str).join(", "))]
    NotAllowed {
        /// The user.
        user: String,
        /// What is missing.
        missing: String,
    },
}

/// A user a command can run as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunAs {
    /// The name.
    pub name: String,
    /// Set where the agent has to become somebody else.
    pub ids: Option<(Uid, Gid)>,
}

impl RunAs {
    /// Looks the name up and makes sure that the agent can become that user.
    ///
    /// # Errors
    /// When there is none, when it is root by another name, or when the agent lacks what it takes.
    pub fn find(name: &str, facts: &HostFacts) -> Result<Self, UserError> {
        let user = User::from_name(name).ok().flatten().ok_or_else(|| UserError::Unknown(name.to_owned()))?;
        if user.uid.is_root() && name != "root" {
            return Err(UserError::AlsoRoot(name.to_owned()));
        }
        if user.uid == geteuid() {
            return Ok(Self { name: name.to_owned(), ids: None });
        }
        let mut missing: Vec<&str> =
            NEEDED.iter().filter(|capability| !facts.has(**capability)).map(|capability| capability.as_str()).collect();
        if !geteuid().is_root() {
            missing.insert(0, "root");
        }
        if missing.is_empty() {
            Ok(Self { name: name.to_owned(), ids: Some((user.uid, user.gid)) })
        } else {
            Err(UserError::NotAllowed { user: name.to_owned(), missing: missing.join(", ") })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_known_and_switched_to_only_with_what_that_takes() {
        let all = HostFacts { capabilities: u64::MAX, ..HostFacts::default() };
        let unknown = RunAs::find("no-such-user-here", &all);
        assert_eq!(unknown, Err(UserError::Unknown("no-such-user-here".into())));
        if !geteuid().is_root() {
            return;
        }
        assert_eq!(RunAs::find("root", &HostFacts::default()), Ok(RunAs { name: "root".into(), ids: None }));
        let nobody = RunAs::find("nobody", &all).unwrap();
        assert!(nobody.ids.is_some_and(|(uid, _)| !uid.is_root()));
        let few = HostFacts { capabilities: Capability::SetUid.mask(), ..HostFacts::default() };
        let refused = RunAs::find("nobody", &few).unwrap_err().to_string();
        assert!(refused.ends_with("lacks CAP_KILL, CAP_SETGID"), "{refused}");
    }
}
