//! What can keep tables and links from outliving the agent.

use std::{io, path::PathBuf};

/// Why nothing is pinned, or what is pinned cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// Pins can lie nowhere else.
    #[error("{0} is on no bpffs (mount one: mount -t bpf bpf /sys/fs/bpf)")]
    NoBpffs(PathBuf),
    /// A directory or a pin.
    #[error("{path} cannot be used for pins")]
    Path {
        /// Where.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A map cannot be pinned.
    #[error("{path} cannot be pinned")]
    Pin {
        /// Where.
        path: PathBuf,
        /// The kernel's answer.
        source: Box<aya::pin::PinError>,
    },
    /// A map cannot be opened, made or asked about.
    #[error("a pinned map cannot be used")]
    Map(#[source] Box<aya::maps::MapError>),
    /// A map is pinned that is not what it should be.
    #[error("the map pinned at {0} has another type or size than this agent's programs count into")]
    Other(PathBuf),
    /// Our own object cannot be read.
    #[error("the kernel programs' object cannot be read")]
    Object(#[source] Box<aya_obj::ParseError>),
    /// Our own object lacks a map.
    #[error("the kernel programs have no map {0}")]
    NoMap(String),
    /// The header cannot be mapped.
    #[error(transparent)]
    Header(#[from] crate::bpf::maps::MapError),
    /// A descriptor could not be put in another's place.
    #[error("a pinned map cannot take the place of a new one")]
    Swap(#[source] io::Error),
}
