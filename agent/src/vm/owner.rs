//! Whose a VM is: tenant, labels, and a name or UUID learned after its start line. Several tell it, in a fixed order of
//! weight ([`Teller`]), and [`Owners`] merges them. Pure.
//!
//! Every text is a [`label`](super::identity::label): valid UTF-8, without control characters, at most 128 bytes.
//! [`Owner::new`] refuses what is too much, for those who can be told; [`Owner::heard`] cuts it, for files of others.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::identity::{MAX_LABEL_BYTES, label};

/// Labels of one VM.
pub const MAX_LABELS: usize = 16;

/// Why something cannot be an owner's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OwnerError {
    /// A text is too long.
    #[error("{what} is {bytes} bytes long, {MAX_LABEL_BYTES} are allowed")]
    TooLong {
        /// Which text.
        what: String,
        /// How long it is.
        bytes: usize,
    },
    /// A text that has to say something is empty.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// There are too many labels.
    #[error("{0} labels, {MAX_LABELS} are allowed")]
    TooManyLabels(usize),
    /// Two labels have one name once control characters are replaced.
    #[error("label {0:?} is given twice")]
    Twice(String),
    /// The UUID is none.
    #[error("uuid {0:?} is not of the form 8-4-4-4-12 hexadecimal digits, or it is the nil UUID")]
    Uuid(String),
}

/// What one teller says of a VM, or all of them together. Absent means that nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// Whom it belongs to.
    pub tenant: Option<String>,
    /// What else is said of it; at most [`MAX_LABELS`].
    pub labels: BTreeMap<String, String>,
    /// Its name.
    pub name: Option<String>,
    /// Its UUID, lower case, 8-4-4-4-12.
    pub uuid: Option<String>,
}

impl Owner {
    /// Tenant and labels as somebody states them who can be told what is wrong.
    ///
    /// # Errors
    /// When a text is too long or empty, or there are too many labels.
    pub fn new<K: AsRef<str>, V: AsRef<str>>(
        tenant: Option<&str>,
        labels: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, OwnerError> {
        let tenant = tenant.map(|text| checked("tenant", text)).transpose()?;
        let mut owner = Self { tenant, ..Self::default() };
        let mut count = 0;
        for (key, value) in labels {
            let (key, value) = (key.as_ref(), value.as_ref());
            count += 1;
            if count > MAX_LABELS {
                continue;
            }
            let name = checked("a label's name", key)?;
            bounded(&format!("the value of label {name:?}"), value)?;
            if owner.labels.insert(name.clone(), label(value.as_bytes())).is_some() {
                return Err(OwnerError::Twice(name));
            }
        }
        if count > MAX_LABELS { Err(OwnerError::TooManyLabels(count)) } else { Ok(owner) }
    }

    /// The same with a name.
    ///
    /// # Errors
    /// When it is empty or too long.
    pub fn with_name(mut self, name: &str) -> Result<Self, OwnerError> {
        self.name = Some(checked("name", name)?);
        Ok(self)
    }

    /// The same with a UUID.
    ///
    /// # Errors
    /// When it is not of the canonical form, or the nil UUID.
    pub fn with_uuid(mut self, uuid: &str) -> Result<Self, OwnerError> {
        let canonical = super::identity::uuid(uuid.as_bytes());
        self.uuid = Some(canonical.ok_or_else(|| OwnerError::Uuid(label(uuid.as_bytes())))?);
        Ok(self)
    }

    /// What a file of others says: texts are cut, empty ones say nothing, labels over the bound are left out.
    #[must_use]
    pub fn heard<'a>(tenant: Option<&str>, labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let text = |text: &str| Some(label(text.as_bytes())).filter(|text| !text.is_empty());
        let mut owner = Self { tenant: tenant.and_then(text), ..Self::default() };
        for (key, value) in labels {
            if let Some(key) = text(key)
                && (owner.labels.len() < MAX_LABELS || owner.labels.contains_key(&key))
            {
                owner.labels.insert(key, label(value.as_bytes()));
            }
        }
        owner
    }

    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Fills in what is not said from what a source of less weight says.
    pub fn fill(&mut self, mut other: Self) {
        other.lay_over(self);
        *self = other;
    }

    /// A `vm.identity` line says what was learned and what it leaves out stands, so nothing is ever unsaid.
    fn keep_unsaid(&mut self, before: &Self) {
        if self.labels.is_empty() {
            self.labels.clone_from(&before.labels);
        }
        self.tenant = self.tenant.take().or_else(|| before.tenant.clone());
        self.name = self.name.take().or_else(|| before.name.clone());
        self.uuid = self.uuid.take().or_else(|| before.uuid.clone());
    }

    /// Lays `other` over this: what it says wins, what it leaves out stands. Its labels come first within the bound.
    fn lay_over(&mut self, other: &Self) {
        let keep = |own: &mut Option<String>, other: &Option<String>| {
            if other.is_some() {
                own.clone_from(other);
            }
        };
        keep(&mut self.tenant, &other.tenant);
        keep(&mut self.name, &other.name);
        keep(&mut self.uuid, &other.uuid);
        let mut labels = other.labels.clone();
        for (key, value) in std::mem::take(&mut self.labels) {
            if labels.len() < MAX_LABELS {
                labels.entry(key).or_insert(value);
            }
        }
        self.labels = labels;
    }
}

fn bounded(what: &str, text: &str) -> Result<(), OwnerError> {
    let bytes = label(text.as_bytes());
    // A replaced control character is longer than it was: the text must fit as it will be shown.
    let shown = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).map(char::len_utf8).sum::<usize>();
    if shown > bytes.len() { Err(OwnerError::TooLong { what: what.to_owned(), bytes: shown }) } else { Ok(()) }
}

