//! The object on a kernel without counters of control groups (`CONFIG_CGROUP_BPF`), which lacks their type of map.
//!
//! The loader makes each map of the object or fails as a whole, so this one would cost every measurement. There its
//! declaration becomes that of a plain array, and the programs that use it are not loaded; nothing else is changed.

use aya::{maps::MapType, sys::is_map_supported};
use aya_obj::generated::bpf_map_type;

use super::{plan::Unwanted, sockets::PROGRAMS};

const WHY: &str = "this kernel has no counters for control groups (CONFIG_CGROUP_BPF)";

/// Bytes of `struct bpf_cgroup_storage_key`.
const KEY_BYTES: u32 = 16;
/// How the map begins where the object declares it: type, bytes of a key and of a value, elements.
const DECLARED: [u32; 4] = [bpf_map_type::BPF_MAP_TYPE_CGROUP_STORAGE as u32, KEY_BYTES, 8, 0];
const STAND_IN: [u32; 4] = [bpf_map_type::BPF_MAP_TYPE_ARRAY as u32, 4, 8, 1];

/// Whether this kernel has them, by trying. What cannot be found out is left to the loader to tell.
pub(super) fn exist() -> bool {
    is_map_supported(MapType::CgroupStorage).unwrap_or(true)
}

/// The programs that cannot be without them.
pub(super) fn unwanted() -> impl Iterator<Item = Unwanted> {
    PROGRAMS.into_iter().map(|program| Unwanted { program, why: WHY })
}

/// The object with a map in its place that every kernel has; `None` unless it is declared exactly once.
pub(super) fn replaced(object: &[u8]) -> Option<Vec<u8>> {
    let declared = bytes(DECLARED);
    let mut places = object.windows(declared.len()).enumerate().filter(|(_, window)| *window == declared);
    let (Some((at, _)), None) = (places.next(), places.next()) else { return None };
    let mut copy = object.to_vec();
    copy.get_mut(at..at + declared.len())?.copy_from_slice(&bytes(STAND_IN));
    Some(copy)
}

fn bytes(words: [u32; 4]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        bpf::{
            Kernel, Setup, State,
            object::{KERNEL_BTF, OBJECT, Sizes},
            records,
        },
        host::tracefs,
        vm::{exit_class, thread},
    };

    #[test]
    fn only_the_one_map_is_declared_otherwise() {
        let copy = replaced(OBJECT).expect("declared once");
        let (before, after) =
            (aya_obj::Object::parse(OBJECT).expect("parses"), aya_obj::Object::parse(&copy).expect("parses"));
        assert_eq!(before.maps.len(), after.maps.len());
        for (name, map) in &before.maps {
            let shape = |map: &aya_obj::Map| [map.map_type(), map.key_size(), map.value_size(), map.max_entries()];
            let due = if name == "SOCKET_BYTES" { STAND_IN } else { shape(map) };
            assert_eq!(shape(&after.maps[name]), due, "{name}");
        }
        assert_eq!(before.maps["SOCKET_BYTES"].map_type(), DECLARED[0]);
        assert!(replaced(&copy).is_none(), "nothing is left to be replaced");
        assert!(replaced(&[OBJECT, OBJECT].concat()).is_none(), "which one is not known");
    }

    #[test]
    fn a_kernel_without_them_loses_the_sockets_and_nothing_else() {
        let formats = records::events().into_iter().map(|event| (event, tracefs::format(Path::new("/"), event)));
        let setup = Setup {
            sizes: Sizes { threads: 64, vms: 8, pid_max: 4_194_304, wake_bytes: 4_096 },
            rules: thread::RULES.to_vec(),
            exit_classes: exit_class::TABLE,
            formats: formats.collect(),
            unwanted: Vec::new(),
            pins: None,
            log: false,
        };
        let start = |there| Kernel::start_on(&setup, Path::new(KERNEL_BTF), there).map_err(|(error, _)| error);
        let at_work = |kernel: &Kernel| -> Vec<&str> {
            kernel.statuses().iter().filter(|s| s.state == State::Attached).map(|s| s.name).collect()
        };
        let with = start(true).expect("needs root");
        let without = start(false).expect("the others load");
        let due: Vec<_> = at_work(&with).into_iter().filter(|name| !PROGRAMS.contains(name)).collect();
        assert_eq!(at_work(&without), due);
        for status in without.statuses().iter().filter(|status| PROGRAMS.contains(&status.name)) {
            assert_eq!(status.state, State::Refused(WHY.to_owned()));
        }
        assert!(!without.has("host_socket_receive") && with.has("host_socket_receive"));
    }
}
