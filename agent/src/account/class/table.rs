//! The table that kernel programs look classes up in: a trie whose every step takes a whole byte of the address, so that
//! a packet pays one load for each byte of the longest prefix near its address.

use kvmeter_common::network::{
    EXTERNAL,
    table::{ENTRIES, LEAF, NODE_BYTES, NODES, ROOT_V4, ROOT_V6},
};

use super::{Classes, Numbers, Prefix};

/// Why prefixes do not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// A node is needed for every byte but the last of each prefix that no other prefix has in common with it.
    #[error(
        "{prefixes} prefixes need more than the {NODES} nodes (2 MiB) that the table of network classes may have; \
         shorter or fewer prefixes need less (an IPv4 /24 up to 2 nodes, an IPv6 /48 up to 5)"
    )]
    Full {
        /// How many there are.
        prefixes: usize,
    },
}

/// A table, ready for the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassTable {
    nodes: Vec<[u16; ENTRIES]>,
}

impl ClassTable {
    /// Builds the table for classes that have numbers; `None` where no class has a prefix.
    ///
    /// # Errors
    /// When the prefixes need too many nodes.
    pub fn new(classes: &Classes, numbers: &Numbers) -> Result<Option<Self>, TableError> {
        let mut prefixes: Vec<(Prefix, u16)> =
            classes.iter().filter_map(|(name, prefix)| Some((prefix, numbers.number(name)?))).collect();
        if prefixes.is_empty() {
            return Ok(None);
        }
        // The longest last: it overwrites what a shorter one says of the same addresses.
        prefixes.sort_by_key(|(prefix, _)| prefix.length());
        let full = || TableError::Full { prefixes: prefixes.len() };
        let mut table = Self { nodes: vec![[leaf(EXTERNAL); ENTRIES]; 2] };
        for (prefix, class) in &prefixes {
            table.insert(*prefix, *class).ok_or_else(full)?;
        }
        Ok(Some(table))
    }

    fn insert(&mut self, prefix: Prefix, class: u16) -> Option<()> {
        let (bytes, length) = (prefix.bytes(), usize::from(prefix.length()));
        // The last byte that the prefix says something of; a prefix of no bits says it of none.
        let last = length.saturating_sub(1) / 8;
        let mut node = usize::from(if prefix.is_v6() { ROOT_V6 } else { ROOT_V4 });
        for byte in bytes.iter().take(last) {
            node = self.child(node, usize::from(*byte))?;
        }
        let first = usize::from(*bytes.get(last)?);
        let span = 1_usize << (8 * (last + 1) - length);
        self.nodes.get_mut(node)?.get_mut(first..first + span)?.fill(LEAF | class);
        Some(())
    }

    /// The node below an entry; a leaf becomes one whose every entry says the same.
    fn child(&mut self, node: usize, byte: usize) -> Option<usize> {
        let next = self.nodes.len();
        let entry = self.nodes.get_mut(node)?.get_mut(byte)?;
        if *entry & LEAF == 0 {
            return Some(usize::from(*entry));
        }
        let said = *entry;
        *entry = u16::try_from(next).ok().filter(|_| next < NODES)?;
        self.nodes.push([said; ENTRIES]);
        Some(next)
    }

    /// The class of an address, by the steps that the kernel programs take.
    #[must_use]
    pub fn class(&self, address: core::net::IpAddr) -> u16 {
        let (mut node, bytes) = match address {
            core::net::IpAddr::V4(address) => (ROOT_V4, address.octets().to_vec()),
            core::net::IpAddr::V6(address) => (ROOT_V6, address.octets().to_vec()),
        };
        for byte in bytes {
            let entry = self.nodes.get(usize::from(node)).map_or(leaf(EXTERNAL), |node| node[usize::from(byte)]);
            if entry & LEAF != 0 {
                return entry & !LEAF;
            }
            node = entry;
        }
        leaf(EXTERNAL) & !LEAF
    }

    /// Nodes in use; [`NODES`] at most.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// The table as the kernel has it, filled up to a power of two with nodes that nothing points to.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.nodes.iter().flatten().flat_map(|entry| entry.to_ne_bytes()).collect();
        bytes.resize(self.nodes.len().next_power_of_two() * NODE_BYTES, 0);
        bytes
    }
}

#[expect(clippy::cast_possible_truncation, reason = "numbers of classes are below 16")]
const fn leaf(class: u32) -> u16 {
    LEAF | class as u16
}
