//! A VMM nobody here knows: the few flags that mean the same wherever they occur, and no shape.

use super::{Identity, flag, text, uuid};

/// Reads the arguments behind `argv[0]`.
pub(super) fn read(args: &[Vec<u8>]) -> Identity {
    Identity {
        name: flag::value(args, &["--name", "-name"]).and_then(text),
        uuid: flag::value(args, &["--uuid", "-uuid"]).and_then(uuid),
        vmm_id: flag::value(args, &["--id"]).and_then(text),
        ..Identity::default()
    }
}
