//! A reader of BTF, the kernel's description of its own types, for one question: where is a field?
//!
//! Pure: bytes in, offsets out. Owns the format (Documentation/bpf/btf.rst, include/uapi/linux/btf.h); refuses every
//! guess: a field that is not there by name is an error that names it. aya parses BTF too but keeps members private.

use std::collections::HashMap;

/// Why a field's place cannot be told.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
pub enum BtfError {
    /// The bytes are not BTF of this machine's byte order.
    #[error("not BTF: {0}")]
    Format(&'static str),
    /// No struct of that name.
    #[error("this kernel has no struct {0}")]
    NoStruct(String),
    /// The struct has no such field, also not inside its anonymous members.
    #[error("this kernel's struct {owner} has no field {field}")]
    NoField {
        /// The struct looked into.
        owner: String,
        /// The field's name.
        field: String,
    },
    /// The field does not start at a byte.
    #[error("field {0} is a bit field")]
    BitField(String),
}

const MAGIC: u16 = 0xeb9f;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
/// Types that only wrap another: typedef, volatile, const, restrict, type tag.
const WRAPPERS: [u32; 5] = [8, 9, 10, 11, 18];

/// Parsed BTF: where each type starts.
pub struct Btf<'a> {
    types: Vec<usize>,
    data: &'a [u8],
    strings: &'a [u8],
    structs: HashMap<&'a [u8], u32>,
}

fn u32_at(data: &[u8], at: usize) -> Result<u32, BtfError> {
    data.get(at..at + 4)
        .and_then(|b| b.try_into().ok())
        .map(u32::from_le_bytes)
        .ok_or(BtfError::Format("it ends too early"))
}

/// Bytes that follow the twelve common ones of a type.
fn extra(kind: u32, vlen: usize) -> Result<usize, BtfError> {
    Ok(match kind {
        1 | 14 | 17 => 4,
        2 | 7..=12 | 16 | 18 => 0,
        3 => 12,
        KIND_STRUCT | KIND_UNION | 15 | 19 => 12 * vlen,
        6 | 13 => 8 * vlen,
        _ => return Err(BtfError::Format("a type of a kind this version does not know")),
    })
}

