//! A reader of a tracepoint's `format` file, for one question: where in the record is a field?
//!
//! Pure: the text of `events/<system>/<event>/format` in, offsets out. Records change between kernels, also inside
//! a stable series, so the running kernel is asked. Refuses every guess: a text that is not whole, a name twice, a field
//! that is not where a C compiler would have put it after the one before, another size than the reader needs.

use std::fmt;

/// Bytes of a text that are read; the longest of 2,323 on Linux 6.18 has 5,523.
pub const MAX_BYTES: usize = 64 * 1024;
/// Fields of a record.
pub const MAX_FIELDS: usize = 128;
/// The strictest alignment of a field.
const WORD: u32 = 8;

/// Why a record's layout, or a field's place in it, cannot be told.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
pub enum FormatError {
    /// More than [`MAX_BYTES`].
    #[error("a format of {0} bytes is too long")]
    TooLong(usize),
    /// A line that is not what it must be.
    #[error("line {line}: {what}")]
    Line {
        /// Its number; the first is 1.
        line: usize,
        /// What is wrong with it.
        what: Wrong,
    },
    /// The record has no such field.
    #[error("the record of {event} has no field {field}")]
    NoField {
        /// The tracepoint.
        event: String,
        /// The field.
        field: String,
    },
    /// The field cannot be read as an integer of that size.
    #[error("field {field} of {event} is {found}, not {wanted} bytes on their boundary")]
    Shape {
        /// The tracepoint.
        event: String,
        /// The field.
        field: String,
        /// Its size and place.
        found: String,
        /// The size it was to have.
        wanted: u32,
    },
}

/// What is wrong with a line.
#[derive(Debug, PartialEq, Eq, Clone)]
pub enum Wrong {
    /// The text ends, or goes on with something else, where this should stand.
    Expected(&'static str),
    /// A field of that name was there before.
    Twice(String),
    /// The field begins before the one above ends, or leaves room that no alignment explains.
    Place(String),
    /// More than [`MAX_FIELDS`].
    TooMany,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expected(what) => write!(f, "{what} expected"),
            Self::Twice(name) => write!(f, "a second field {name}"),
            Self::Place(name) => write!(f, "field {name} does not follow the one above it"),
            Self::TooMany => write!(f, "more than {MAX_FIELDS} fields"),
        }
    }
}

/// One field of a record.
#[derive(Debug, PartialEq, Eq, Clone)]
pub struct RecordField {
    /// Its name.
    pub name: String,
    /// Its type as the kernel words it, an array's length included.
    pub kind: String,
    /// Bytes from the record's start.
    pub offset: u32,
    /// Bytes it takes.
    pub size: u32,
    /// Whether its type is signed.
    pub signed: bool,
}

/// A tracepoint's record.
#[derive(Debug, PartialEq, Eq, Clone)]
pub struct RecordLayout {
    /// The tracepoint's name.
    pub name: String,
    /// Its number, as `perf_event_open` takes it.
    pub id: u32,
    /// Its fields, in the order of their offsets.
    pub fields: Vec<RecordField>,
}

