//! A reader of BTF, the kernel's description of its own types, for one question: where is a field?
//!
//! Pure: bytes in, offsets out. Owns the format (Documentation/bpf/btf.rst, include/uapi/linux/btf.h); refuses every
//! guess: a field that is not there by name is an error that names it, and a struct on the way whose members overlap,
//! lie outside it or bear one name twice is not believed. Work is bounded whatever the bytes are. aya parses BTF too but
//! keeps members private.

use std::collections::HashMap;

pub use error::BtfError;
use section::{Type, kind, sections, u32_at};

mod error;
mod number;
mod section;

/// A field's place in its struct.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Bytes from the struct's start.
    pub offset: u32,
    /// Bytes it takes.
    pub size: u32,
}

/// The kernel's `KSYM_NAME_LEN`, which bounds the names it takes.
const LONGEST_NAME: usize = 512;
/// How many types stand between a field and its size, or its members; anonymous structs in one another.
const DEPTH: u32 = 32;
/// Members that one question may look at. `task_struct` has 260, with those of its anonymous members.
const LOOKS: u32 = 100_000;
/// A pointer's bytes: kernels that this agent runs on have 64 bits.
const POINTER: u64 = 8;

/// Parsed BTF: where each type starts.
pub struct Btf<'a> {
    types: Vec<usize>,
    data: &'a [u8],
    strings: &'a [u8],
    structs: HashMap<&'a [u8], Vec<u32>>,
}

/// A member, from the start of the struct that was looked into.
struct Member {
    id: u32,
    bits: u64,
    bit_field: bool,
    /// Bits that a bit field takes.
    width: u64,
}

