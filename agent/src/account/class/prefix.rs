//! An address prefix: `10.0.0.0/8`, `fd00::/8`.

use core::net::IpAddr;
use std::{fmt, str::FromStr};

/// The leading bits that a range of addresses has in common.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    /// The lowest address.
    address: IpAddr,
    length: u8,
}

/// Why text is no prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// Not an address, a slash and a length.
    #[error("must be an IPv4 or IPv6 prefix, such as \"10.0.0.0/8\" or \"fd00::/8\"")]
    Syntax,
    /// Longer than the address.
    #[error("its length must be from 0 to {0}")]
    Length(u8),
    /// It names an address inside the range, not the range.
    #[error("has bits set behind its length; the prefix is \"{0}\"")]
    HostBits(Prefix),
}

impl Prefix {
    /// The address's bytes, first the highest; those behind the prefix are 0.
    #[must_use]
    pub fn bytes(self) -> Vec<u8> {
        match self.address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        }
    }

    /// Bits of the prefix.
    #[must_use]
    pub const fn length(self) -> u8 {
        self.length
    }

    /// Whether it is one of IPv6.
    #[must_use]
    pub const fn is_v6(self) -> bool {
        self.address.is_ipv6()
    }
}

/// The address with all bits behind the first `length` cleared.
fn masked(address: IpAddr, length: u8) -> IpAddr {
    let length = u32::from(length);
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(length)).unwrap_or(0);
            IpAddr::V4((address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(length)).unwrap_or(0);
            IpAddr::V6((address.to_bits() & mask).into())
        }
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let (address, length) = text.split_once('/').ok_or(PrefixError::Syntax)?;
        let address: IpAddr = address.parse().map_err(|_| PrefixError::Syntax)?;
        if length.is_empty() || length.len() > 3 || !length.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(PrefixError::Syntax);
        }
        let most = if address.is_ipv4() { 32 } else { 128 };
        let length = length.parse().ok().filter(|length| *length <= most).ok_or(PrefixError::Length(most))?;
        let prefix = Self { address: masked(address, length), length };
        if prefix.address == address { Ok(prefix) } else { Err(PrefixError::HostBits(prefix)) }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
