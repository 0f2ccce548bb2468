//! The operator's inventory: whose a VM is, by its UUID or name, in TOML or JSON.
//!
//! One table, `vms`, with a table for each VM: `tenant`, `labels`, nothing else. The first mistake refuses the whole
//! file, because half an inventory bills the wrong tenant.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::uuid;
use crate::vm::{Owner, owner::OwnerError};

/// Why a file is no inventory.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// It is not UTF-8.
    #[error("the inventory is not UTF-8")]
    Encoding(#[source] std::str::Utf8Error),
    /// It is no TOML, or has keys that mean nothing here.
    #[error("the inventory is not as it should be")]
    Toml(#[source] Box<toml::de::Error>),
    /// It is no JSON, or has keys that mean nothing here.
    #[error("the inventory is not as it should be")]
    Json(#[source] serde_json::Error),
    /// A VM's entry says what cannot be.
    #[error("the inventory's entry {vm:?} is wrong")]
    Entry {
        /// Which one.
        vm: String,
        /// What is wrong.
        #[source]
        source: OwnerError,
    },
    /// Two entries are about one UUID.
    #[error("the inventory has UUID {0} twice")]
    Twice(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    vms: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    tenant: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// A file that was read whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    by_uuid: BTreeMap<String, Owner>,
    by_name: BTreeMap<String, Owner>,
}

impl Inventory {
    /// Reads a file: JSON if it begins with a brace, which no TOML does.
    ///
    /// # Errors
    /// [`InventoryError`]; its chain names the line or the entry.
    pub fn parse(raw: &[u8]) -> Result<Self, InventoryError> {
        let text = std::str::from_utf8(raw).map_err(InventoryError::Encoding)?;
        let file: File = if text.trim_start().starts_with('{') {
            serde_json::from_str(text).map_err(InventoryError::Json)?
        } else {
            toml::from_str(text).map_err(|error| InventoryError::Toml(Box::new(error)))?
        };
        let mut inventory = Self::default();
        for (vm, entry) in file.vms {
            let owner = Owner::new(entry.tenant.as_deref(), &entry.labels);
            let owner = owner.map_err(|source| InventoryError::Entry { vm: super::label(vm.as_bytes()), source })?;
            match uuid(vm.as_bytes()) {
                Some(uuid) => {
                    if inventory.by_uuid.insert(uuid.clone(), owner).is_some() {
                        return Err(InventoryError::Twice(uuid));
                    }
                }
                None => drop(inventory.by_name.insert(vm, owner)),
            }
        }
        Ok(inventory)
    }

    /// What it says of a VM: by its UUID, else by its name, else by its `vm_id`.
    #[must_use]
    pub fn of(&self, uuid: &str, name: &str, vm_id: &str) -> Option<&Owner> {
        let by_name =
            || [name, vm_id].into_iter().filter(|name| !name.is_empty()).find_map(|name| self.by_name.get(name));
        self.by_uuid.get(uuid).or_else(by_name)
    }

    /// How many VMs it names.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_uuid.len() + self.by_name.len()
    }

    /// Whether it names none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UUID: &str = "6f1c2d3e-0000-4000-8000-0123456789ab";

    fn error(text: &str) -> String {
        crate::cause::chain(&Inventory::parse(text.as_bytes()).unwrap_err())
    }

    #[test]
    fn both_formats_say_the_same() {
        let toml = format!(
            "[vms.{UUID}]\ntenant = \"acme\"\nlabels = {{ tier = \"gold\" }}\n[vms.\"web 1\"]\ntenant = \"x\"\n"
        );
        let json = format!(
            r#"{{"vms":{{"{}":{{"tenant":"acme","labels":{{"tier":"gold"}}}},"web 1":{{"tenant":"x"}}}}}}"#,
            UUID.to_ascii_uppercase()
        );
        let inventory = Inventory::parse(toml.as_bytes()).unwrap();
        assert_eq!(inventory, Inventory::parse(json.as_bytes()).unwrap());
        let owner = inventory.of(UUID, "web 1", "").unwrap();
        assert_eq!((owner.tenant.as_deref(), owner.labels["tier"].as_str()), (Some("acme"), "gold"), "the UUID wins");
        assert_eq!(inventory.of("", "web 1", "").unwrap().tenant.as_deref(), Some("x"));
        assert_eq!(inventory.of("", "", "web 1").unwrap().tenant.as_deref(), Some("x"));
        assert!(inventory.of("", "", "").is_none() && inventory.of("x", "y", "z").is_none());
        assert_eq!((inventory.len(), Inventory::parse(b"").unwrap().is_empty()), (2, true));
    }

    #[test]
    fn a_mistake_is_named_and_refuses_the_whole_file() {
        assert!(error("[vms.a]\ntenant = 7").contains("line 2"), "{}", error("[vms.a]\ntenant = 7"));
        assert!(error("[vms.a]\nowner = \"x\"").contains("unknown field `owner`"));
        assert!(error("{\"vms\":{\"a\":{\"tenant\":1}}}").contains("line 1"));
        let long = format!("[vms.ok]\ntenant = \"a\"\n[vms.web]\ntenant = \"{}\"", "x".repeat(200));
        assert!(
            error(&long).contains("entry \"web\" is wrong: tenant is 200 bytes long, 128 are allowed"),
            "{}",
            error(&long)
        );
        let twice = format!("[vms.{UUID}]\n[vms.{}]", UUID.to_ascii_uppercase());
        assert!(error(&twice).contains("twice"));
        assert!(Inventory::parse(b"\xff").is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(raw in prop::collection::vec(any::<u8>(), 0..200), text in "(\\[vms\\.|\\]|\\{|\\}|\"|=|:|a|labels|tenant|\n|,){0,60}") {
            for raw in [raw.as_slice(), text.as_bytes()] {
                if let Ok(inventory) = Inventory::parse(raw) {
                    prop_assert!(inventory.of("", "", "").is_none());
                }
            }
        }
    }
}