impl<'a> Btf<'a> {
    /// Reads the whole of `/sys/kernel/btf/vmlinux`.
    ///
    /// # Errors
    /// When the bytes are cut short or of another format.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BtfError> {
        let (data, strings) = sections(bytes)?;
        // Type 0 is void and not in the section.
        let mut btf = Self { types: vec![usize::MAX], data, strings, structs: HashMap::new() };
        let mut at = 0;
        while at < data.len() {
            let ty = Type::read(data, at)?;
            if ty.name as usize >= strings.len() {
                return Err(BtfError::Format("a name lies outside"));
            }
            if ty.is_aggregate() && ty.name != 0 {
                let id = u32::try_from(btf.types.len()).map_err(|_| BtfError::Format("too many types"))?;
                btf.structs.entry(btf.name(ty.name)?).or_default().push(id);
            }
            btf.types.push(at);
            at = ty.end()?;
        }
        if at == data.len() { Ok(btf) } else { Err(BtfError::Format("the last type ends too early")) }
    }

    fn name(&self, offset: u32) -> Result<&'a [u8], BtfError> {
        let tail = self.strings.get(offset as usize..).unwrap_or_default();
        let head = tail.get(..LONGEST_NAME).unwrap_or(tail);
        let end = head.iter().position(|b| *b == 0).ok_or(BtfError::Format("a name is too long"))?;
        Ok(&tail[..end])
    }

    /// Whether the name at that offset is this one.
    fn is_named(&self, offset: u32, name: &[u8]) -> bool {
        let tail = self.strings.get(offset as usize..).unwrap_or_default();
        tail.strip_prefix(name).is_some_and(|rest| rest.first() == Some(&0))
    }

    fn get(&self, id: u32) -> Result<Type, BtfError> {
        match self.types.get(id as usize) {
            Some(at) if *at != usize::MAX => Type::read(self.data, *at),
            _ => Err(BtfError::Format("a type refers to one that is not there")),
        }
    }

    /// The struct or union behind typedefs and qualifiers, if it is one.
    fn aggregate(&self, mut id: u32) -> Result<Option<u32>, BtfError> {
        for _ in 0..DEPTH {
            let ty = self.get(id)?;
            if ty.is_aggregate() {
                return Ok(Some(id));
            }
            if !kind::WRAPPERS.contains(&ty.kind) {
                return Ok(None);
            }
            id = ty.word;
        }
        Err(BtfError::Format("a type refers to itself"))
    }

    /// Bytes that a type takes; at most what fits 32 bits.
    fn size(&self, mut id: u32) -> Result<u64, BtfError> {
        let mut count = 1_u64;
        for _ in 0..DEPTH {
            let ty = self.get(id)?;
            let one = match ty.kind {
                kind::INT if u32_at(self.data, ty.at + 12)? & 0x00ff_00ff != ty.word.saturating_mul(8) => {
                    return Err(BtfError::Format("an integer does not fill its bytes"));
                }
                kind::INT | kind::STRUCT | kind::UNION | kind::ENUM | kind::FLOAT | kind::ENUM64 => u64::from(ty.word),
                kind::PTR => POINTER,
                kind::ARRAY => {
                    count = count.saturating_mul(u32_at(self.data, ty.at + 20)?.into());
                    id = u32_at(self.data, ty.at + 12)?;
                    continue;
                }
                wrapper if kind::WRAPPERS.contains(&wrapper) => {
                    id = ty.word;
                    continue;
                }
                _ => return Err(BtfError::Format("a field's type has no size")),
            };
            let size = one.saturating_mul(count);
            return if size <= u32::MAX.into() { Ok(size) } else { Err(BtfError::Format("a type is too large")) };
        }
        Err(BtfError::Format("a type refers to itself"))
    }

    /// Byte offset of `path` (`"se.sum_exec_runtime"`) in the struct called `owner`, anonymous members followed.
    ///
    /// # Errors
    /// Names the struct or field that is missing, or says what about them cannot be believed.
    pub fn offset(&self, owner: &str, path: &str) -> Result<u32, BtfError> {
        self.place(owner, path).map(|place| place.offset)
    }

    /// The same for a field that is read as `size` bytes: it has that size, and an integer lies on its boundary.
    ///
    /// # Errors
    /// As [`Self::offset`], and when the field has another size.
    pub fn offset_sized(&self, owner: &str, path: &str, size: u32) -> Result<u32, BtfError> {
        let place = self.place(owner, path)?;
        let boundary = if matches!(size, 2 | 4 | 8) { size } else { 1 };
        if place.size == size && place.offset % boundary == 0 {
            return Ok(place.offset);
        }
        Err(BtfError::Size { field: path.to_owned(), found: place.size, offset: place.offset, wanted: size })
    }

    /// Place and size of `path` in the struct called `owner`.
    ///
    /// # Errors
    /// As [`Self::offset`].
    pub fn place(&self, owner: &str, path: &str) -> Result<Place, BtfError> {
        let mut looks = LOOKS;
        let mut found = None;
        // One compilation unit can have a struct of its own under a known name.
        for id in self.structs.get(owner.as_bytes()).into_iter().flatten() {
            let here = self.walk(*id, owner, path, &mut looks)?;
            if found.is_some_and(|before| before != here) {
                return Err(BtfError::Ambiguous { owner: owner.to_owned(), field: path.to_owned() });
            }
            found = Some(here);
        }
        found.ok_or_else(|| BtfError::NoStruct(owner.to_owned()))
    }

    fn walk(&self, mut id: u32, owner: &str, path: &str, looks: &mut u32) -> Result<Place, BtfError> {
        let missing = || BtfError::NoField { owner: owner.to_owned(), field: path.to_owned() };
        let mut bits = 0;
        let mut parts = path.split('.').peekable();
        while let Some(part) = parts.next().filter(|part| !part.is_empty()) {
            let found = self.member(id, part.as_bytes(), DEPTH, looks)?.ok_or_else(missing)?;
            if found.bit_field {
                return Err(BtfError::BitField(path.to_owned()));
            }
            bits += found.bits;
            if parts.peek().is_some() {
                id = self.aggregate(found.id)?.ok_or_else(missing)?;
                continue;
            }
            let (offset, size) = (u32::try_from(bits / 8), u32::try_from(self.size(found.id)?));
            let (Ok(offset), Ok(size)) = (offset, size) else { return Err(BtfError::Format("a type is too large")) };
            return Ok(Place { offset, size });
        }
        Err(missing())
    }

    /// A member of that name, `depth` anonymous levels down at most; the whole struct must be sound for it.
    fn member(&self, id: u32, name: &[u8], depth: u32, looks: &mut u32) -> Result<Option<Member>, BtfError> {
        let owner = self.get(id)?;
        let (mut end, mut found) = (0, None);
        for index in 0..owner.len {
            *looks = looks.checked_sub(1).ok_or(BtfError::Format("a struct has too many members"))?;
            let at = owner.at + 12 + 12 * index;
            let member = self.entry(&owner, at)?;
            let bits = if member.bit_field { member.width } else { 8 * self.size(member.id)? };
            let start = if owner.kind == kind::UNION { 0 } else { end };
            let after = member.bits + bits;
            if member.bits < start
                || after > 8 * u64::from(owner.word)
                || (owner.kind == kind::UNION && member.bits > 0)
            {
                return Err(BtfError::Format("members of a struct overlap or lie outside"));
            }
            end = after;
            let label = u32_at(self.data, at)?;
            let hit = if self.is_named(label, name) {
                Some(member)
            } else if self.is_named(label, b"")
                && let Some(inner) = self.aggregate(member.id)?
            {
                let depth = depth.checked_sub(1).ok_or(BtfError::Format("a type refers to itself"))?;
                let hit = self.member(inner, name, depth, looks)?;
                hit.map(|hit| Member { bits: member.bits + hit.bits, ..hit })
            } else {
                None
            };
            if hit.is_some() && found.is_some() {
                return Err(BtfError::Format("a struct has one name twice"));
            }
            found = found.or(hit);
        }
        Ok(found)
    }

    /// The member whose words start there.
    fn entry(&self, owner: &Type, at: usize) -> Result<Member, BtfError> {
        let (id, raw) = (u32_at(self.data, at + 4)?, u32_at(self.data, at + 8)?);
        let (width, bits) = if owner.flag { (raw >> 24, raw & 0x00ff_ffff) } else { (0, raw) };
        let bit_field = width > 0 || bits % 8 != 0;
        Ok(Member { id, bits: bits.into(), bit_field, width: width.into() })
    }
}

#[cfg(test)]
mod tests;
