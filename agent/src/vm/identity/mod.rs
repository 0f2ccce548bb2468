//! Who a VM is: hypervisor, name, UUID, shape and owner, read from its VMM's command line, its control group, and files
//! of libvirt, Proxmox VE, VMMs and the operator.
//!
//! Pure functions over bytes; whoever calls them has read `/proc`, a file or a kernel event. Nothing here is needed to count:
//! an unreadable or hostile command line changes labels and nothing else. What the command line does not say is
//! `None`, never a guess; only QEMU's documented defaults are filled in.

mod cloud_hypervisor;
pub mod config;
mod crosvm;
pub mod domain;
mod facts;
mod firecracker;
mod flag;
mod generic;
mod incoming;
pub mod inventory;
mod kata;
mod keyval;
mod kvmtool;
mod label;
pub mod proxmox;
mod qemu;
pub mod scope;
mod vmid;

use std::fmt;

pub use facts::{Clues, ConfigFile, ConfigFormat, Facts};
pub use firecracker::jail_id;
pub use incoming::{Incoming, incoming};
pub use inventory::Inventory;
pub use label::{MAX_LABEL_BYTES, label};
pub use vmid::{fallback_vm_id, incarnation, is_vm_id, vm_id};

/// The longest short VMM name, in bytes; it leaves room for a pid and a hash in a 64-byte `vm_id`.
const MAX_VMM_BYTES: usize = 32;

/// More vCPUs than any VMM offers; a larger number on a command line is not believed.
const MAX_VCPUS: u32 = 65_536;

/// The program that runs a VM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hypervisor {
    /// `qemu-system-*`, `qemu-kvm`, `kvm`.
    Qemu,
    /// `firecracker`.
    Firecracker,
    /// `cloud-hypervisor`.
    CloudHypervisor,
    /// `crosvm`.
    Crosvm,
    /// `lkvm`, `kvmtool`.
    Kvmtool,
    /// Any other program that runs a KVM guest.
    #[default]
    Unknown,
}

impl Hypervisor {
    /// The name in metrics and in the ledger; it never changes.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::Firecracker => "firecracker",
            Self::CloudHypervisor => "cloud-hypervisor",
            Self::Crosvm => "crosvm",
            Self::Kvmtool => "kvmtool",
            Self::Unknown => "unknown",
        }
    }

    /// The hypervisor whose executable has this file name.
    fn of_program(name: &[u8]) -> Self {
        // Nix wraps programs as `.name-wrapped`.
        let name = name.strip_prefix(b".").and_then(|n| n.strip_suffix(b"-wrapped")).unwrap_or(name);
        match name {
            b"qemu-kvm" | b"kvm" | b"qemu" => Self::Qemu,
            b"lkvm" | b"lkvm-static" | b"kvmtool" => Self::Kvmtool,
            _ if name.starts_with(b"qemu-system-") => Self::Qemu,
            _ if release_of(name, b"firecracker") => Self::Firecracker,
            _ if release_of(name, b"cloud-hypervisor") => Self::CloudHypervisor,
            _ if release_of(name, b"crosvm") => Self::Crosvm,
            _ => Self::Unknown,
        }
    }
}

impl fmt::Display for Hypervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A command line as the kernel keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Argv {
    /// The arguments, `argv[0]` first; bytes, because nothing says they are text.
    pub args: Vec<Vec<u8>>,
    /// Whether more followed; then the last element of `args` may be cut anywhere and is not believed.
    pub truncated: bool,
}

impl Argv {
    /// Splits the NUL-separated form of `/proc/<pid>/cmdline` and of the kernel's argument block.
    #[must_use]
    pub fn parse(raw: &[u8], truncated: bool) -> Self {
        // A cut right behind a NUL cut no element: the empty one behind it takes the blame.
        let body = if truncated { raw } else { raw.strip_suffix(b"\0").unwrap_or(raw) };
        if body.is_empty() {
            return Self { args: Vec::new(), truncated };
        }
        Self { args: body.split(|b| *b == 0).map(<[u8]>::to_vec).collect(), truncated }
    }

    /// The elements that are whole.
    fn whole(&self) -> &[Vec<u8>] {
        match self.args.split_last() {
            Some((_, head)) if self.truncated => head,
            _ => &self.args,
        }
    }
}

