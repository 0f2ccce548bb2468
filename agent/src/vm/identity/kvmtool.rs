//! kvmtool's command line: `lkvm run -c 2 -m 512 --name x`, memory in MiB unless it says otherwise.

use super::{Identity, flag, size, text, vcpus};
use crate::units::Bytes;

/// Reads the arguments behind `argv[0]`.
pub(super) fn read(args: &[Vec<u8>]) -> Identity {
    Identity {
        name: flag::value(args, &["--name"]).and_then(text),
        vcpus: flag::value(args, &["--cpus", "-c"]).and_then(vcpus),
        mem_bytes: flag::value(args, &["--mem", "-m"]).and_then(|mem| size(mem, Bytes::mib(1))),
        ..Identity::default()
    }
}
