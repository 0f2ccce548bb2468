//! The smallest programs there are, to run ten thousand of: an ELF file of a page that sleeps, one that ends at once, and
//! one that starts so many others, one after the other.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};

/// `pause()`, for ever.
pub const SLEEPS: &[u8] = &[0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7];
/// `exit(0)`.
pub const ENDS: &[u8] = &[0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05];

/// The loop of [`starts`]: `fork()`, and in the parent `wait4()` for a child that has to end with 0; then `exit(0)`, or
/// `exit(1)` where anything failed. The child goes on behind it. Ten bytes before it load the count.
const LOOP: &[u8] = &[
    0xb8, 57, 0, 0, 0, 0x0f, 0x05, 0x48, 0x85, 0xc0, 0x74, 0x3a, 0x78, 0x2c, 0x48, 0x89, 0xc7, 0x6a, 0, 0x48, 0x89,
    0xe6, 0x31, 0xd2, 0x45, 0x31, 0xd2, 0xb8, 61, 0, 0, 0, 0x0f, 0x05, 0x48, 0x85, 0xc0, 0x7e, 0x13, 0x58, 0x85, 0xc0,
    0x75, 0x0e, 0x49, 0xff, 0xcc, 0x75, 0xcf, 0x31, 0xff, 0xb8, 60, 0, 0, 0, 0x0f, 0x05, 0xbf, 1, 0, 0, 0, 0xb8, 60, 0,
    0, 0, 0x0f, 0x05,
];
/// `execve(path, {path, NULL}, NULL)`, the path being what follows; `exit(1)` where that failed.
const EXEC: &[u8] = &[
    0x48, 0x8d, 0x3d, 0x1b, 0, 0, 0, 0x6a, 0, 0x57, 0x48, 0x89, 0xe6, 0x31, 0xd2, 0xb8, 59, 0, 0, 0, 0x0f, 0x05, 0xbf,
    1, 0, 0, 0, 0xb8, 60, 0, 0, 0, 0x0f, 0x05,
];

/// A program that starts so many processes one after the other, each of which ends at once: this program, or nothing more
/// than the process. It ends with 0 if all of them did.
#[must_use]
pub fn starts(count: u64, program: Option<&Path>) -> Vec<u8> {
    let mut code = vec![0x49, 0xbc];
    code.extend(count.to_le_bytes());
    code.extend(LOOP);
    match program {
        None => code.extend(ENDS),
        Some(program) => {
            code.extend(EXEC);
            code.extend(program.as_os_str().as_encoded_bytes());
            code.push(0);
        }
    }
    code
}

/// Where the file is mapped.
const BASE: u64 = 0x40_0000;
const HEADER: u16 = 64;
const SEGMENT: u16 = 56;

/// Writes a program of this machine code (x86-64) that can be run.
pub fn write(path: &Path, code: &[u8]) -> Result<()> {
    let begin = u64::from(HEADER + SEGMENT);
    let bytes = begin + code.len() as u64;
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    // An executable for x86-64, version 1.
    file.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    for word in [BASE + begin, u64::from(HEADER), 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend([0; 4]);
    for half in [HEADER, SEGMENT, 1, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    // One segment, loaded whole, to be read and run.
    file.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    for word in [0, BASE, BASE, bytes, bytes, 0x1000] {
        file.extend(u64::to_le_bytes(word));
    }
    file.extend(code);
    std::fs::write(path, file).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?)
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_program_starts_others_and_fails_where_one_does() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let run = |code: &[u8]| {
            write(&at("it"), code).unwrap();
            // Nobody else's child may have it open for writing.
            let text_file_busy = |error: &std::io::Error| error.raw_os_error() == Some(libc::ETXTBSY);
            loop {
                match Command::new(at("it")).status() {
                    Err(error) if text_file_busy(&error) => {}
                    status => return status.unwrap().code(),
                }
            }
        };
        write(&at("ends"), ENDS).unwrap();
        assert_eq!(run(&starts(50, None)), Some(0));
        assert_eq!(run(&starts(50, Some(&at("ends")))), Some(0));
        assert_eq!(run(&starts(50, Some(&at("missing")))), Some(1));
    }
}
