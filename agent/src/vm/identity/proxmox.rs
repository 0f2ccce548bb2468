//! A VM's file of Proxmox VE, `/etc/pve/qemu-server/<number>.conf`: name, shape, tags.
//!
//! Source: Proxmox VE's manual, `qm.conf(5)`. Sections in brackets are snapshots and tell nothing of now.

use super::{Facts, MAX_VCPUS, text, vcpus};
use crate::units::Bytes;
use crate::vm::Owner;

/// Reads a file.
#[must_use]
pub fn parse(raw: &[u8], number: u32) -> Facts {
    let text_of_file = String::from_utf8_lossy(raw);
    let now = text_of_file.lines().take_while(|line| !line.trim_start().starts_with('['));
    let pairs: Vec<(&str, &str)> =
        now.filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(':')).collect();
    let value = |key: &str| pairs.iter().rfind(|(name, _)| name.trim() == key).map(|(_, value)| value.trim());
    let count = |key: &str| value(key).map_or(Some(1), |count| vcpus(count.as_bytes()));
    let product = count("sockets").zip(count("cores")).and_then(|(sockets, cores)| sockets.checked_mul(cores));
    let number = number.to_string();
    let labels = [("proxmox.vmid", Some(number.as_str())), ("proxmox.tags", value("tags"))];
    let labels = labels.into_iter().filter_map(|(key, value)| Some((key, value.filter(|text| !text.is_empty())?)));
    Facts {
        name: value("name").and_then(|name| text(name.as_bytes())),
        vcpus: value("vcpus").and_then(|count| vcpus(count.as_bytes())).or(product.filter(|count| *count <= MAX_VCPUS)),
        mem_bytes: value("memory").and_then(memory),
        owner: Owner::heard(None, labels),
        ..Facts::default()
    }
}

/// `2048` or `current=2048`, in MiB.
fn memory(value: &str) -> Option<u64> {
    let first = value.split(',').next()?;
    super::size(first.strip_prefix("current=").unwrap_or(first).as_bytes(), Bytes::mib(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_file_tells_name_shape_and_tags_of_now() {
        let file = "#notes\nboot: order=scsi0\ncores: 2\nmemory: 2048\nname: web1\nsockets: 2\ntags: prod;web\n\n\
                    [before-upgrade]\ncores: 8\nname: old\n";
        let facts = parse(file.as_bytes(), 100);
        assert_eq!((facts.name.as_deref(), facts.vcpus, facts.mem_bytes), (Some("web1"), Some(4), Some(2 << 30)));
        assert_eq!(
            (facts.owner.labels["proxmox.vmid"].as_str(), facts.owner.labels["proxmox.tags"].as_str()),
            ("100", "prod;web")
        );
        assert_eq!(facts.owner.tenant, None);
        assert_eq!(parse(b"memory: current=512\nvcpus: 3\ncores: 8", 1).vcpus, Some(3));
    }

    proptest! {
        #[test]
        fn no_file_makes_it_panic(raw in "([a-z]{0,8}:? ?[0-9]{0,20}\n|\\[|#|\\PC){0,60}") {
            let facts = parse(raw.as_bytes(), 1);
            prop_assert!(facts.vcpus != Some(0) && facts.mem_bytes != Some(0));
        }
    }
}
