//! Firecracker's command line: only `--id` says something; the VM's shape comes in by its API or a config file.

use super::{Identity, flag, text};

/// What Firecracker calls itself without `--id`; no identity.
const UNNAMED: &[u8] = b"anonymous-instance";

/// Reads the arguments behind `argv[0]`.
pub(super) fn read(args: &[Vec<u8>]) -> Identity {
    let id = flag::value(args, &["--id"]).filter(|id| *id != UNNAMED);
    Identity { vmm_id: id.and_then(text), ..Identity::default() }
}
