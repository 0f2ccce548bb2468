//! Numbers with their unit in the type: kernel ids, nanoseconds, bytes. Nothing else lives here.
//!
//! A `Tgid` is never passed where a `Tid` is meant, and a size read from text is a [`Bytes`] from then on. Sizes are
//! binary everywhere in kvmeter (`K` and `KiB` are 1024 bytes); the decimal spellings (`KB`, `MB`) are refused rather
//! than guessed at.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// The bare number, in the unit of the type.
            #[must_use]
            pub const fn get(self) -> $inner {
                self.0
            }
        }
    };
}

number! {
    /// A process: the thread-group id in the initial pid namespace (`task->tgid`).
    Tgid(u32)
}
number! {
    /// A thread: the task id in the initial pid namespace (`task->pid`).
    Tid(u32)
}
number! {
    /// A length of time or an instant of a monotonic clock, in nanoseconds.
    Nanos(u64)
}
number! {
    /// A size in bytes. Serialised as a number, shown in the largest binary unit that loses nothing.
    Bytes(u64)
}

impl Tgid {
    /// The id of the thread-group leader, which is the same number by definition.
    #[must_use]
    pub const fn leader(self) -> Tid {
        Tid(self.0)
    }
}

impl fmt::Display for Tgid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Tid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Nanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ns", self.0)
    }
}

