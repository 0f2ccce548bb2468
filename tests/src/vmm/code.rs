//! What the guest executes: 60 bytes at CPL 3, position-independent, assembled by hand.
//!
//! The guest talks to the VMM through its vCPU's *block* in guest memory (no exit) and through two unbacked addresses
//! (a userspace exit each). A guest that is told to burn [`FOREVER`] never leaves KVM_RUN by itself.

/// Offset in the block of the `u32` the VMM writes: one of the `COMMAND_…` values.
pub const COMMAND: u64 = 0;
/// Offset in the block of the `u32` the guest writes: one of the `STATE_…` values.
pub const STATE: u64 = 4;

/// Go on burning.
pub const COMMAND_NONE: u32 = 0;
/// Execute `ud2`, which triple-faults because the guest has no IDT.
pub const COMMAND_TRIPLE_FAULT: u32 = 1;
/// Write to [`MMIO_HALT`], where the VMM grants CPL 0, and execute `hlt`.
pub const COMMAND_HALT: u32 = 2;

/// The guest has executed its first instruction.
pub const STATE_ENTERED: u32 = 1;
/// The guest has written to every page it was told to touch.
pub const STATE_TOUCHED: u32 = 2;

/// Offset in the unbacked window of the 8-byte read by which a guest asks how many rounds to burn next (at least 1).
pub const MMIO_NEXT: u64 = 0;
/// Offset in the unbacked window of the 8-byte write by which a guest asks for CPL 0.
pub const MMIO_HALT: u64 = 8;

/// A number of rounds that no guest finishes.
pub const FOREVER: u64 = u64::MAX;

/// The code. On entry `rdi` is the block, `rsi..rdx` the bytes to touch, `rcx` the rounds to burn (at least 1),
/// `r8` the unbacked window.
#[rustfmt::skip]
pub const CODE: [u8; 60] = [
    0xc7, 0x47, 0x04, 0x01, 0x00, 0x00, 0x00, // 00        mov dword [rdi + STATE], STATE_ENTERED
    0x48, 0x39, 0xd6,                         // 07 touch: cmp rsi, rdx
    0x73, 0x0c,                               // 0a        jae done
    0x48, 0x89, 0x36,                         // 0c        mov [rsi], rsi
    0x48, 0x81, 0xc6, 0x00, 0x10, 0x00, 0x00, // 0f        add rsi, 4096
    0xeb, 0xef,                               // 16        jmp touch
    0xc7, 0x47, 0x04, 0x02, 0x00, 0x00, 0x00, // 18 done:  mov dword [rdi + STATE], STATE_TOUCHED
    0x83, 0x3f, 0x00,                         // 1f burn:  cmp dword [rdi + COMMAND], COMMAND_NONE
    0x75, 0x0a,                               // 22        jne told
    0x48, 0xff, 0xc9,                         // 24        dec rcx
    0x75, 0xf6,                               // 27        jnz burn
    0x49, 0x8b, 0x08,                         // 29        mov rcx, [r8 + MMIO_NEXT]
    0xeb, 0xf1,                               // 2c        jmp burn
    0x83, 0x3f, 0x01,                         // 2e told:  cmp dword [rdi + COMMAND], COMMAND_TRIPLE_FAULT
    0x75, 0x02,                               // 31        jne halt
    0x0f, 0x0b,                               // 33        ud2
    0x49, 0x89, 0x48, 0x08,                   // 35 halt:  mov [r8 + MMIO_HALT], rcx
    0xf4,                                     // 39 idle:  hlt
    0xeb, 0xfd,                               // 3a        jmp idle
];
