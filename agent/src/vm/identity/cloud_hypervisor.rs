//! Cloud Hypervisor's command line: `--cpus boot=2`, `--memory size=512M`, `--platform uuid=…`.
//!
//! A VM that is created through the API socket has none of these, so nothing is filled in by default.

use super::{Identity, flag, keyval, size, uuid, vcpus};
use crate::units::Bytes;

/// Reads the arguments behind `argv[0]`.
pub(super) fn read(args: &[Vec<u8>]) -> Identity {
    let key = |flag: &str, key: &str| {
        let pairs = keyval::pairs(flag::value(args, &[flag])?, b"");
        keyval::last(&pairs, key).map(<[u8]>::to_vec)
    };
    Identity {
        uuid: key("--platform", "uuid").and_then(|id| uuid(&id)),
        vcpus: key("--cpus", "boot").and_then(|count| vcpus(&count)),
        mem_bytes: key("--memory", "size").and_then(|bytes| size(&bytes, Bytes(1))),
        ..Identity::default()
    }
}
