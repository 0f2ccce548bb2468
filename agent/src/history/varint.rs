//! Numbers in as few bytes as they need, seven bits each, the low ones first; and differences as such numbers. Pure.

/// Bytes that a number takes at most.
pub const MOST: usize = 10;

/// Numbers below this take eight bytes at most.
const SHORT: u64 = 1 << 56;

/// Adds a number. Without a turn a byte: how many bytes a number takes is no better known than the number.
#[inline]
pub fn put(to: &mut Vec<u8>, number: u64) {
    if number >= SHORT {
        return put_long(to, number);
    }
    let bytes = (u64::BITS - (number | 1).leading_zeros()).div_ceil(7);
    // All but the last say that there is more.
    let more = 0x8080_8080_8080_8080 & ((1 << (8 * (bytes - 1))) - 1);
    let end = to.len() + bytes as usize;
    to.extend_from_slice(&(apart(number) | more).to_le_bytes());
    to.truncate(end);
}

/// Eight times seven bits, a byte each: halves, quarters and eighths are moved to their places.
const fn apart(number: u64) -> u64 {
    let halves = number & 0x0FFF_FFFF | (number & 0x00FF_FFFF_F000_0000) << 4;
    let quarters = halves & 0x0000_3FFF_0000_3FFF | (halves & 0x0FFF_C000_0FFF_C000) << 2;
    quarters & 0x007F_007F_007F_007F | (quarters & 0x3F80_3F80_3F80_3F80) << 1
}

#[cold]
#[expect(clippy::cast_possible_truncation, reason = "seven bits of it are what is wanted")]
fn put_long(to: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        to.push(number as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

/// Takes one off the front; `None` if there is none that is whole. Bits above the 64th count for nothing.
pub fn take(from: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for place in 0..MOST {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        number |= u64::from(byte & 0x7F) << (7 * place);
        if *byte < 0x80 {
            return Some(number);
        }
    }
    None
}

/// A difference, which may be negative (two's complement), as a number that is small where it is.
pub const fn folded(difference: u64) -> u64 {
    difference << 1 ^ 0u64.wrapping_sub(difference >> 63)
}

/// The difference that `folded` made it of.
pub const fn unfolded(number: u64) -> u64 {
    number >> 1 ^ 0u64.wrapping_sub(number & 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    proptest! {
        #[test]
        fn both_ways_write_the_same(number in any::<u64>().prop_flat_map(|n| (0u32..64).prop_map(move |by| n >> by))) {
            let (mut short, mut long) = (Vec::new(), Vec::new());
            put(&mut short, number);
            put_long(&mut long, number);
            prop_assert_eq!(short, long);
        }

        #[test]
        fn numbers_are_taken_as_they_were_put(numbers in vec(any::<u64>().prop_flat_map(|n| (0u32..64).prop_map(move |by| n >> by)), 0..20)) {
            let mut bytes = Vec::new();
            numbers.iter().for_each(|number| put(&mut bytes, *number));
            prop_assert!(bytes.len() <= numbers.len() * MOST);
            let mut rest = bytes.as_slice();
            for number in numbers {
                prop_assert_eq!(take(&mut rest), Some(number));
            }
            prop_assert_eq!(take(&mut rest), None);
        }

        #[test]
        fn a_small_difference_is_a_small_number(by in -1_000i64..1_000, wide in any::<u64>()) {
            prop_assert!(folded(by.cast_unsigned()) <= 2 * by.unsigned_abs());
            prop_assert_eq!(unfolded(folded(by.cast_unsigned())), by.cast_unsigned());
            prop_assert_eq!(unfolded(folded(wide)), wide);
        }

        #[test]
        fn no_bytes_panic(bytes in vec(any::<u8>(), 0..20)) {
            let _ = take(&mut bytes.as_slice());
        }
    }
}
