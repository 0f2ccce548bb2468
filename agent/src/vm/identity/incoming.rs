//! Whether a VMM was started with a saved state to go on from, and which, as its command line tells.
//!
//! Only what is certain is said: a state that comes in through a descriptor or a socket may be a snapshot as well as a
//! running VM of another host; a VMM that takes orders over an API of its own may be told of a snapshot there.

use super::{Argv, Hypervisor, flag, keyval, label, qemu};

/// What the command line tells of a saved state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// There is none, and the command line would have shown it.
    None,
    /// It cannot be told.
    Untold,
    /// A state comes in, from a snapshot or from a VM that moves here.
    Stream,
    /// From a snapshot.
    Snapshot {
        /// Its id, where it has one that can be written down whole.
        id: Option<String>,
        /// Whether the id means the same for every VM of the host (a path); else it is a name inside the VM's own disks.
        shared: bool,
    },
}

impl Incoming {
    fn inside(name: &[u8]) -> Self {
        Self::Snapshot { id: whole(name), shared: false }
    }

    fn file(path: &[u8]) -> Self {
        Self::Snapshot { id: whole(path), shared: path.starts_with(b"/") }
    }
}

/// Programs that do nothing but write a file's contents, and the options that make them.
const READERS: [(&[u8], &[&[u8]]); 9] = [
    (b"cat", &[]),
    (b"zcat", &[]),
    (b"zstdcat", &[]),
    (b"xzcat", &[]),
    (b"lz4cat", &[]),
    (b"gzip", &[b"-c", b"-d", b"-dc", b"-cd"]),
    (b"gunzip", &[b"-c"]),
    (b"zstd", &[b"-c", b"-d", b"-dc", b"-cd"]),
    (b"xz", &[b"-c", b"-d", b"-dc", b"-cd"]),
];

/// Reads it off a command line.
#[must_use]
pub fn incoming(hypervisor: Hypervisor, argv: &Argv) -> Incoming {
    let args = argv.whole().get(1..).unwrap_or_default();
    let found = match hypervisor {
        Hypervisor::Qemu => of_qemu(args),
        Hypervisor::CloudHypervisor => flag::value(args, &["--restore"]).map(of_cloud_hypervisor),
        Hypervisor::Crosvm => flag::value(args, &["--restore"]).map(Incoming::file),
        Hypervisor::Kvmtool => None,
        // A configuration file begins a VM anew; without one Firecracker waits for what its API is told.
        Hypervisor::Firecracker if flag::value(args, &["--config-file"]).is_some() => None,
        _ => return Incoming::Untold,
    };
    // What was cut off may have said it.
    found.unwrap_or(if argv.truncated || argv.args.is_empty() { Incoming::Untold } else { Incoming::None })
}

/// QEMU takes the last of each; a state that comes in goes before a snapshot in the disks, which it refuses beside it.
fn of_qemu(args: &[Vec<u8>]) -> Option<Incoming> {
    let (mut stream, mut inside) = (None, None);
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let Some(option) = arg.strip_prefix(b"--").or_else(|| arg.strip_prefix(b"-")) else { continue };
        match option {
            b"incoming" => stream = rest.next().map(|uri| of_uri(uri)),
            b"loadvm" => inside = rest.next().map(|name| Incoming::inside(name)),
            _ if qemu::is_free_text(option) => drop(rest.next()),
            _ => {}
        }
    }
    stream.or(inside)
}

fn of_uri(uri: &[u8]) -> Incoming {
    if let Some(path) = uri.strip_prefix(b"file:") {
        return Incoming::file(path.split(|b| *b == b',').next().unwrap_or(path));
    }
    uri.strip_prefix(b"exec:").and_then(file_of_command).map_or(Incoming::Stream, Incoming::file)
}

/// The one file that a shell command reads out, if that is all it does.
fn file_of_command(command: &[u8]) -> Option<&[u8]> {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"/._-+:@%<".contains(b) || *b >= 0x80;
    let mut words = command.split(|b| matches!(b, b' ' | b'\t')).filter(|word| !word.is_empty());
    let program = words.next()?.rsplit(|b| *b == b'/').next()?;
    let (_, options) = READERS.iter().find(|(name, _)| *name == program)?;
    let mut path = None;
    for word in words {
        if !word.iter().all(plain) {
            return None;
        }
        match word {
            b"<" => {}
            option if option.starts_with(b"-") => options.contains(&option).then_some(())?,
            word if path.is_some() || word.is_empty() => return None,
            word => path = Some(word.strip_prefix(b"<").unwrap_or(word)),
        }
    }
    path.filter(|path| !path.contains(&b'<'))
}

