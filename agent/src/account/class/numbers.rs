//! Which number stands for which name of a class. A number whose name is gone stands for nothing until what was counted
//! under it is told and wiped: otherwise the next name would inherit it.

use std::sync::Arc;

use kvmeter_common::network::{CLASSES, EXTERNAL, NON_IP};

use super::Classes;

/// Why a reload cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NumbersError {
    /// Numbers of names that are gone are not free yet.
    #[error(
        "{new} network classes have new names, and only {free} places are free: those of names that are gone are used \
         again once their counts are told; reload again, or keep some of the old names"
    )]
    NoneFree {
        /// Names that have no number.
        new: usize,
        /// Numbers that have no name.
        free: usize,
    },
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Use {
    #[default]
    Free,
    Live(Arc<str>),
    /// The configuration has it no more; what was counted is its own still.
    Gone(Arc<str>),
}

/// Names by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numbers {
    uses: [Use; CLASSES],
}

impl Default for Numbers {
    fn default() -> Self {
        let mut uses = [const { Use::Free }; CLASSES];
        uses[EXTERNAL as usize] = Use::Live(super::EXTERNAL.into());
        uses[NON_IP as usize] = Use::Live(super::NON_IP.into());
        Self { uses }
    }
}

impl Numbers {
    /// As an earlier agent left them: names by number.
    #[must_use]
    pub fn of(names: &[Option<String>]) -> Self {
        let mut numbers = Self::default();
        for (used, name) in numbers.uses.iter_mut().zip(names).skip(NON_IP as usize + 1) {
            *used = name.as_deref().map_or(Use::Free, |name| Use::Live(name.into()));
        }
        numbers
    }

    /// The numbers after a reload: a name keeps its own, one that came back gets its old one again.
    ///
    /// # Errors
    /// When there are more new names than free numbers; `self` still holds then.
    pub fn after(&self, classes: &Classes) -> Result<Self, NumbersError> {
        let mut next = self.clone();
        for used in next.uses.iter_mut().skip(NON_IP as usize + 1) {
            if let Use::Live(name) | Use::Gone(name) = used {
                let name = Arc::clone(name);
                *used = if classes.prefixes.contains_key(&name) { Use::Live(name) } else { Use::Gone(name) };
            }
        }
        let new: Vec<_> = classes.prefixes.keys().filter(|name| next.number(name).is_none()).collect();
        let free = next.uses.iter().filter(|used| **used == Use::Free).count();
        if new.len() > free {
            return Err(NumbersError::NoneFree { new: new.len(), free });
        }
        for (used, name) in next.uses.iter_mut().filter(|used| **used == Use::Free).zip(new) {
            *used = Use::Live(Arc::clone(name));
        }
        Ok(next)
    }

    /// The number that new traffic of this name is counted under.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u16> {
        let live = |used: &Use| matches!(used, Use::Live(live) if &**live == name);
        self.uses.iter().position(live).and_then(|number| u16::try_from(number).ok())
    }

    /// Whose counts stand under this number; `None` if nobody's.
    #[must_use]
    pub fn name(&self, number: usize) -> Option<&Arc<str>> {
        match self.uses.get(number)? {
            Use::Free => None,
            Use::Live(name) | Use::Gone(name) => Some(name),
        }
    }

    /// The names by their numbers, those that are gone among them.
    #[must_use]
    pub fn names<const N: usize>(&self) -> [Option<Arc<str>>; N] {
        std::array::from_fn(|number| self.name(number).cloned())
    }

    /// Numbers of names that are gone: no program counts under them once the table that follows is in place.
    pub fn gone(&self) -> impl Iterator<Item = usize> {
        self.uses.iter().enumerate().filter_map(|(number, used)| matches!(used, Use::Gone(_)).then_some(number))
    }

    /// What was counted under the number of a name that is gone has been told and wiped.
    pub fn release(&mut self, number: usize) {
        if let Some(used @ Use::Gone(_)) = self.uses.get_mut(number) {
            *used = Use::Free;
        }
    }
}
