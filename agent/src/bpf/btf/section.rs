//! BTF's outer form: the header with its two sections, and the words that every type begins with.

use super::BtfError;

const MAGIC: u16 = 0xeb9f;
const VERSION: u8 = 1;
/// Bytes of the header up to where newer versions may add to it.
const HEADER: usize = 24;
/// Bits of a type's second word that have no meaning yet.
const RESERVED: u32 = 0x60ff_0000;
/// Numbers of kinds of types (`BTF_KIND_*`).
pub(super) mod kind {
    pub(in crate::bpf::btf) const INT: u32 = 1;
    pub(in crate::bpf::btf) const PTR: u32 = 2;
    pub(in crate::bpf::btf) const ARRAY: u32 = 3;
    pub(in crate::bpf::btf) const STRUCT: u32 = 4;
    pub(in crate::bpf::btf) const UNION: u32 = 5;
    pub(in crate::bpf::btf) const ENUM: u32 = 6;
    pub(in crate::bpf::btf) const FUNC: u32 = 12;
    pub(in crate::bpf::btf) const FLOAT: u32 = 16;
    pub(in crate::bpf::btf) const ENUM64: u32 = 19;
    /// Those that only wrap another: typedef, volatile, const, restrict, type tag.
    pub(in crate::bpf::btf) const WRAPPERS: [u32; 5] = [8, 9, 10, 11, 18];
}

/// The words common to all types.
pub(super) struct Type {
    /// Where in the section it starts.
    pub(super) at: usize,
    /// Where in the string section its name starts.
    pub(super) name: u32,
    /// One of [`kind`].
    pub(super) kind: u32,
    /// In a struct: members tell bit fields.
    pub(super) flag: bool,
    /// Members that it has.
    pub(super) len: usize,
    /// Its size in bytes, or the type it refers to.
    pub(super) word: u32,
}

impl Type {
    pub(super) fn read(data: &[u8], at: usize) -> Result<Self, BtfError> {
        let (name, info, word) = (u32_at(data, at)?, u32_at(data, at + 4)?, u32_at(data, at + 8)?);
        if info & RESERVED != 0 {
            return Err(BtfError::Format("a type uses bits this version does not know"));
        }
        let (kind, len) = ((info >> 24) & 0x1f, (info & 0xffff) as usize);
        Ok(Self { at, name, kind, flag: info >> 31 == 1, len, word })
    }

    pub(super) fn is_aggregate(&self) -> bool {
        matches!(self.kind, kind::STRUCT | kind::UNION)
    }

    /// Where the next type starts.
    pub(super) fn end(&self) -> Result<usize, BtfError> {
        let extra = match self.kind {
            kind::INT | 14 | 17 => 4,
            kind::PTR | 7..=12 | kind::FLOAT | 18 => 0,
            kind::ARRAY => 12,
            kind::STRUCT | kind::UNION | 15 | kind::ENUM64 => 12 * self.len,
            kind::ENUM | 13 => 8 * self.len,
            _ => return Err(BtfError::Format("a type of a kind this version does not know")),
        };
        Ok(self.at + 12 + extra)
    }
}

pub(super) fn u32_at(data: &[u8], at: usize) -> Result<u32, BtfError> {
    data.get(at..at + 4)
        .and_then(|b| b.try_into().ok())
        .map(u32::from_le_bytes)
        .ok_or(BtfError::Format("it ends too early"))
}

/// The type section and the string section.
pub(super) fn sections(bytes: &[u8]) -> Result<(&[u8], &[u8]), BtfError> {
    if bytes.get(..2) != Some(&MAGIC.to_le_bytes()) {
        return Err(BtfError::Format("the magic number is wrong"));
    }
    if bytes.get(2) != Some(&VERSION) {
        return Err(BtfError::Format("its version is not known"));
    }
    let field = |at| u32_at(bytes, at).map(|v| v as usize);
    let (header, type_off, type_len, str_off, str_len) = (field(4)?, field(8)?, field(12)?, field(16)?, field(20)?);
    let body = bytes.get(header..).filter(|_| header >= HEADER).ok_or(BtfError::Format("the header lies outside"))?;
    let section = |off: usize, len: usize| body.get(off..off.checked_add(len)?);
    let types = section(type_off, type_len).ok_or(BtfError::Format("the type section lies outside"))?;
    let strings = section(str_off, str_len).ok_or(BtfError::Format("the string section lies outside"))?;
    if type_off + type_len > str_off && str_off + str_len > type_off {
        return Err(BtfError::Format("the sections overlap"));
    }
    // A longer header may tell of sections that are of no interest here.
    if header == HEADER && type_len + str_len != body.len() {
        return Err(BtfError::Format("there is more than the two sections"));
    }
    if strings.first() != Some(&0) || strings.last() != Some(&0) {
        return Err(BtfError::Format("the string section does not begin and end with an empty name"));
    }
    Ok((types, strings))
}
