//! QEMU's command line: `-name`, `-uuid`, `-smp`, `-m`, with QEMU's own rules for repeats, escapes and defaults.
//!
//! Source of the rules: QEMU's manual page (qemu-options.hx) and `machine_parse_smp_config` in hw/core/machine-smp.c.
//! Repeated options merge key by key and the last one wins. Not given means 1 vCPU and 128 MiB ("-smp … default
//! cpus=1", "-m … default 128 MiB"), unless something else on the line may say it (`-readconfig`, `memory-backend=`).

use super::{Identity, MAX_VCPUS, keyval, size, text, uuid, vcpus};
use crate::units::Bytes;

/// "-m [size=]megs … (default 128 MiB)".
const DEFAULT_MEMORY: Bytes = Bytes::mib(128);
/// "-smp [[cpus=]n] … (default: 1)".
const DEFAULT_VCPUS: u32 = 1;

/// Options whose value may be any text, even one that looks like an option.
const FREE_TEXT: [&str; 12] = [
    "append", "kernel", "initrd", "dtb", "smbios", "fw_cfg", "drive", "device", "object", "chardev", "netdev",
    "pidfile",
];

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// The options that tell something, merged over repeats.
#[derive(Default)]
struct Told<'a> {
    name: Pairs,
    smp: Pairs,
    memory: Pairs,
    uuid: Option<&'a [u8]>,
    /// vCPUs or memory may be set where this parser does not look.
    elsewhere: bool,
}

/// Reads the arguments behind `argv[0]`; with `truncated`, options may be missing and defaults are not believed.
pub(super) fn read(args: &[Vec<u8>], truncated: bool) -> Identity {
    let told = collect(args);
    let defaults = !truncated && !told.elsewhere;
    Identity {
        name: keyval::last(&told.name, "guest").and_then(text),
        uuid: told.uuid.and_then(uuid),
        vcpus: cpus(&told.smp, defaults),
        mem_bytes: memory(&told.memory, defaults),
        ..Identity::default()
    }
}

/// Whether what follows an option may be any text.
pub(super) fn is_free_text(option: &[u8]) -> bool {
    FREE_TEXT.iter().any(|name| option == name.as_bytes())
}

fn collect(args: &[Vec<u8>]) -> Told<'_> {
    let mut told = Told::default();
    let mut rest = args.iter().peekable();
    while let Some(arg) = rest.next() {
        // QEMU takes one dash or two.
        let Some(option) = arg.strip_prefix(b"--").or_else(|| arg.strip_prefix(b"-")) else {
            continue;
        };
        match option {
            b"name" => told.name.extend(next_pairs(&mut rest, b"guest")),
            b"smp" => told.smp.extend(next_pairs(&mut rest, b"cpus")),
            b"m" => told.memory.extend(next_pairs(&mut rest, b"size")),
            b"uuid" => told.uuid = rest.next().map(Vec::as_slice),
            b"readconfig" => {
                told.elsewhere = true;
                rest.next();
            }
            b"machine" | b"M" => {
                let pairs = next_pairs(&mut rest, b"type");
                told.elsewhere |= pairs.iter().any(|(key, _)| {
                    key == b"memory-backend" || key.starts_with(b"smp.") || key.starts_with(b"memory.")
                });
            }
            _ if is_free_text(option) => {
                rest.next();
            }
            // Whether another option takes a value shows in what follows: a value hardly ever begins with a dash.
            _ => {
                rest.next_if(|value| !value.starts_with(b"-"));
            }
        }
    }
    told
}

fn next_pairs<'a>(rest: &mut impl Iterator<Item = &'a Vec<u8>>, implied: &[u8]) -> Pairs {
    rest.next().map(|value| keyval::pairs(value, implied)).unwrap_or_default()
}

/// `cpus`, else `maxcpus`, else the product of the topology, as QEMU computes it.
fn cpus(smp: &Pairs, defaults: bool) -> Option<u32> {
    if smp.is_empty() {
        return defaults.then_some(DEFAULT_VCPUS);
    }
    if let Some(count) = keyval::last(smp, "cpus").or_else(|| keyval::last(smp, "maxcpus")) {
        return vcpus(count);
    }
    let levels = ["drawers", "books", "sockets", "dies", "clusters", "modules", "cores", "threads"];
    let product = levels
        .iter()
        .filter_map(|level| keyval::last(smp, level))
        .try_fold(1u32, |product, count| product.checked_mul(vcpus(count)?))?;
    (product <= MAX_VCPUS).then_some(product)
}

/// `size`, a bare number in MiB; 0 asks QEMU for its default.
fn memory(memory: &Pairs, defaults: bool) -> Option<u64> {
    match keyval::last(memory, "size") {
        None | Some(b"0") => defaults.then_some(DEFAULT_MEMORY.get()),
        Some(given) => size(given, Bytes::mib(1)),
    }
}
