//! SHA-256 in the three forms a line carries: `prev` (whole), `sum` (16 hex) and `id` (32 hex).

use sha2::{Digest, Sha256};

use super::Kind;

/// `prev` of the first line of a ledger.
pub(super) const NO_PREV: &str = "0000000000000000000000000000000000000000000000000000000000000000";

const SUM_HEX: usize = 16;
const ID_HEX: usize = 32;

/// Lower-case hex of `bytes`.
pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble & 0xf)]);
    bytes.iter().flat_map(|b| [digit(b >> 4), digit(*b)]).collect()
}

/// `prev` of the line after this one: of its bytes without the newline.
pub(super) fn chain(line: &[u8]) -> String {
    hex(&Sha256::digest(line))
}

/// `sum` of a line: of the bytes before `,"sum"`.
pub(crate) fn sum(body: &[u8]) -> String {
    let mut text = chain(body);
    text.truncate(SUM_HEX);
    text
}

/// `id` of a fact: over boot, subject, kind and ordinal, joined by newlines.
pub(super) fn fact_id(boot_id: &str, subject: &str, kind: Kind, ordinal: u64) -> String {
    let mut text = chain(format!("{boot_id}\n{subject}\n{kind}\n{ordinal}").as_bytes());
    text.truncate(ID_HEX);
    text
}

/// Eight bytes that stand for a subject that is over; two lives share them once in about 10^19 pairs.
pub(super) fn short(subject: &str) -> u64 {
    let digest = Sha256::digest(subject.as_bytes());
    digest.iter().take(8).fold(0, |acc, b| (acc << 8) | u64::from(*b))
}
