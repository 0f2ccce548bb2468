//! Texts that are written once and copied often.

use super::label;

/// Texts, one behind the other.
#[derive(Debug, Default)]
pub struct Texts {
    all: Vec<u8>,
    ends: Vec<usize>,
}

impl Texts {
    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { all: Vec::new(), ends: Vec::new() }
    }

    /// Adds what is written; its place.
    pub fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> usize {
        write(&mut self.all);
        self.ends.push(self.all.len());
        self.ends.len() - 1
    }

    /// Adds `vm_id` and `name` of the next VM.
    pub fn push_vm(&mut self, vm_id: &str, name: &str) {
        self.push(|text| {
            label(text, "vm_id", vm_id);
            text.push(b',');
            label(text, "name", name);
        });
    }

    /// The one at a place.
    #[must_use]
    #[inline]
    pub fn of(&self, place: usize) -> &[u8] {
        let from = if place == 0 { 0 } else { self.ends[place - 1] };
        &self.all[from..self.ends[place]]
    }
}