/// `source_url=file:///dir[,prefault=on]`.
fn of_cloud_hypervisor(value: &[u8]) -> Incoming {
    let pairs = keyval::pairs(value, b"source_url");
    match keyval::last(&pairs, "source_url").and_then(|url| url.strip_prefix(b"file://")) {
        Some(path) => Incoming::file(path),
        None => Incoming::Snapshot { id: None, shared: false },
    }
}

/// `raw` if it can be written down as it is: a cut id could be another's.
fn whole(raw: &[u8]) -> Option<String> {
    let text = label(raw);
    (!text.is_empty() && text.as_bytes() == raw).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(hypervisor: Hypervisor, words: &[&str]) -> Incoming {
        incoming(hypervisor, &Argv::parse(words.join("\0").as_bytes(), false))
    }

    fn snapshot(id: &str, shared: bool) -> Incoming {
        Incoming::Snapshot { id: Some(id.into()), shared }
    }

    #[test]
    fn qemu_tells_files_from_streams_and_from_names_in_its_disks() {
        let qemu = |words: &[&str]| of(Hypervisor::Qemu, &[&["qemu-system-x86_64"], words].concat());
        assert_eq!(qemu(&["-m", "1G"]), Incoming::None);
        assert_eq!(qemu(&["-loadvm", "before-upgrade"]), snapshot("before-upgrade", false));
        assert_eq!(qemu(&["--incoming", "file:/var/lib/save,offset=0x1000"]), snapshot("/var/lib/save", true));
        for command in ["exec:cat /s/a", "exec:/bin/cat < /s/a", "exec:gzip -d -c </s/a", "exec:zstd -dc /s/a"] {
            assert_eq!(qemu(&["-incoming", command]), snapshot("/s/a", true), "{command}");
        }
        assert_eq!(qemu(&["-incoming", "exec:cat a"]), snapshot("a", false), "where it lies is not said");
        for uri in [
            "tcp:0:4444",
            "defer",
            "fd:30",
            "unix:/x",
            "exec:nc -l 1",
            "exec:cat /a; x",
            "exec:cat /a /b",
            "exec:cat $x",
            "exec:",
        ] {
            assert_eq!(qemu(&["-incoming", uri]), Incoming::Stream, "{uri}");
        }
        assert_eq!(qemu(&["-append", "-incoming", "x"]), Incoming::None, "the guest's own text");
        assert_eq!(qemu(&["-loadvm", &"x".repeat(200)]), Incoming::Snapshot { id: None, shared: false });
    }

    #[test]
    fn others_say_it_by_a_flag_or_not_at_all() {
        use Hypervisor::{CloudHypervisor, Crosvm, Firecracker, Kvmtool, Unknown};
        assert_eq!(
            of(CloudHypervisor, &["ch", "--restore", "source_url=file:///s/1,prefault=on"]),
            snapshot("/s/1", true)
        );
        assert_eq!(of(CloudHypervisor, &["ch", "--cpus", "boot=1"]), Incoming::None);
        assert_eq!(of(Crosvm, &["crosvm", "run", "--restore=/s/2"]), snapshot("/s/2", true));
        assert_eq!(of(Kvmtool, &["lkvm", "run"]), Incoming::None);
        assert_eq!(of(Firecracker, &["firecracker", "--api-sock", "/x"]), Incoming::Untold);
        assert_eq!(of(Firecracker, &["firecracker", "--config-file", "/x", "--no-api"]), Incoming::None);
        assert_eq!(of(Unknown, &["vmm"]), Incoming::Untold);
    }

    #[test]
    fn what_was_cut_off_is_not_believed_to_say_nothing() {
        let cut = Argv::parse(b"qemu-kvm\0-m\x001G\0-inc", true);
        assert_eq!(incoming(Hypervisor::Qemu, &cut), Incoming::Untold);
        assert_eq!(incoming(Hypervisor::Qemu, &Argv::default()), Incoming::Untold);
    }

    proptest! {
        #[test]
        fn any_command_line_is_read_and_an_id_is_whole(raw in proptest::collection::vec(any::<u8>(), 0..400), truncated: bool) {
            let mut line = b"qemu\0-incoming\0exec:cat ".to_vec();
            line.extend(&raw);
            for hypervisor in [Hypervisor::Qemu, Hypervisor::CloudHypervisor, Hypervisor::Crosvm, Hypervisor::Firecracker] {
                for line in [&line, &raw] {
                    if let Incoming::Snapshot { id: Some(id), .. } = incoming(hypervisor, &Argv::parse(line, truncated)) {
                        prop_assert!(!id.is_empty() && id.len() <= 128 && line.windows(id.len()).any(|part| part == id.as_bytes()));
                    }
                }
            }
        }
    }
}
