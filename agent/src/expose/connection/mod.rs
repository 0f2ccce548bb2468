//! Connections of the HTTP server, bounded in number and time. A place is held by who keeps the agent at work; who keeps
//! it waiting, for a request or for taking an answer, gives way to a newcomer when all places are taken, the longest
//! first. So slow and hostile clients cost each other their places and nobody else an answer. Streams of events are not
//! counted here: they have a bound of their own.

mod attend;
mod counts;
#[cfg(feature = "tls")]
mod io;
mod serve;
mod slot;
mod watched;

pub use counts::{CUTS, Counts, LISTENERS};

pub(super) use {
    attend::attend,
    counts::Listener,
    serve::{Handshake, serve},
    slot::Places,
};

#[cfg(feature = "tls")]
pub(super) use io::Io;
