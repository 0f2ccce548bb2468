//! An error and what is behind it, in one text: for status, logs of refusals and `doctor`.

use std::error::Error;

/// The error and its causes, the outermost first, each after a colon.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