impl<'a> Btf<'a> {
    /// Reads the whole of `/sys/kernel/btf/vmlinux`.
    ///
    /// # Errors
    /// When the bytes are cut short or of another format.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BtfError> {
        if bytes.get(..2) != Some(&MAGIC.to_le_bytes()) {
            return Err(BtfError::Format("the magic number is wrong"));
        }
        let field = |at| u32_at(bytes, at).map(|v| v as usize);
        let (header, type_off, type_len, str_off, str_len) = (field(4)?, field(8)?, field(12)?, field(16)?, field(20)?);
        let section = |off: usize, len: usize| {
            let start = header.checked_add(off)?;
            bytes.get(start..start.checked_add(len)?)
        };
        let data = section(type_off, type_len).ok_or(BtfError::Format("the type section lies outside"))?;
        let strings = section(str_off, str_len).ok_or(BtfError::Format("the string section lies outside"))?;
        let mut btf = Self { types: vec![usize::MAX], data, strings, structs: HashMap::new() };
        let mut at = 0;
        while at < data.len() {
            let info = u32_at(data, at + 4)?;
            let kind = (info >> 24) & 0x1f;
            if kind == KIND_STRUCT || kind == KIND_UNION {
                let id = u32::try_from(btf.types.len()).map_err(|_| BtfError::Format("too many types"))?;
                let name = btf.string(u32_at(data, at)?);
                btf.structs.entry(name).or_insert(id);
            }
            btf.types.push(at);
            at += 12 + extra(kind, (info & 0xffff) as usize)?;
        }
        Ok(btf)
    }

    fn string(&self, offset: u32) -> &'a [u8] {
        let tail = self.strings.get(offset as usize..).unwrap_or_default();
        tail.split(|b| *b == 0).next().unwrap_or_default()
    }

    fn at(&self, id: u32) -> Result<usize, BtfError> {
        match self.types.get(id as usize) {
            Some(at) if *at != usize::MAX => Ok(*at),
            _ => Err(BtfError::Format("a type refers to one that is not there")),
        }
    }

    /// The struct or union behind typedefs and qualifiers, if it is one.
    fn aggregate(&self, mut id: u32) -> Result<Option<u32>, BtfError> {
        for _ in 0..32 {
            if id == 0 {
                return Ok(None);
            }
            let at = self.at(id)?;
            let kind = (u32_at(self.data, at + 4)? >> 24) & 0x1f;
            if kind == KIND_STRUCT || kind == KIND_UNION {
                return Ok(Some(id));
            }
            if !WRAPPERS.contains(&kind) {
                return Ok(None);
            }
            id = u32_at(self.data, at + 8)?;
        }
        Err(BtfError::Format("a type refers to itself"))
    }

    /// Byte offset of `path` (`"se.sum_exec_runtime"`) in the struct called `owner`, anonymous members followed.
    ///
    /// # Errors
    /// Names the struct or field that is missing.
    pub fn offset(&self, owner: &str, path: &str) -> Result<u32, BtfError> {
        let mut id = *self.structs.get(owner.as_bytes()).ok_or_else(|| BtfError::NoStruct(owner.to_owned()))?;
        let mut bits = 0;
        let mut parts = path.split('.').peekable();
        while let Some(part) = parts.next() {
            let missing = || BtfError::NoField { owner: owner.to_owned(), field: path.to_owned() };
            let (offset, member) = self.member(id, part.as_bytes(), 8)?.ok_or_else(missing)?;
            bits += offset;
            if parts.peek().is_some() {
                id = self.aggregate(member)?.ok_or_else(missing)?;
            }
        }
        if bits % 8 == 0 { Ok(bits / 8) } else { Err(BtfError::BitField(path.to_owned())) }
    }

    /// Bit offset and type of a member, `depth` anonymous levels down at most.
    fn member(&self, id: u32, name: &[u8], depth: u8) -> Result<Option<(u32, u32)>, BtfError> {
        let at = self.at(id)?;
        let info = u32_at(self.data, at + 4)?;
        let bitfields = info >> 31 == 1;
        for index in 0..(info & 0xffff) as usize {
            let entry = at + 12 + 12 * index;
            let (member_name, member) = (self.string(u32_at(self.data, entry)?), u32_at(self.data, entry + 4)?);
            let raw = u32_at(self.data, entry + 8)?;
            let bits = if bitfields { raw & 0x00ff_ffff } else { raw };
            if member_name == name {
                return Ok(Some((bits, member)));
            }
            if member_name.is_empty()
                && depth > 0
                && let Some(inner) = self.aggregate(member)?
                && let Some((more, found)) = self.member(inner, name, depth - 1)?
            {
                return Ok(Some((bits + more, found)));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(types: &[u8], strings: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(MAGIC.to_le_bytes());
        bytes.extend([1, 0]);
        let length = |section: &[u8]| u32::try_from(section.len()).unwrap();
        for word in [24, 0, length(types), length(types), length(strings)] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(types);
        bytes.extend(strings);
        bytes
    }

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|w| w.to_le_bytes()).collect()
    }

    /// struct task { int pid; struct { long lost; volatile inner se; }; }, inner { int a; int sum; }
    fn sample() -> Vec<u8> {
        let strings = b"\0int\0task\0pid\0lost\0inner\0se\0a\0sum\0";
        let mut types = words(&[1, 1 << 24, 4, 32]); // 1: int
        types.extend(words(&[19, (4 << 24) | 2, 8, 28, 1, 0, 30, 1, 32])); // 2: struct inner
        types.extend(words(&[0, 9 << 24, 2])); // 3: volatile inner
        types.extend(words(&[0, (4 << 24) | 2, 16, 14, 1, 0, 25, 3, 64])); // 4: anonymous
        types.extend(words(&[5, (4 << 24) | 2, 24, 10, 1, 0, 0, 4, 64])); // 5: struct task
        header(&types, strings)
    }

    #[test]
    fn a_field_is_found_through_anonymous_members_and_qualifiers() {
        let bytes = sample();
        let btf = Btf::parse(&bytes).unwrap();
        assert_eq!(btf.offset("task", "pid"), Ok(0));
        assert_eq!(btf.offset("task", "lost"), Ok(8));
        assert_eq!(btf.offset("task", "se.sum"), Ok(8 + 8 + 4));
    }

    #[test]
    fn a_missing_field_is_named_and_never_guessed() {
        let bytes = sample();
        let btf = Btf::parse(&bytes).unwrap();
        let error = btf.offset("task", "se.nothing").unwrap_err().to_string();
        assert!(error.contains("task") && error.contains("se.nothing"), "{error}");
        assert_eq!(btf.offset("nobody", "x"), Err(BtfError::NoStruct("nobody".into())));
    }

    #[test]
    fn the_running_kernel_tells_where_the_run_time_is() {
        let Ok(bytes) = std::fs::read("/sys/kernel/btf/vmlinux") else { return };
        let btf = Btf::parse(&bytes).unwrap();
        assert!(btf.offset("task_struct", "se.sum_exec_runtime").unwrap() > 0);
    }

    proptest! {
        #[test]
        fn damaged_btf_is_an_error_and_never_a_panic(at in 0usize..180, byte: u8, cut in 0usize..180) {
            let mut bytes = sample();
            let len = bytes.len();
            bytes[at % len] = byte;
            bytes.truncate(cut.min(len));
            if let Ok(btf) = Btf::parse(&bytes) {
                let _ = btf.offset("task", "se.sum");
            }
        }
    }
}
