//! Connections of a VM whose packets no program on this host's kernel can count: vhost-user, vhost-vdpa, vfio.
//!
//! Each is told with its reason; none is ever a zero. What the command line and the open files do not show (a device
//! added by a VMM's control socket without a file of its own) is not known here.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use crate::account::network::InterfaceKind;

mod cmdline;

/// At most so many are told of one VM.
const MAX_DEVICES: usize = 256;

/// A connection whose packets cannot be counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passthrough {
    /// What it is called: a PCI address, a vdpa device, the VMM's own name of a network device.
    pub name: String,
    /// How the VM is connected.
    pub kind: InterfaceKind,
    /// Why its packets are not counted.
    pub reason: String,
}

/// Everything a process is connected by that cannot be counted, from its arguments and the devices it holds.
#[must_use]
pub fn find(root: &Path, args: &[Vec<u8>], devices: &[PathBuf]) -> Vec<Passthrough> {
    let mut found: BTreeMap<String, Passthrough> = BTreeMap::new();
    let line = cmdline::read(args);
    for name in line.vhost_user {
        let reason = "vhost-user: a user-space switch moves the packets past the kernel".to_owned();
        found.insert(name.clone(), Passthrough { name, kind: InterfaceKind::VhostUser, reason });
    }
    for device in devices {
        for passed in of_device(root, device) {
            // A vdpa device may be a disk; only the VMM's arguments say so.
            let disk = line.vdpa_disks.iter().any(|disk| disk.ends_with(&passed.name));
            if !disk && found.len() < MAX_DEVICES {
                found.insert(passed.name.clone(), passed);
            }
        }
    }
    found.into_values().collect()
}

fn of_device(root: &Path, device: &Path) -> Vec<Passthrough> {
    let Some(name) = device.file_name().and_then(|name| name.to_str()) else { return Vec::new() };
    if name.starts_with("vhost-vdpa-") {
        let reason = "vhost-vdpa: the device moves the packets past the kernel".to_owned();
        return vec![Passthrough { name: name.to_owned(), kind: InterfaceKind::Vdpa, reason }];
    }
    let devices = if name.parse::<u32>().is_ok() {
        // A group: all its devices go together; those that vfio does not drive stay with the host.
        let group = root.join("sys/kernel/iommu_groups").join(name).join("devices");
        fs::read_dir(group).map(|list| list.flatten().map(|entry| entry.path()).collect()).unwrap_or_default()
    } else if name.starts_with("vfio") && name != "vfio" {
        // A device of its own (`/dev/vfio/devices/vfioN`, iommufd).
        vec![root.join("sys/class/vfio-dev").join(name).join("device")]
    } else {
        Vec::new()
    };
    devices.iter().filter_map(|device| function(device)).collect()
}

/// A PCI function, if it is a network device (class 0x02) that vfio drives.
fn function(device: &Path) -> Option<Passthrough> {
    let class = fs::read_to_string(device.join("class")).ok()?;
    if !class.trim().starts_with("0x02") {
        return None;
    }
    let target = |path: PathBuf| {
        let target = fs::canonicalize(path).ok()?;
        Some(target.file_name()?.to_str()?.to_owned())
    };
    if target(device.join("driver")).is_some_and(|driver| !driver.contains("vfio")) {
        return None;
    }
    let name = target(device.to_owned())?;
    let reason = match target(device.join("physfn")) {
        Some(parent) => format!("vfio: virtual function of {parent} (SR-IOV), passed through to the guest"),
        None => "vfio: network device passed through to the guest".to_owned(),
    };
    Some(Passthrough { name, kind: InterfaceKind::Vfio, reason })
}

#[cfg(test)]
mod tests;
