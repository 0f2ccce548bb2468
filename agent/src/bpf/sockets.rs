//! Counting the bytes of a control group's sockets: two programs on a group of version 2, gone when dropped.

#![expect(deprecated, reason = "its successor takes Linux 6.2; this one serves from 4.19 to today")]

use std::{fs::File, os::unix::fs::MetadataExt as _, path::Path};

use aya::{
    Ebpf,
    maps::{CgroupStorage, MapData, cgroup_storage::CgroupStorageKey},
    programs::{CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, Program, cgroup_skb::CgroupSkbLink},
};

use super::{kernel::typed, object::chain};

/// The programs.
pub(super) const PROGRAMS: [&str; 2] = ["host_socket_receive", "host_socket_transmit"];
/// The way each counts.
const WAYS: [CgroupSkbAttachType; 2] = [CgroupSkbAttachType::Ingress, CgroupSkbAttachType::Egress];
/// `BPF_CGROUP_INET_INGRESS` and `BPF_CGROUP_INET_EGRESS` (uapi/linux/bpf.h): part of a counter's key.
const KEYS: [u32; 2] = [0, 1];

/// Bytes of the sockets of one group, as their owner sees them: L3 length, from the IP header on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketBytes {
    /// Received.
    pub receive: u64,
    /// Sent.
    pub transmit: u64,
}

/// The programs on one group. Dropping it takes them off, and their counters go with them.
pub struct CountedGroup {
    id: u64,
    _links: Vec<CgroupSkbLink>,
}

/// The kernel's counters of all groups.
pub struct Sockets(CgroupStorage<MapData, u64>);

impl Sockets {
    /// `None` where the kernel has no such counters, so that another map stands there.
    pub(super) fn new(ebpf: &mut Ebpf) -> Option<Self> {
        typed(ebpf, "SOCKET_BYTES").ok().map(Self)
    }

    /// Puts both programs on a group, beside those of others.
    ///
    /// # Errors
    /// One line that says why not: the program is not loaded, or the kernel refused (a program that stands alone on a
    /// group above does not allow others).
    pub fn count(ebpf: &mut Ebpf, dir: &Path) -> Result<CountedGroup, String> {
        let group = File::open(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let id = group.metadata().map_err(|error| format!("{}: {error}", dir.display()))?.ino();
        let mut links = Vec::with_capacity(WAYS.len());
        for (name, way) in PROGRAMS.into_iter().zip(WAYS) {
            let program: &mut CgroupSkb = match ebpf.program_mut(name) {
                Some(Program::CgroupSkb(program)) => program,
                _ => return Err(format!("program {name} is not in the object")),
            };
            // A link is always one of several (`cgroup_bpf_link_attach`, kernel/bpf/cgroup.c): it sets BPF_F_ALLOW_MULTI
            // itself and refuses to be told so.
            let link = program.attach(&group, way, CgroupAttachMode::Single).map_err(|error| chain(&error))?;
            links.push(program.take_link(link).map_err(|error| chain(&error))?);
        }
        Ok(CountedGroup { id, _links: links })
    }

    /// What has been counted on a group since the programs came.
    ///
    /// # Errors
    /// When the kernel has no counter for it any more: the group was removed.
    pub fn read(&self, group: &CountedGroup) -> std::io::Result<SocketBytes> {
        let [receive, transmit] =
            KEYS.map(|way| self.0.get(CgroupStorageKey::new(group.id, way), 0).map_err(std::io::Error::other));
        Ok(SocketBytes { receive: receive?, transmit: transmit? })
    }
}
