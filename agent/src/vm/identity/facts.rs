//! What a file says of a VM, and the clues on a command line that lead to such files.

use crate::vm::Owner;

/// What one file says. What it does not say is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The VMM's process: what a file says is believed of no other.
    pub pid: Option<u32>,
    /// The VM's name, made a label.
    pub name: Option<String>,
    /// Its UUID.
    pub uuid: Option<String>,
    /// vCPUs plugged in.
    pub vcpus: Option<u32>,
    /// Memory the guest has, in bytes.
    pub mem_bytes: Option<u64>,
    /// Tenant and labels.
    pub owner: Owner,
}

impl Facts {
    /// Fills in what is not said from what a source of less weight says.
    pub fn fill(&mut self, other: Self) {
        let Self { pid: _, name, uuid, vcpus, mem_bytes, owner } = other;
        self.name = self.name.take().or(name);
        self.uuid = self.uuid.take().or(uuid);
        self.vcpus = self.vcpus.or(vcpus);
        self.mem_bytes = self.mem_bytes.or(mem_bytes);
        self.owner.fill(owner);
    }
}

/// A VMM's own configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFile {
    /// How it is written.
    pub format: ConfigFormat,
    /// Where the VMM finds it: below its own root, or its working directory.
    pub path: Vec<u8>,
}

/// How a VMM's configuration file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigFormat {
    /// QEMU's, of `-readconfig`.
    Qemu,
    /// Firecracker's, of `--config-file`.
    Firecracker,
    /// crosvm's, of `--cfg`.
    Crosvm,
}

/// Files that may say more than the command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clues {
    /// The name under which libvirt would keep it.
    pub domain: Option<String>,
    /// Its number in Proxmox VE.
    pub proxmox: Option<u32>,
    /// The VMM's configuration file.
    pub config: Option<ConfigFile>,
    /// Whether the directory that Firecracker's jailer made is to tell its id.
    pub jail: bool,
}

impl Clues {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
