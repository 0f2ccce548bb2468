//! crosvm's command line: `crosvm run --cpus 2 --mem 512 --name x`; both numbers may be written as `key=value`.

use super::{Clues, ConfigFile, ConfigFormat, Identity, flag, keyval, size, text, vcpus};
use crate::units::Bytes;

/// Reads the arguments behind `argv[0]`.
pub(super) fn read(args: &[Vec<u8>]) -> Identity {
    let key = |flags: &[&str], key: &str| {
        let pairs = keyval::pairs(flag::value(args, flags)?, key.as_bytes());
        keyval::last(&pairs, key).map(<[u8]>::to_vec)
    };
    Identity {
        name: flag::value(args, &["--name"]).and_then(text),
        vcpus: key(&["--cpus", "-c"], "num-cores").and_then(|count| vcpus(&count)),
        mem_bytes: key(&["--mem", "-m"], "size").and_then(|mem| size(&mem, Bytes::mib(1))),
        ..Identity::default()
    }
}

/// Where more may be said.
pub(super) fn clues(args: &[Vec<u8>]) -> Clues {
    let config = flag::value(args, &["--cfg"]);
    let config = config.map(|path| ConfigFile { format: ConfigFormat::Crosvm, path: path.to_vec() });
    Clues { config, ..Clues::default() }
}
