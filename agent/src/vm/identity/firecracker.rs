//! Firecracker's command line: `--id` says who it is; the VM's shape comes in by its API or by `--config-file`.
//!
//! Its jailer runs it as `/firecracker --id ID --start-time-us … ` inside a directory named after the id, so that the
//! path of its root says the same.

use super::{Clues, ConfigFile, ConfigFormat, Identity, flag, text};

/// What Firecracker calls itself without `--id`; no identity.
const UNNAMED: &[u8] = b"anonymous-instance";

/// Reads the arguments behind `argv[0]`.
pub(super) fn read(args: &[Vec<u8>]) -> Identity {
    Identity { vmm_id: id(args).and_then(text), ..Identity::default() }
}

fn id(args: &[Vec<u8>]) -> Option<&[u8]> {
    flag::value(args, &["--id"]).filter(|id| *id != UNNAMED)
}

/// Where more may be said.
pub(super) fn clues(args: &[Vec<u8>]) -> Clues {
    let config = flag::value(args, &["--config-file"]);
    Clues {
        config: config.map(|path| ConfigFile { format: ConfigFormat::Firecracker, path: path.to_vec() }),
        jail: id(args).is_none(),
        ..Clues::default()
    }
}

/// The id in the path of a jail, `<base>/<name of the executable>/<id>/root`.
#[must_use]
pub fn jail_id(root: &str) -> Option<String> {
    let mut parts = root.strip_suffix("/root")?.rsplit('/');
    let (id, program) = (parts.next()?, parts.next()?);
    let is_id = (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    (is_id && program.starts_with("firecracker")).then(|| id.to_owned())
}
