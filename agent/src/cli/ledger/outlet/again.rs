//! Asking until it is acknowledged: what may yet be taken is tried again, after waits that double up to a minute.

use std::{fmt::Display, time::Duration};

use anyhow::bail;

const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// What became of a request that was heard.
pub(super) enum Answer {
    Taken,
    Later { why: String, wait: Option<Duration> },
}

/// Why there is no answer.
pub(super) enum Failed {
    /// Sending the same again would not help.
    Refused(anyhow::Error),
    /// Nobody knows whether it arrived.
    Unheard(anyhow::Error),
}

/// `tries` is how often it is asked before giving up; without it, for ever.
///
/// # Errors
/// A refusal, or too many tries.
pub(super) fn until_taken(
    to: &dyn Display,
    tries: Option<u32>,
    mut ask: impl FnMut() -> Result<Answer, Failed>,
) -> anyhow::Result<()> {
    let (mut wait, mut made) = (FIRST_WAIT, 0_u32);
    loop {
        made = made.saturating_add(1);
        let (why, asked) = match ask() {
            Ok(Answer::Taken) => return Ok(()),
            Ok(Answer::Later { why, wait }) => (why, wait),
            Err(Failed::Refused(error)) => return Err(error),
            Err(Failed::Unheard(error)) => (format!("{error:#}"), None),
        };
        if tries.is_some_and(|tries| made >= tries) {
            bail!("{to} did not take the events in {made} tries: {why}");
        }
        let pause = asked.unwrap_or(wait).min(LONGEST_WAIT);
        eprintln!("kvmeter: {to}: {why}; again in {pause:?}");
        std::thread::sleep(pause);
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}
