//! What a guest with a NIC executes: 158 bytes at CPL 3, position-independent, assembled by hand.
//!
//! It asks what to do, sends one frame as often as it is told, or counts what it was given, and adds frames and bytes to
//! its own counters, by the frames' mark (the low four bits of their last byte). Each question is one read of an
//! unbacked address: a userspace exit. It believes the device in one thing only: how many frames went out.

/// Offset in the unbacked window of the read by which the program asks what to do: one of the `DO_…` values.
pub const MMIO_NEXT: u64 = 0x100;
/// Offset of the read that sends: of the frame at [`FRAME`], [`WANT`] are wanted; the answer is how many went, 0 to give
/// up.
pub const MMIO_SEND: u64 = 0x108;
/// Offset of the read that receives: how many frames lie in the receive buffer now, 0 to stop.
pub const MMIO_RECEIVE: u64 = 0x110;

/// Ask again.
pub const DO_NOTHING: u64 = 0;
/// Send what [`FRAME`], [`LENGTH`] and [`COUNT`] say.
pub const DO_SEND: u64 = 1;
/// Receive until there is nothing.
pub const DO_RECEIVE: u64 = 2;

/// Offset in the area of the word where the program says how many frames are left to send.
pub const WANT: u64 = 0;
/// Offset of the address of the frame to send.
pub const FRAME: u64 = 0x08;
/// Offset of its length in bytes, at least 1.
pub const LENGTH: u64 = 0x10;
/// Offset of how often it is to be sent.
pub const COUNT: u64 = 0x18;
/// Offset of sixteen pairs of words: frames and bytes sent, by mark.
pub const SENT: u64 = 0x100;
/// Offset of sixteen pairs of words: frames and bytes received, by mark.
pub const RECEIVED: u64 = 0x200;
/// Offset of [`PROGRAM`] itself.
pub const ENTRY: u64 = 0x800;
/// Offset of the 32-bit lengths of the frames that were received, which lie one behind another in the buffer.
pub const LENGTHS: u64 = 0x1000;

/// The program. On entry `rdi` is the vCPU's block, `r8` the unbacked window, `r9` the area, `r10` the receive buffer.
#[rustfmt::skip]
pub const PROGRAM: [u8; 158] = [
    0xc7, 0x47, 0x04, 0x02, 0x00, 0x00, 0x00,       // 00        mov dword [rdi + STATE], STATE_TOUCHED
    0x49, 0x8b, 0x80, 0x00, 0x01, 0x00, 0x00,       // 07 next:  mov rax, [r8 + MMIO_NEXT]
    0x83, 0xf8, 0x01,                               // 0e        cmp eax, DO_SEND
    0x74, 0x07,                                     // 11        je send
    0x83, 0xf8, 0x02,                               // 13        cmp eax, DO_RECEIVE
    0x74, 0x46,                                     // 16        je receive
    0xeb, 0xed,                                     // 18        jmp next
    0x49, 0x8b, 0x59, 0x18,                         // 1a send:  mov rbx, [r9 + COUNT]
    0x49, 0x8b, 0x71, 0x08,                         // 1e        mov rsi, [r9 + FRAME]
    0x49, 0x8b, 0x51, 0x10,                         // 22        mov rdx, [r9 + LENGTH]
    0x0f, 0xb6, 0x4c, 0x16, 0xff,                   // 26        movzx ecx, byte [rsi + rdx - 1]
    0x83, 0xe1, 0x0f,                               // 2b        and ecx, 15
    0xc1, 0xe1, 0x04,                               // 2e        shl ecx, 4
    0x48, 0x85, 0xdb,                               // 31 more:  test rbx, rbx
    0x74, 0xd1,                                     // 34        jz next
    0x49, 0x89, 0x19,                               // 36        mov [r9 + WANT], rbx
    0x49, 0x8b, 0x80, 0x08, 0x01, 0x00, 0x00,       // 39        mov rax, [r8 + MMIO_SEND]
    0x48, 0x85, 0xc0,                               // 40        test rax, rax
    0x74, 0xc2,                                     // 43        jz next
    0x49, 0x01, 0x84, 0x09, 0x00, 0x01, 0x00, 0x00, // 45        add [r9 + rcx + SENT], rax
    0x48, 0x29, 0xc3,                               // 4d        sub rbx, rax
    0x48, 0x0f, 0xaf, 0xc2,                         // 50        imul rax, rdx
    0x49, 0x01, 0x84, 0x09, 0x08, 0x01, 0x00, 0x00, // 54        add [r9 + rcx + SENT + 8], rax
    0xeb, 0xd3,                                     // 5c        jmp more
    0x49, 0x8b, 0x80, 0x10, 0x01, 0x00, 0x00,       // 5e receive: mov rax, [r8 + MMIO_RECEIVE]
    0x85, 0xc0,                                     // 65        test eax, eax
    0x74, 0x9e,                                     // 67        jz next
    0x4c, 0x89, 0xd6,                               // 69        mov rsi, r10
    0x49, 0x8d, 0x99, 0x00, 0x10, 0x00, 0x00,       // 6c        lea rbx, [r9 + LENGTHS]
    0x8b, 0x13,                                     // 73 one:   mov edx, [rbx]
    0x0f, 0xb6, 0x4c, 0x16, 0xff,                   // 75        movzx ecx, byte [rsi + rdx - 1]
    0x83, 0xe1, 0x0f,                               // 7a        and ecx, 15
    0xc1, 0xe1, 0x04,                               // 7d        shl ecx, 4
    0x49, 0xff, 0x84, 0x09, 0x00, 0x02, 0x00, 0x00, // 80        inc qword [r9 + rcx + RECEIVED]
    0x49, 0x01, 0x94, 0x09, 0x08, 0x02, 0x00, 0x00, // 88        add [r9 + rcx + RECEIVED + 8], rdx
    0x48, 0x01, 0xd6,                               // 90        add rsi, rdx
    0x48, 0x83, 0xc3, 0x04,                         // 93        add rbx, 4
    0x48, 0xff, 0xc8,                               // 97        dec rax
    0x75, 0xd7,                                     // 9a        jnz one
    0xeb, 0xc0,                                     // 9c        jmp receive
];