/// Binary units, largest first: suffix and the power of two it stands for.
const UNITS: [(&str, u32); 6] = [("EiB", 60), ("PiB", 50), ("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];

impl Bytes {
    /// `n` × 1024 bytes.
    #[must_use]
    pub const fn kib(n: u32) -> Self {
        Self((n as u64) << 10)
    }

    /// `n` × 1024² bytes.
    #[must_use]
    pub const fn mib(n: u32) -> Self {
        Self((n as u64) << 20)
    }

    /// `n` × 1024³ bytes.
    #[must_use]
    pub const fn gib(n: u32) -> Self {
        Self((n as u64) << 30)
    }

    /// Reads a size whose unit may be left out: a bare number counts `bare` bytes each (QEMU's `-m 512` is in MiB).
    ///
    /// # Errors
    /// [`SizeError`] if the text is no number, has an unknown unit, is no whole number of bytes or exceeds 2⁶⁴ − 1.
    pub fn parse_with_default_unit(text: &str, bare: Self) -> Result<Self, SizeError> {
        let text = text.trim();
        let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, suffix) = text.split_at(split);
        let suffix = suffix.trim_start();
        let unit = if suffix.is_empty() {
            u128::from(bare.0)
        } else {
            unit_bytes(suffix).ok_or_else(|| SizeError::Unit { text: shortened(text), unit: shortened(suffix) })?
        };
        scale(number, unit, text).map(Self)
    }
}

impl FromStr for Bytes {
    type Err = SizeError;

    /// Reads `"256MiB"`, `"64K"`, `"1.5G"`, `"4096"`; see [`Bytes::parse_with_default_unit`].
    fn from_str(text: &str) -> Result<Self, SizeError> {
        Self::parse_with_default_unit(text, Self(1))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().find(|(_, shift)| self.0 != 0 && self.0.trailing_zeros() >= *shift) {
            Some((name, shift)) => write!(f, "{}{name}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

/// Why a text is not a size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// There is no number in front.
    #[error("{text:?} is not a size; write for example \"256MiB\", \"64K\", \"1.5G\" or a number of bytes")]
    Number {
        /// The text, shortened.
        text: String,
    },
    /// The unit is not one of K, M, G, T, P, E with or without `iB`, or B.
    #[error("{text:?} has the unknown unit {unit:?}; use B, KiB, MiB, GiB, TiB, PiB, EiB or K, M, G, T, P, E (binary)")]
    Unit {
        /// The text, shortened.
        text: String,
        /// What stands in the unit's place.
        unit: String,
    },
    /// A fraction that leaves part of a byte.
    #[error("{text:?} is not a whole number of bytes")]
    Fraction {
        /// The text, shortened.
        text: String,
    },
    /// More than 2⁶⁴ − 1 bytes.
    #[error("{text:?} is larger than 2^64 - 1 bytes")]
    TooLarge {
        /// The text, shortened.
        text: String,
    },
}

fn unit_bytes(suffix: &str) -> Option<u128> {
    if suffix.eq_ignore_ascii_case("b") {
        return Some(1);
    }
    UNITS
        .iter()
        .find(|(name, _)| suffix.eq_ignore_ascii_case(name) || suffix.eq_ignore_ascii_case(&name[..1]))
        .map(|(_, shift)| 1 << shift)
}

/// `number` (digits with at most one point) times `unit`, exactly.
fn scale(number: &str, unit: u128, text: &str) -> Result<u64, SizeError> {
    let not_a_number = || SizeError::Number { text: shortened(text) };
    let too_large = || SizeError::TooLarge { text: shortened(text) };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let fraction = fraction.trim_end_matches('0');
    if whole.is_empty() || fraction.contains('.') || number.ends_with('.') {
        return Err(not_a_number());
    }
    // The longest fraction that can be whole in bytes is 2^-60, sixty decimals; nobody writes more than eighteen.
    if fraction.len() > 18 {
        return Err(SizeError::Fraction { text: shortened(text) });
    }
    let whole: u64 = whole.parse().map_err(|_| too_large())?;
    let tenths: u128 = if fraction.is_empty() { 0 } else { fraction.parse().map_err(|_| not_a_number())? };
    let divisor = 10u128.pow(u32::try_from(fraction.len()).map_err(|_| not_a_number())?);
    let part = tenths * unit;
    if !part.is_multiple_of(divisor) {
        return Err(SizeError::Fraction { text: shortened(text) });
    }
    u64::try_from(u128::from(whole) * unit + part / divisor).map_err(|_| too_large())
}

/// At most 40 characters, so that an error never carries a whole file.
fn shortened(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_binary_and_exact() {
        for (text, bytes) in [
            ("256MiB", 256 << 20),
            ("64K", 64 << 10),
            ("64k", 64 << 10),
            ("1.5G", 3 << 29),
            ("1.50 GiB", 3 << 29),
            ("4096", 4096),
            ("10B", 10),
            ("0", 0),
            ("2T", 2 << 40),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_size_is_refused_by_name() {
        for text in ["", "MiB", "-1", "1..5G", "1.5.2G", ".5G", "1.", "1.x", "one"] {
            assert!(matches!(text.parse::<Bytes>(), Err(SizeError::Number { .. } | SizeError::Unit { .. })), "{text}");
        }
        assert!(matches!("5MB".parse::<Bytes>(), Err(SizeError::Unit { .. })));
        assert!(matches!("0.3K".parse::<Bytes>(), Err(SizeError::Fraction { .. })));
        assert!(matches!("16E".parse::<Bytes>(), Err(SizeError::TooLarge { .. })));
        assert!(matches!("99999999999999999999".parse::<Bytes>(), Err(SizeError::TooLarge { .. })));
    }

    #[test]
    fn a_bare_number_takes_the_unit_of_its_context() {
        assert_eq!(Bytes::parse_with_default_unit("512", Bytes::mib(1)), Ok(Bytes::mib(512)));
        assert_eq!(Bytes::parse_with_default_unit("2G", Bytes::mib(1)), Ok(Bytes::gib(2)));
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back_as_the_same_size(n in any::<u64>(), shift in 0u32..64) {
            let size = Bytes(n >> shift << (shift / 2));
            prop_assert_eq!(size.to_string().parse(), Ok(size));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,60}", digits in "[0-9.]{0,40}[a-zA-Z ]{0,4}") {
            let _ = text.parse::<Bytes>();
            let _ = digits.parse::<Bytes>();
        }
    }
}
