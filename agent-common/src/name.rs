//! Rules that tell by a name: which VMM a process is, and which of its threads do I/O.
//!
//! The kernel marks neither, so the agent's table of names goes to the kernel programs, which see threads that are born
//! and dead between two samples.

use crate::assert_layout;

/// Families of VMMs; each names its threads in its own way. The agent's table says which names belong to which.
pub mod family {
    /// Any, or one nobody knows.
    pub const ANY: u32 = 0;
    /// A rule that tells the family itself by the leader's name.
    pub const LEADER: u32 = u32::MAX;
}

/// One rule: a name whose masked bytes are these.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// The bytes, as two native-endian words.
    pub value: [u64; 2],
    /// Which of them count; all zero = no rule.
    pub mask: [u64; 2],
    /// The family whose threads it is about; [`family::ANY`] = all, [`family::LEADER`] = it tells the family.
    pub family: u32,
    /// The role a thread of that name has; for a leader, its family.
    pub gives: u32,
}

assert_layout!(Rule, size 40, { value: [u64; 2] => 0, mask: [u64; 2] => 16, family: u32 => 32, gives: u32 => 36 });

impl Rule {
    /// A rule about names that begin with `prefix`, or, if `whole`, are it. A kernel name has 15 bytes and a zero.
    #[must_use]
    pub const fn new(prefix: &[u8], whole: bool, family: u32, gives: u32) -> Self {
        let (mut value, mut mask) = ([0u8; 16], [0u8; 16]);
        let mut at = 0;
        while at < prefix.len() && at < 15 {
            value[at] = prefix[at];
            mask[at] = 0xff;
            at += 1;
        }
        if whole {
            mask[at] = 0xff;
        }
        Self { value: words(value), mask: words(mask), family, gives }
    }

    /// Whether a name is meant.
    #[must_use]
    #[inline(always)]
    pub const fn matches(&self, name: [u64; 2]) -> bool {
        self.differs(name) == 0 && self.mask[0] != 0
    }

    #[inline(always)]
    const fn differs(&self, name: [u64; 2]) -> u64 {
        ((name[0] ^ self.value[0]) & self.mask[0]) | ((name[1] ^ self.value[1]) & self.mask[1])
    }

    /// Whether this is the first rule that tells a name of this family, or the end of the rules, where there is no other.
    ///
    /// One sum and no choices: the kernel's verifier follows both sides of each, in every turn of a loop over all rules.
    #[must_use]
    #[inline(always)]
    pub const fn ends(&self, name: [u64; 2], about: u32) -> bool {
        // A product is 0 if one side is: the family is this one, or any and nobody asks about a leader.
        let leader = if about == family::LEADER { u32::MAX } else { 0 };
        let other = (self.family ^ about) as u64 * (self.family | leader) as u64;
        self.differs(name) | other == 0
    }

    /// What it gives, if it is a rule at all.
    #[must_use]
    #[inline(always)]
    pub const fn gift(&self) -> Option<u32> {
        if self.mask[0] == 0 { None } else { Some(self.gives) }
    }
}

/// A kernel name as two words.
#[must_use]
#[inline(always)]
pub const fn words(name: [u8; 16]) -> [u64; 2] {
    let (mut low, mut high, mut at) = ([0u8; 8], [0u8; 8], 0);
    while at < 8 {
        low[at] = name[at];
        high[at] = name[at + 8];
        at += 1;
    }
    [u64::from_ne_bytes(low), u64::from_ne_bytes(high)]
}