impl RecordLayout {
    /// Reads a `format` file.
    ///
    /// # Errors
    /// Names the line and what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        if text.len() > MAX_BYTES {
            return Err(FormatError::TooLong(text.len()));
        }
        let mut lines = text.lines().zip(1..);
        let mut next = |what| lines.next().ok_or((text.lines().count(), Wrong::Expected(what))).map_err(wrong);
        let (name, line) = next("`name:`")?;
        let name = name.strip_prefix("name: ").filter(|name| is_name(name));
        let name = name.ok_or((line, Wrong::Expected("`name:` and a name"))).map_err(wrong)?.to_owned();
        let (id, line) = next("`ID:`")?;
        let id = id.strip_prefix("ID: ").and_then(number);
        let id = id.ok_or((line, Wrong::Expected("`ID:` and a number"))).map_err(wrong)?;
        let (format, line) = next("`format:`")?;
        if format != "format:" {
            return Err(wrong((line, Wrong::Expected("`format:`"))));
        }
        let mut fields = Vec::new();
        loop {
            // The kernel always ends with it, so a text without it was cut.
            let (text, line) = next("`print fmt:`")?;
            if text.starts_with("print fmt: ") {
                return Ok(Self { name, id, fields });
            }
            if !text.is_empty() {
                let field = field(text).map_err(|what| wrong((line, Wrong::Expected(what))))?;
                admit(&fields, &field).map_err(|what| wrong((line, what)))?;
                fields.push(field);
            }
        }
    }

    /// The field of that name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&RecordField> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// Where the integer of that name and of `size` bytes lies.
    ///
    /// # Errors
    /// When there is none, or it has another size, or does not lie on its boundary.
    pub fn offset(&self, name: &str, size: u32) -> Result<u32, FormatError> {
        let none = || FormatError::NoField { event: self.name.clone(), field: name.to_owned() };
        let field = self.field(name).ok_or_else(none)?;
        if field.size == size && field.offset.checked_rem(size) == Some(0) && !field.kind.contains('[') {
            return Ok(field.offset);
        }
        Err(FormatError::Shape {
            event: self.name.clone(),
            field: name.to_owned(),
            found: format!("`{}`, {} bytes at {}", field.kind, field.size, field.offset),
            wanted: size,
        })
    }
}

fn wrong((line, what): (usize, Wrong)) -> FormatError {
    FormatError::Line { line, what }
}

/// Whether the field may follow these.
fn admit(fields: &[RecordField], field: &RecordField) -> Result<(), Wrong> {
    if fields.len() == MAX_FIELDS {
        return Err(Wrong::TooMany);
    }
    if fields.iter().any(|known| known.name == field.name) {
        return Err(Wrong::Twice(field.name.clone()));
    }
    let end = fields.last().map_or(0, |above| above.offset + above.size);
    let places = [1, 2, 4, WORD].map(|alignment| end.next_multiple_of(alignment));
    if places.contains(&field.offset) { Ok(()) } else { Err(Wrong::Place(field.name.clone())) }
}

/// `field:unsigned int exit_reason; offset:8; size:4; signed:0;`, a tab before each part; or what is missing in it.
fn field(line: &str) -> Result<RecordField, &'static str> {
    let rest = line.strip_prefix("\tfield:").ok_or("`field:` or `print fmt:`")?;
    let mut parts = rest.split(";\t");
    let mut part = |what| parts.next().ok_or(what);
    let (kind, name) = declared(part("a declaration and `;`")?).ok_or("a type and a name")?;
    let offset = value(part("`offset:`")?, "offset:").ok_or("`offset:` and a number")?;
    let size = value(part("`size:`")?, "size:").ok_or("`size:` and a number")?;
    let signed = match part("`signed:`")? {
        "signed:0;" => false,
        "signed:1;" => true,
        _other => return Err("`signed:`, 0 or 1, and `;`"),
    };
    if parts.next().is_some() {
        return Err("the end of the line");
    }
    Ok(RecordField { name, kind, offset, size, signed })
}

/// Type and name of a C declaration; an array's brackets belong to the type.
fn declared(text: &str) -> Option<(String, String)> {
    // Of `__data_loc char[] name` the brackets stand inside the type already.
    let brackets = if text.ends_with(']') { text.rfind('[')? } else { text.len() };
    let (declaration, brackets) = text.split_at(brackets);
    let start = declaration.rfind([' ', '*'])? + 1;
    let (kind, name) = declaration.split_at(start);
    (is_name(name) && !kind.trim().is_empty()).then(|| (format!("{}{brackets}", kind.trim_end()), name.to_owned()))
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn value(text: &str, key: &str) -> Option<u32> {
    // No record is longer than a page of the trace buffer, and sums of two of these cannot overflow.
    text.strip_prefix(key).and_then(number).filter(|value| *value <= 0xffff)
}

/// A decimal number as the kernel writes it: digits, no sign, no leading zero.
fn number(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests;