fn checked(what: &'static str, text: &str) -> Result<String, OwnerError> {
    if text.is_empty() {
        return Err(OwnerError::Empty(what));
    }
    bounded(what, text)?;
    Ok(label(text.as_bytes()))
}

/// Who says whose a VM is; a later one outweighs an earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Teller {
    /// The ledger, of an earlier agent.
    Ledger,
    /// The VMM's command line, libvirt's files, the control group.
    Source,
    /// The operator's inventory.
    Inventory,
    /// An annotation.
    Annotation,
}

/// What all tellers say of one VM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owners {
    told: BTreeMap<Teller, Owner>,
    whole: Arc<Owner>,
}

impl Owners {
    /// One teller's word, in place of what it said before. True when what is known changes by it.
    pub fn tell(&mut self, teller: Teller, mut owner: Owner) -> bool {
        if let Some(before) = self.told.get(&teller) {
            owner.keep_unsaid(before);
        }
        self.told.insert(teller, owner);
        let mut whole = Owner::default();
        self.told.values().for_each(|owner| whole.lay_over(owner));
        whole.keep_unsaid(&self.whole);
        let changed = whole != *self.whole;
        if changed {
            self.whole = Arc::new(whole);
        }
        changed
    }

    /// What one teller says.
    #[must_use]
    pub fn told(&self, teller: Teller) -> Option<&Owner> {
        self.told.get(&teller)
    }

    /// What is known, all tellers together.
    #[must_use]
    pub fn whole(&self) -> &Arc<Owner> {
        &self.whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(tenant: Option<&str>, labels: &[(&str, &str)]) -> Owner {
        Owner::heard(tenant, labels.iter().copied())
    }

    #[test]
    fn what_is_too_much_is_refused_by_name() {
        let long = "x".repeat(129);
        let none: [(&str, &str); 0] = [];
        let told = |result: Result<Owner, OwnerError>| result.unwrap_err().to_string();
        assert_eq!(told(Owner::new(Some(&long), none)), "tenant is 129 bytes long, 128 are allowed");
        assert_eq!(told(Owner::new(Some(""), none)), "tenant is empty");
        assert_eq!(told(Owner::new(None, [("", "x")])), "a label's name is empty");
        assert_eq!(
            told(Owner::new(None, [("k", &long)])),
            "the value of label \"k\" is 129 bytes long, 128 are allowed"
        );
        let many: Vec<_> = (0..17).map(|n| (n.to_string(), "x")).collect();
        assert_eq!(told(Owner::new(None, many)), "17 labels, 16 are allowed");
        assert_eq!(told(Owner::new(None, [("a\n", "1"), ("a\t", "2")])), "label \"a\u{fffd}\" is given twice");
        assert!(told(Owner::default().with_uuid("x")).starts_with("uuid \"x\" is not of the form"));
        assert!(Owner::new(Some(&"\n".repeat(43)), none).is_err(), "as it is shown it has 129 bytes");
    }

    #[test]
    fn control_characters_are_replaced() {
        let owner = Owner::new(Some("ac\nme"), [("a\tb", "c\x1b[2J")]).unwrap();
        assert_eq!(owner.tenant.as_deref(), Some("ac\u{fffd}me"));
        assert_eq!(owner.labels["a\u{fffd}b"], "c\u{fffd}[2J");
    }

    #[test]
    fn the_weightier_teller_wins_and_what_it_leaves_out_stands() {
        let mut owners = Owners::default();
        assert!(owners.tell(Teller::Annotation, of(Some("a"), &[("x", "1")])));
        assert!(!owners.tell(Teller::Inventory, of(Some("b"), &[("x", "2")])), "it is outweighed");
        assert!(owners.tell(Teller::Source, of(None, &[("y", "3")])));
        let whole = owners.whole();
        assert_eq!(whole.tenant.as_deref(), Some("a"));
        assert_eq!((whole.labels["x"].as_str(), whole.labels["y"].as_str()), ("1", "3"));
        assert!(!owners.tell(Teller::Source, of(None, &[("y", "3")])), "said twice is no change");
    }

    #[test]
    fn nothing_is_ever_unsaid() {
        let mut owners = Owners::default();
        owners.tell(Teller::Inventory, of(Some("a"), &[("x", "1")]));
        assert!(!owners.tell(Teller::Inventory, Owner::default()));
        assert_eq!(owners.whole().tenant.as_deref(), Some("a"));
        assert!(owners.tell(Teller::Inventory, of(None, &[("y", "1")])), "other labels replace them");
        assert_eq!(owners.whole().labels.len(), 1);
    }

    proptest! {
        #[test]
        fn everything_is_bounded_whoever_tells(
            tenant in "\\PC{0,200}|[\0-\x20]{0,80}",
            labels in prop::collection::vec(("[\0-\u{ff}]{0,150}", "[\0-\u{ff}]{0,150}"), 0..40),
        ) {
            let pairs = labels.iter().map(|(k, v)| (k.as_str(), v.as_str()));
            let heard = Owner::heard(Some(&tenant), pairs.clone());
            let mut owners = Owners::default();
            owners.tell(Teller::Source, heard.clone());
            owners.tell(Teller::Ledger, of(None, &[("one more", "x")]));
            let stated = Owner::new(Some(&tenant), pairs);
            for owner in [&heard, owners.whole().as_ref(), &stated.unwrap_or_default()] {
                prop_assert!(owner.labels.len() <= MAX_LABELS);
                let texts = owner.tenant.iter().chain(owner.labels.keys()).chain(owner.labels.values());
                for text in texts {
                    prop_assert!(text.len() <= MAX_LABEL_BYTES && !text.chars().any(char::is_control));
                }
            }
        }
    }
}
