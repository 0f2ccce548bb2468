//! Kata Containers: which sandbox a VMM was started for, by the paths that Kata's runtimes put on its command line.
//!
//! Source: `virtcontainers/persist/fs` (`/run/vc/vm/<id>`, `/run/vc/firecracker/<id>`) and runtime-rs (`/run/kata/<id>`).

/// Below which a directory is named after a sandbox.
const PLACES: [&[u8]; 3] = [b"/run/vc/vm/", b"/run/vc/firecracker/", b"/run/kata/"];
/// The longest id.
const MAX_ID_BYTES: usize = 128;

/// The sandbox's id.
pub(super) fn sandbox(args: &[Vec<u8>]) -> Option<String> {
    args.iter().find_map(|arg| {
        let below = PLACES.iter().find_map(|place| {
            let at = arg.windows(place.len()).position(|window| window == *place)?;
            arg.get(at + place.len()..)
        })?;
        let id = below.get(..below.iter().position(|byte| *byte == b'/')?)?;
        let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let fits = (1..=MAX_ID_BYTES).contains(&id.len()) && id.iter().all(allowed) && id.first() != Some(&b'.');
        fits.then(|| String::from_utf8_lossy(id).into_owned())
    })
}
