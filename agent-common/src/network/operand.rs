//! Marks that stand as the operands of instructions, which the agent puts other values into likewise.

/// No other operand has these bits.
pub const MARK: i32 = 0x6b76_6d00;
/// Compared to the CPU's number: those from here on have no place of their own. The comparison goes where there are none.
pub const LIMIT: i32 = MARK + 1;
/// Keeps a CPU's and an account's offset inside the page.
pub const PLACES: i32 = MARK + 2;
/// Added to a device's address: [`super::constant::CARRIER_UPS`].
pub const CARRIER_UPS: i32 = MARK + 3;
/// Added to [`super::Note::place`]: where the same runqueue has which task runs.
pub const CURRENT: i32 = MARK + 4;
/// A call, that of `bpf_rdonly_cast`.
pub const CAST: i32 = MARK + 5;
/// A call, that of `bpf_cast_to_kern_ctx`.
pub const CONTEXT: i32 = MARK + 6;