/// What a command line told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The program, by the file name of its executable.
    pub hypervisor: Hypervisor,
    /// Its short name for `<vmm>-<tgid>-<hash>`: the hypervisor's, else the program's; 1 to 32 of `[A-Za-z0-9._-]`.
    pub vmm: String,
    /// The VM's name, made a [`label()`].
    pub name: Option<String>,
    /// The VM's UUID: lower case, 8-4-4-4-12; the nil UUID counts as none.
    pub uuid: Option<String>,
    /// The id the VMM was given for itself (`--id`), made a [`label()`].
    pub vmm_id: Option<String>,
    /// vCPUs at start.
    pub vcpus: Option<u32>,
    /// Guest memory at start, in bytes.
    pub mem_bytes: Option<u64>,
    /// The sandbox of Kata Containers it was started for.
    pub sandbox: Option<String>,
    /// Files that may say more.
    pub clues: Clues,
}

/// Reads a VM's identity from its command line, its `comm` and the file name of its executable.
///
/// The hypervisor comes from the executable's file name, else from that of `argv[0]`, and from nothing else; `comm`
/// only helps to name an unknown VMM.
#[must_use]
pub fn identify(argv: &Argv, comm: &[u8], exe: Option<&[u8]>) -> Identity {
    let whole = argv.whole();
    let argv0 = whole.first().map(|program| file_name(program));
    let exe = exe.map(file_name);
    let programs = [exe, argv0];
    let hypervisor = programs
        .iter()
        .flatten()
        .map(|program| Hypervisor::of_program(program))
        .find(|hypervisor| *hypervisor != Hypervisor::Unknown)
        .unwrap_or_default();
    let args = whole.get(1..).unwrap_or_default();
    let told = match hypervisor {
        Hypervisor::Qemu => qemu::read(args, argv.truncated || whole.is_empty()),
        Hypervisor::Firecracker => firecracker::read(args),
        Hypervisor::CloudHypervisor => cloud_hypervisor::read(args),
        Hypervisor::Crosvm => crosvm::read(args),
        Hypervisor::Kvmtool => kvmtool::read(args),
        Hypervisor::Unknown => generic::read(args),
    };
    let vmm = match hypervisor {
        Hypervisor::Unknown => short_name(exe.or(argv0).unwrap_or(comm)),
        known => known.as_str().to_owned(),
    };
    let clues = match hypervisor {
        Hypervisor::Qemu => qemu::clues(args),
        Hypervisor::Firecracker => firecracker::clues(args),
        Hypervisor::Crosvm => crosvm::clues(args),
        Hypervisor::CloudHypervisor | Hypervisor::Kvmtool | Hypervisor::Unknown => Clues::default(),
    };
    let sandbox = if hypervisor == Hypervisor::Unknown { None } else { kata::sandbox(args) };
    let vmm_id = told.vmm_id.or_else(|| sandbox.clone());
    Identity { hypervisor, vmm, vmm_id, sandbox, clues, ..told }
}

/// Whether `name` is `program` or a release build of it (`firecracker-v1.7.0-x86_64`).
fn release_of(name: &[u8], program: &[u8]) -> bool {
    name.strip_prefix(program).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"-"))
}

/// The part behind the last slash.
fn file_name(path: &[u8]) -> &[u8] {
    path.rsplit(|b| *b == b'/').next().unwrap_or(path)
}

/// `name` reduced to what may stand in a `vm_id`.
fn short_name(name: &[u8]) -> String {
    let safe = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let short: String = name.iter().filter(|b| safe(b)).take(MAX_VMM_BYTES).map(|b| char::from(*b)).collect();
    if short.is_empty() { Hypervisor::Unknown.as_str().to_owned() } else { short }
}

/// `raw` as a label, unless it is empty.
pub(crate) fn text(raw: &[u8]) -> Option<String> {
    if raw.is_empty() { None } else { Some(label(raw)) }
}

/// `raw` as a UUID in canonical lower case; `None` for any other form and for the nil UUID.
pub(super) fn uuid(raw: &[u8]) -> Option<String> {
    let shaped = raw.len() == 36
        && raw.iter().enumerate().all(|(at, b)| match at {
            8 | 13 | 18 | 23 => *b == b'-',
            _ => b.is_ascii_hexdigit(),
        });
    let nil = raw.iter().all(|b| matches!(b, b'0' | b'-'));
    if shaped && !nil { std::str::from_utf8(raw).ok().map(str::to_ascii_lowercase) } else { None }
}

/// `raw` as a believable number of vCPUs.
fn vcpus(raw: &[u8]) -> Option<u32> {
    let count: u32 = std::str::from_utf8(raw).ok()?.parse().ok()?;
    (1..=MAX_VCPUS).contains(&count).then_some(count)
}

/// `raw` as a size in bytes, a bare number counting `bare` bytes each; 0 is no size.
fn size(raw: &[u8], bare: crate::units::Bytes) -> Option<u64> {
    let text = std::str::from_utf8(raw).ok()?;
    let size = crate::units::Bytes::parse_with_default_unit(text, bare).ok()?;
    (size.get() > 0).then_some(size.get())
}

#[cfg(test)]
mod tests;
