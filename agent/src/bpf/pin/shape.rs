//! Which tables outlive an agent, what each must look like, and the one word that stands for all of it.
//!
//! The kernel's own word on a pinned map is compared to what this object declares: tables of another layout are never
//! counted into.

use std::fmt::Write as _;

use aya::maps::{MapData, MapInfo};
use aya_obj::{Object, generated::bpf_map_type};
use kvmeter_common::header::Header;
use sha2::{Digest as _, Sha256};

use super::PinError;
use crate::bpf::object::{OBJECT, Sizes};

/// `BPF_F_MMAPABLE` (uapi/linux/bpf.h).
const MMAPABLE: u32 = 1 << 10;

/// The agent's own, which no program reads.
pub(super) const HEADER: &str = "HEADER";
/// Sections of the object that are maps: their names there and where they are pinned (a pin's name has no dot). The
/// loader writes into a data map at each load, so what is pinned takes the place of its own afterwards.
pub(super) const SECTIONS: [(&str, &str); 2] = [(".bss.near", "NEAR"), (CURRENT, "CURRENT")];
/// The section that says which generation counts.
pub(super) const CURRENT: &str = ".bss.generation";
/// The other tables. What is not here is made anew by each agent: wake-ups, scratch, and what the agent itself fills.
pub(super) const TABLES: [&str; 11] = [
    "CLAIMS",
    "FREE_THREADS",
    "FREE_VMS",
    "LOSSES",
    "SIGNALS",
    "THREADS",
    "TIDS",
    "VCPUS",
    "VMS",
    "VM_ARGS",
    "VM_OF_TGID",
];

/// What a map is declared as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    kind: u32,
    key_bytes: u32,
    value_bytes: u32,
    entries: u32,
    flags: u32,
}

/// Every pinned map by the name of its pin, with the shape it must have.
pub(super) struct Layout(Vec<(&'static str, Shape)>);

impl Layout {
    /// As this agent's object declares it, with these sizes.
    pub(super) fn of(sizes: Sizes) -> Result<Self, PinError> {
        let object = Object::parse(OBJECT).map_err(|error| PinError::Object(Box::new(error)))?;
        let entries = sizes.entries();
        let shape = |name: &str| -> Result<Shape, PinError> {
            let map = object.maps.get(name).ok_or_else(|| PinError::NoMap(name.to_owned()))?;
            let entries = entries.iter().find(|(of, _)| *of == name).map_or(map.max_entries(), |(_, entries)| *entries);
            Ok(Shape {
                kind: map.map_type(),
                key_bytes: map.key_size(),
                value_bytes: map.value_size(),
                entries,
                flags: map.map_flags(),
            })
        };
        let mut all = vec![(HEADER, header())];
        for (section, pin) in SECTIONS {
            all.push((pin, shape(section)?));
        }
        for name in TABLES {
            all.push((name, shape(name)?));
        }
        Ok(Self(all))
    }

    /// Sixteen hexadecimal digits that differ where anything of it does.
    pub(super) fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for (name, shape) in &self.0 {
            hash.update(format!("{name} {shape:?}\n"));
        }
        hash.finalize().iter().take(8).fold(String::new(), |mut text, byte| {
            // Writing into a text cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// Each pin's name with its shape.
    pub(super) fn each(&self) -> impl Iterator<Item = (&'static str, Shape)> + '_ {
        self.0.iter().copied()
    }
}

impl Shape {
    /// What the kernel says of a map.
    pub(super) fn told(map: &MapData) -> Result<Self, PinError> {
        let info: MapInfo = map.info().map_err(|error| PinError::Map(Box::new(error)))?;
        Ok(Self {
            kind: info.map_type().map_err(|error| PinError::Map(Box::new(error)))? as u32,
            key_bytes: info.key_size(),
            value_bytes: info.value_size(),
            entries: info.max_entries(),
            flags: info.map_flags(),
        })
    }
}

/// Shape of the agent's own table.
fn header() -> Shape {
    let value_bytes = u32::try_from(size_of::<Header>()).unwrap_or(u32::MAX);
    Shape { kind: bpf_map_type::BPF_MAP_TYPE_ARRAY as u32, key_bytes: 4, value_bytes, entries: 1, flags: MMAPABLE }
}

/// Makes the agent's own table.
pub(super) fn make_header() -> Result<MapData, PinError> {
    let Shape { kind, key_bytes, value_bytes, entries, flags } = header();
    let map = aya_obj::Map::new_from_params(kind, key_bytes, value_bytes, entries, flags);
    MapData::create(map, HEADER, None).map_err(|error| PinError::Map(Box::new(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: Sizes = Sizes { threads: 64, vms: 8, pid_max: 32_768, wake_bytes: 4_096 };

    #[test]
    fn another_size_of_any_table_is_another_layout() {
        let digest = |sizes| Layout::of(sizes).expect("the object has all tables").digest();
        assert_eq!(digest(SIZES), digest(SIZES));
        assert_eq!(digest(SIZES).len(), 16);
        for other in [Sizes { threads: 65, ..SIZES }, Sizes { vms: 9, ..SIZES }, Sizes { pid_max: 65_536, ..SIZES }] {
            assert_ne!(digest(other), digest(SIZES), "{other:?}");
        }
    }
}
