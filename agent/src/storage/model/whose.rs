//! Whose the VMs are that files are stored for: their tenant and labels, on the lines that begin and end an interval. It is
//! kept while anything of the VM is stored, also when it does not run, and comes back with the ledger.

use std::collections::{BTreeMap, BTreeSet};

use super::Model;
use crate::ledger::{Draft, Kind, OpenStorage};

/// Owners of VMs of which nothing is stored, kept at most.
const IDLE: usize = 1_024;

/// Whose one VM is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Whose {
    tenant: String,
    labels: BTreeMap<String, String>,
}

impl Model {
    /// A VM's tenant and labels, as far as they are known; what is left empty stands as it was.
    pub fn belongs(&mut self, vm_id: &str, tenant: &str, labels: &BTreeMap<String, String>) {
        if vm_id.is_empty() || (tenant.is_empty() && labels.is_empty()) {
            return;
        }
        let whose = self.whose.entry(vm_id.to_owned()).or_default();
        if !tenant.is_empty() {
            tenant.clone_into(&mut whose.tenant);
        }
        if !labels.is_empty() {
            whose.labels.clone_from(labels);
        }
    }

    pub(super) fn resume_whose(&mut self, storage: &OpenStorage) {
        // What a snapshot's own line told is older than what lines about the VM itself told since.
        if storage.kind == Kind::VmStorageStart || !self.whose.contains_key(&storage.vm_id) {
            self.belongs(&storage.vm_id, &storage.tenant, &storage.labels);
        }
    }

    /// Says on lines whose the VM is that they name, and lets go what no line can name any more.
    pub(super) fn say_whose(&mut self, lines: &mut [Draft]) {
        for draft in lines.iter_mut().filter(|draft| names_whose(draft.kind)) {
            if let Some(whose) = self.whose.get(&draft.vm_id) {
                draft.tenant.clone_from(&whose.tenant);
                draft.labels.clone_from(&whose.labels);
            }
        }
        if self.whose.len() > self.vms.len() + IDLE {
            let things = self.files.values().filter_map(|file| file.interval.as_ref());
            let stored: BTreeSet<String> = things.map(|thing| thing.vm_id.clone()).collect();
            self.whose.retain(|vm_id, _| self.vms.contains_key(vm_id) || stored.contains(vm_id));
        }
    }
}

/// Whether lines of a kind say whose the VM is: those that begin and end an interval.
#[must_use]
pub const fn names_whose(kind: Kind) -> bool {
    matches!(kind, Kind::VmStorageStart | Kind::VmStorageStop | Kind::SnapStorageStart | Kind::SnapStorageStop)
}
