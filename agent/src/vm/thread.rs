//! What a VMM's threads are called: the table by which the kernel programs tell its I/O threads from the rest.
//!
//! The kernel marks no thread as doing I/O. Where a VMM gives no names, or does its I/O in its main thread, that time
//! is the VMM's. Sources: each VMM's own code, as named beside its rows.

use kvmeter_common::{
    name::{Rule, family},
    thread::role,
};

use super::identity::Hypervisor;

/// The number of a VMM's family in the kernel's tables.
#[must_use]
pub const fn family_of(hypervisor: Hypervisor) -> u32 {
    match hypervisor {
        Hypervisor::Unknown => family::ANY,
        Hypervisor::Qemu => 1,
        Hypervisor::Firecracker => 2,
        Hypervisor::CloudHypervisor => 3,
        Hypervisor::Crosvm => 4,
        Hypervisor::Kvmtool => 5,
    }
}

const fn leader(name: &[u8], whole: bool, is: Hypervisor) -> Rule {
    Rule::new(name, whole, family::LEADER, family_of(is))
}

const fn io(name: &[u8], whole: bool, of: Hypervisor) -> Rule {
    Rule::new(name, whole, family_of(of), role::IO)
}

/// All rules; the first that matches decides. A kernel name holds 15 bytes, so longer ones are compared that far.
pub const RULES: &[Rule] = &[
    leader(b"qemu-", false, Hypervisor::Qemu),
    // Proxmox' QEMU, and the wrapper of old distributions.
    leader(b"kvm", true, Hypervisor::Qemu),
    leader(b"firecracker", false, Hypervisor::Firecracker),
    leader(b"cloud-hypervisor", false, Hypervisor::CloudHypervisor),
    leader(b"crosvm", false, Hypervisor::Crosvm),
    leader(b"lkvm", false, Hypervisor::Kvmtool),
    leader(b"kvmtool", false, Hypervisor::Kvmtool),
    // Kernel threads inside the process: io_uring's (io_uring/io-wq.c, io_uring/sqpoll.c), vhost's since 6.4
    // (drivers/vhost/vhost.c).
    io(b"iou-wrk-", false, Hypervisor::Unknown),
    io(b"iou-sqp-", false, Hypervisor::Unknown),
    Rule::new(b"vhost-", false, family::ANY, role::VHOST),
    // QEMU with `-name …,debug-threads=on`, as libvirt starts it: iothread.c and util/thread-pool.c.
    io(b"IO ", false, Hypervisor::Qemu),
    io(b"worker", true, Hypervisor::Qemu),
    // Cloud Hypervisor's device ids (vmm/src/device_manager.rs), which its virtio threads are named after.
    io(b"_disk", false, Hypervisor::CloudHypervisor),
    io(b"_net", false, Hypervisor::CloudHypervisor),
    io(b"_fs", false, Hypervisor::CloudHypervisor),
    io(b"_pmem", false, Hypervisor::CloudHypervisor),
    io(b"_vsock", false, Hypervisor::CloudHypervisor),
    // crosvm's virtio workers (devices/src/virtio).
    io(b"v_block", false, Hypervisor::Crosvm),
    io(b"v_net", false, Hypervisor::Crosvm),
    io(b"v_fs", false, Hypervisor::Crosvm),
    io(b"v_pmem", false, Hypervisor::Crosvm),
    // kvmtool's (virtio/blk.c, virtio/net.c, util/threadpool.c).
    io(b"virtio-blk", false, Hypervisor::Kvmtool),
    io(b"virtio-net", false, Hypervisor::Kvmtool),
    io(b"threadpool-work", false, Hypervisor::Kvmtool),
];

const _: () = assert!(RULES.len() <= kvmeter_common::limits::NAME_RULES, "the kernel's table holds them all");

#[cfg(test)]
mod tests {
    use super::*;
    use kvmeter_common::name::words;

    fn first(name: &[u8], about: u32) -> Option<u32> {
        let mut bytes = [0; 16];
        bytes[..name.len()].copy_from_slice(name);
        // As the kernel programs do: the rules, and none behind them.
        let rules = RULES.iter().copied().chain([Rule::default()]);
        let told = rules.clone().find(|rule| rule.ends(words(bytes), about)).and_then(|rule| rule.gift());
        let meant = |rule: &Rule| rule.family == about || (rule.family == family::ANY && about != family::LEADER);
        let plain =
            RULES.iter().filter(|rule| meant(rule)).find(|rule| rule.matches(words(bytes))).map(|rule| rule.gives);
        assert_eq!(told, plain, "{name:?} of {about}");
        told
    }

    #[test]
    fn a_family_is_told_by_its_leaders_name_cut_as_the_kernel_cuts_it() {
        assert_eq!(first(b"qemu-system-x86", family::LEADER), Some(family_of(Hypervisor::Qemu)));
        assert_eq!(first(b"cloud-hypervisor".get(..15).unwrap(), family::LEADER), Some(3));
        assert_eq!(first(b"kvm", family::LEADER), Some(family_of(Hypervisor::Qemu)));
        assert_eq!(first(b"kvm-pit/7", family::LEADER), None);
        assert_eq!(first(b"vhost-7", family::LEADER), None);
    }

    #[test]
    fn a_name_means_io_only_in_the_family_it_belongs_to() {
        let qemu = family_of(Hypervisor::Qemu);
        assert_eq!(first(b"IO iothread0", qemu), Some(role::IO));
        assert_eq!(first(b"worker", qemu), Some(role::IO));
        assert_eq!(first(b"worker-2", qemu), None);
        assert_eq!(first(b"CPU 0/KVM", qemu), None);
        assert_eq!(first(b"IO iothread0", family_of(Hypervisor::Crosvm)), None);
        assert_eq!(first(b"worker", family::ANY), None);
    }

    #[test]
    fn the_kernels_own_workers_are_known_in_every_family() {
        for family in 0..6 {
            assert_eq!(first(b"iou-wrk-4711", family), Some(role::IO));
            assert_eq!(first(b"vhost-4711", family), Some(role::VHOST));
        }
    }
}
