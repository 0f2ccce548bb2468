//! Classes of traffic by the far end's address: prefixes with names, the table that kernel programs look them up in, and
//! the numbers that stand for the names.
//!
//! Longest prefix first. What matches none is `external`, what is neither IPv4 nor IPv6 is `non_ip`. Two names never
//! share a number, so that no count is told under the wrong one.

mod numbers;
mod prefix;
mod table;

use std::{collections::BTreeMap, sync::Arc};

use kvmeter_common::network;

pub use numbers::{Numbers, NumbersError};
pub use prefix::{Prefix, PrefixError};
pub use table::{ClassTable, TableError};

/// IPv4 and IPv6 that match no prefix.
pub const EXTERNAL: &str = "external";
/// Neither IPv4 nor IPv6.
pub const NON_IP: &str = "non_ip";
/// What passed before counting began.
pub const UNCLASSIFIED: &str = "unclassified";
/// Names that no configuration may give.
pub const RESERVED: [&str; 3] = [EXTERNAL, NON_IP, UNCLASSIFIED];
/// Names that a configuration may give: with the reserved ones there are 16 in all.
pub const CONFIGURED: usize = network::CLASSES - RESERVED.len();
/// Bytes of a name at most.
pub const NAME_BYTES: usize = 32;

/// The configured classes, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Classes {
    /// Prefixes of each.
    pub prefixes: BTreeMap<Arc<str>, Vec<Prefix>>,
}

impl Classes {
    /// Whether a name may be configured: a lower-case letter, then such letters, digits, `_` and `-`, and not reserved.
    #[must_use]
    pub fn allows(name: &str) -> bool {
        let body = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-');
        name.len() <= NAME_BYTES
            && name.bytes().next().is_some_and(|first| first.is_ascii_lowercase())
            && name.bytes().all(body)
            && !RESERVED.contains(&name)
    }

    /// All prefixes with the names of their classes.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, Prefix)> {
        self.prefixes.iter().flat_map(|(name, prefixes)| prefixes.iter().map(move |prefix| (name, *prefix)))
    }
}

#[cfg(test)]
mod tests;
