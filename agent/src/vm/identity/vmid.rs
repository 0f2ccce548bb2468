//! The names a VM is published under: its incarnation and its `vm_id`.
//!
//! Both are fixed when the start line of the ledger is written, so these functions are called once a VM and their
//! results kept. The rules are the contract's; a change here renames every VM on every dashboard.

use sha2::{Digest, Sha256};

use super::Identity;
use crate::units::Tgid;

/// The longest name that can serve as a `vm_id`, in bytes.
const MAX_ID_BYTES: usize = 64;

/// How much of a boot id goes into an incarnation, in hex digits.
const BOOT_DIGITS: usize = 12;

/// `<first 12 hex of boot_id>-<tgid>-<start_ns>`: one life of one process.
///
/// `boot_id` is the text of `/proc/sys/kernel/random/boot_id`; `start_ns` the leader's start on CLOCK_BOOTTIME.
#[must_use]
pub fn incarnation(boot_id: &str, tgid: Tgid, start_ns: u64) -> String {
    let boot: String = boot_id.chars().filter(char::is_ascii_hexdigit).take(BOOT_DIGITS).collect();
    format!("{}-{tgid}-{start_ns}", boot.to_ascii_lowercase())
}

/// The UUID if the VM has one, else its name, else its VMM's id, where these match `[A-Za-z0-9._:-]{1,64}`, else
/// [`fallback_vm_id`].
#[must_use]
pub fn vm_id(identity: &Identity, tgid: Tgid, incarnation: &str) -> String {
    let named = [identity.name.as_deref(), identity.vmm_id.as_deref()].into_iter().flatten().find(|id| is_vm_id(id));
    match identity.uuid.as_deref().or(named) {
        Some(id) => id.to_owned(),
        None => fallback_vm_id(&identity.vmm, tgid, incarnation),
    }
}

/// `<vmm>-<tgid>-<8 hex of SHA-256(incarnation)>`: for a VM without a usable name, or whose `vm_id` is taken.
#[must_use]
pub fn fallback_vm_id(vmm: &str, tgid: Tgid, incarnation: &str) -> String {
    let digest = Sha256::digest(incarnation.as_bytes());
    let mark: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    format!("{vmm}-{tgid}-{mark}")
}

/// Whether `text` may stand as a `vm_id`: it matches `[A-Za-z0-9._:-]{1,64}`.
#[must_use]
pub fn is_vm_id(text: &str) -> bool {
    (1..=MAX_ID_BYTES).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOOT: &str = "3D1219c7-c4c5-404a-aa1f-6d2a48adfda4";

    fn anonymous() -> Identity {
        Identity { vmm: "qemu".into(), ..Identity::default() }
    }

    #[test]
    fn an_incarnation_is_boot_process_and_start() {
        assert_eq!(incarnation(BOOT, Tgid(42), 7_000_000_001), "3d1219c7c4c5-42-7000000001");
    }

    #[test]
    fn the_uuid_wins_then_the_name_then_the_id_of_the_vmm() {
        let uuid = "6f1c2d3e-0000-4000-8000-0123456789ab";
        let mut vm = Identity { vmm_id: Some("fc-1".into()), ..anonymous() };
        assert_eq!(vm_id(&vm, Tgid(1), "i"), "fc-1");
        vm.name = Some("web".into());
        assert_eq!(vm_id(&vm, Tgid(1), "i"), "web");
        vm.uuid = Some(uuid.into());
        assert_eq!(vm_id(&vm, Tgid(1), "i"), uuid);
    }

    #[test]
    fn a_name_outside_the_pattern_is_passed_over() {
        for name in ["", "two words", "a/b", "größe", &"x".repeat(65)] {
            let vm = Identity { name: Some(name.into()), vmm_id: Some("ok".into()), ..anonymous() };
            assert_eq!(vm_id(&vm, Tgid(1), "i"), "ok", "{name}");
        }
    }

    #[test]
    fn the_fallback_hashes_the_incarnation() {
        // printf abc | sha256sum → ba7816bf…
        assert_eq!(vm_id(&anonymous(), Tgid(42), "abc"), "qemu-42-ba7816bf");
    }

    proptest! {
        #[test]
        fn every_vm_id_matches_the_pattern(name in proptest::option::of("\\PC{0,80}"), tgid in any::<u32>(), start in any::<u64>()) {
            let vm = Identity { name, ..anonymous() };
            prop_assert!(is_vm_id(&vm_id(&vm, Tgid(tgid), &incarnation(BOOT, Tgid(tgid), start))));
        }
    }
}
