//! Why BTF does not tell where a field is: each refusal with the names it is about.

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
    /// The field does not take whole bytes.
    #[error("field {0} is a bit field")]
    BitField(String),
    /// Several structs have that name, and not all have the field at one place.
    #[error("this kernel has several structs {owner} that differ in {field}")]
    Ambiguous {
        /// The name.
        owner: String,
        /// The field's name.
        field: String,
    },
    /// The field is not what the reader of it expects.
    #[error("field {field} has {found} bytes at {offset}, not {wanted} on their boundary")]
    Size {
        /// The field's name.
        field: String,
        /// Its size in bytes.
        found: u32,
        /// Its offset in bytes.
        offset: u32,
        /// The size it was to have.
        wanted: u32,
    },
}
