//! What says who a VM is, of any bytes: command lines, libvirt's documents, configuration files, control groups and the
//! inventory. No panic, no hang, and every text that is told is bounded, UTF-8 and without control characters.
#![no_main]

use kvmeter::{
    units::Tgid,
    vm::{
        Owner,
        identity::{self, Argv, ConfigFormat, Facts, Inventory, config, domain, proxmox, scope},
    },
};
use libfuzzer_sys::fuzz_target;

const NAMES: [&str; 7] = ["kvm", "firecracker", "cloud-hypervisor", "crosvm", "lkvm", "my-vmm", ""];

fn bounded(text: &str) {
    assert!(text.len() <= 128 && !text.chars().any(char::is_control), "{text:?}");
}

fn owner(owner: &Owner) {
    assert!(owner.labels.len() <= 16);
    owner.tenant.iter().chain(owner.labels.keys()).chain(owner.labels.values()).for_each(|text| bounded(text));
}

fn facts(facts: &Facts) {
    assert!(facts.vcpus != Some(0) && facts.mem_bytes != Some(0));
    facts.name.iter().chain(&facts.uuid).for_each(|text| bounded(text));
    owner(&facts.owner);
}

fn command_line(name: &str, raw: &[u8], truncated: bool) {
    let vm = identity::identify(&Argv::parse(raw, truncated), b"x", Some(name.as_bytes()));
    assert!(vm.vcpus != Some(0) && vm.mem_bytes != Some(0));
    vm.name.iter().chain(&vm.uuid).chain(&vm.vmm_id).for_each(|text| bounded(text));
    assert!(identity::is_vm_id(&identity::vm_id(&vm, Tgid(u32::MAX), "i")));
    if let Some(name) = &vm.clues.domain {
        assert!(!name.contains('/') && !name.starts_with('.') && !name.is_empty());
    }
}

fuzz_target!(|data: &[u8]| {
    let (kind, raw) = data.split_first().unwrap_or((&0, &[]));
    match kind % 8 {
        0 | 1 => command_line(NAMES[usize::from(kind / 8) % NAMES.len()], raw, kind % 8 == 1),
        2 => drop(domain::parse(raw).map(|told| facts(&told))),
        3 => drop(Inventory::parse(raw).map(|told| told.of("", "a", "").into_iter().for_each(owner))),
        4 => drop(config::parse(ConfigFormat::Qemu, raw).map(|told| facts(&told))),
        5 => drop(config::parse(ConfigFormat::Firecracker, raw).map(|told| facts(&told))),
        6 => facts(&proxmox::parse(raw, 1)),
        _ => {
            let told = scope::read(&String::from_utf8_lossy(raw));
            told.name.iter().chain(&told.pod_uid).for_each(|text| bounded(text));
        }
    }
});
