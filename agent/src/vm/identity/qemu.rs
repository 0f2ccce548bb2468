//! QEMU's command line: `-name`, `-uuid`, `-smp`, `-m`, memory back ends, with QEMU's own rules for repeats, escapes and
//! defaults.
//!
//! Source of the rules: QEMU's manual page (qemu-options.hx) and `machine_parse_smp_config` in hw/core/machine-smp.c.
//! Repeated options merge key by key and the last one wins. Not given means 1 vCPU and 128 MiB ("-smp … default
//! cpus=1", "-m … default 128 MiB"), unless something else on the line may say it (`-readconfig`).

use super::{Clues, ConfigFile, ConfigFormat, Identity, MAX_VCPUS, domain, keyval, size, text, uuid, vcpus};
use crate::units::Bytes;

/// "-m [size=]megs … (default 128 MiB)".
const DEFAULT_MEMORY: Bytes = Bytes::mib(128);
/// "-smp [[cpus=]n] … (default: 1)".
const DEFAULT_VCPUS: u32 = 1;
/// Back ends and modules that are looked at; a machine has at most 256 slots.
const MAX_BACKENDS: usize = 1_024;

/// Options whose value may be any text, even one that looks like an option.
const FREE_TEXT: [&str; 9] = ["append", "kernel", "initrd", "dtb", "fw_cfg", "drive", "chardev", "netdev", "pidfile"];

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// The options that tell something, merged over repeats.
#[derive(Default)]
struct Told<'a> {
    name: Pairs,
    smp: Pairs,
    memory: Pairs,
    /// `-machine memory.size=`, whose bare number counts bytes.
    machine_memory: Option<Vec<u8>>,
    /// The back end of the main memory.
    backend: Option<Vec<u8>>,
    /// Back ends with their sizes.
    backends: Vec<(Vec<u8>, Vec<u8>)>,
    /// Back ends of memory modules.
    modules: Vec<Vec<u8>>,
    uuid: Option<&'a [u8]>,
    smbios_uuid: Option<Vec<u8>>,
    /// Proxmox VE's number.
    id: Option<&'a [u8]>,
    config: Option<&'a [u8]>,
}

/// Reads the arguments behind `argv[0]`; with `truncated`, options may be missing and defaults are not believed.
pub(super) fn read(args: &[Vec<u8>], truncated: bool) -> Identity {
    let told = collect(args);
    let defaults = !truncated && told.config.is_none();
    Identity {
        name: keyval::last(&told.name, "guest").and_then(text),
        uuid: told.uuid.and_then(uuid).or_else(|| uuid(told.smbios_uuid.as_deref()?)),
        vcpus: cpus(&told.smp, defaults),
        mem_bytes: memory(&told, defaults),
        ..Identity::default()
    }
}

/// Whether what follows an option may be any text.
pub(super) fn is_free_text(option: &[u8]) -> bool {
    FREE_TEXT.iter().any(|name| option == name.as_bytes())
}

/// Where more may be said.
pub(super) fn clues(args: &[Vec<u8>]) -> Clues {
    let told = collect(args);
    Clues {
        domain: keyval::last(&told.name, "guest").and_then(domain::file_stem).map(str::to_owned),
        proxmox: told.id.and_then(|id| std::str::from_utf8(id).ok()?.parse().ok()),
        config: told.config.map(|path| ConfigFile { format: ConfigFormat::Qemu, path: path.to_vec() }),
        jail: false,
    }
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
            b"id" => told.id = rest.next().map(Vec::as_slice),
            b"readconfig" => told.config = rest.next().map(Vec::as_slice),
            b"machine" | b"M" => told.machine(next_pairs(&mut rest, b"type")),
            b"object" => told.object(&next_pairs(&mut rest, b"qom-type")),
            b"device" => told.device(&next_pairs(&mut rest, b"driver")),
            b"smbios" => told.smbios(&next_pairs(&mut rest, b"type")),
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

impl Told<'_> {
    fn machine(&mut self, pairs: Pairs) {
        for (key, value) in pairs {
            if key == b"memory-backend" {
                self.backend = Some(value);
            } else if key == b"memory.size" {
                self.machine_memory = Some(value);
            } else if let Some(level) = key.strip_prefix(b"smp.") {
                self.smp.push((level.to_vec(), value));
            }
        }
    }

    fn object(&mut self, pairs: &Pairs) {
        let is_memory = keyval::last(pairs, "qom-type").is_some_and(|kind| kind.starts_with(b"memory-backend-"));
        if let (true, Some(id), Some(size)) = (is_memory, keyval::last(pairs, "id"), keyval::last(pairs, "size"))
            && self.backends.len() < MAX_BACKENDS
        {
            self.backends.push((id.to_vec(), size.to_vec()));
        }
    }

    fn device(&mut self, pairs: &Pairs) {
        if keyval::last(pairs, "driver") == Some(b"pc-dimm")
            && let Some(id) = keyval::last(pairs, "memdev")
            && self.modules.len() < MAX_BACKENDS
        {
            self.modules.push(id.to_vec());
        }
    }

    fn smbios(&mut self, pairs: &Pairs) {
        if keyval::last(pairs, "type") == Some(b"1")
            && let Some(uuid) = keyval::last(pairs, "uuid")
        {
            self.smbios_uuid = Some(uuid.to_vec());
        }
    }

    /// The size of a back end, a bare number counting bytes.
    fn backend_bytes(&self, id: &[u8]) -> Option<u64> {
        self.backends.iter().rfind(|(name, _)| name == id).and_then(|(_, bytes)| size(bytes, Bytes(1)))
    }
}

/// The next argument's pairs; objects and devices may also be written in JSON.
fn next_pairs<'a>(rest: &mut impl Iterator<Item = &'a Vec<u8>>, implied: &[u8]) -> Pairs {
    let Some(value) = rest.next() else { return Pairs::new() };
    if !value.starts_with(b"{") {
        return keyval::pairs(value, implied);
    }
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(value).unwrap_or_default();
    let text = |value: serde_json::Value| match value {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    };
    object.into_iter().map(|(key, value)| (key.into_bytes(), text(value).into_bytes())).collect()
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

/// `-m`, a bare number in MiB, else what the main memory's back end has, else QEMU's default, which 0 asks for too; and
/// the modules beside it.
fn memory(told: &Told<'_>, defaults: bool) -> Option<u64> {
    let main = match (keyval::last(&told.memory, "size").filter(|given| *given != b"0"), &told.machine_memory) {
        (Some(given), _) => size(given, Bytes::mib(1))?,
        (None, Some(given)) => size(given, Bytes(1))?,
        (None, None) => match &told.backend {
            Some(backend) => told.backend_bytes(backend)?,
            None => defaults.then_some(DEFAULT_MEMORY.get())?,
        },
    };
    told.modules.iter().try_fold(main, |sum, module| sum.checked_add(told.backend_bytes(module)?))
}
