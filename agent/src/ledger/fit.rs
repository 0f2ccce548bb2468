//! Makes a fact fit on one line of 16 KiB: what is given up first, and how short a text may get.
//! Billing keys come last; what was given up is named, so that the line can say so.

use std::collections::BTreeMap;

use super::{Draft, NetUsage, Subject};
use crate::account::network::{OTHER, Traffic};

/// Identity texts keep this many encoded bytes each; six of them and the rest below stay within a line.
const IDENTITY_BYTES: usize = 1024;
/// Other texts keep this many when all else failed.
const TEXT_BYTES: usize = 384;
const UNKNOWN: &str = "unknown";
/// Interfaces that have names of their own on a line that is too long; the others take 4 KiB at most. Their entries only
/// grow, so from line to line none comes back out of the others, whose sum would fall.
const NAMED_BYTES: usize = 9 * 1024;

/// What is given up, in order.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    Nothing,
    Labels,
    Name,
    Texts,
    /// Interfaces beyond so many bytes are told together.
    NetTogether(usize),
    Net,
}

/// The order in which a line is made shorter.
pub(super) const STEPS: [Step; 7] = [
    Step::Nothing,
    Step::Labels,
    Step::Name,
    Step::Texts,
    Step::NetTogether(NAMED_BYTES),
    Step::NetTogether(0),
    Step::Net,
];

impl Step {
    /// Gives up one thing and notes its key.
    pub(super) fn apply(self, draft: &mut Draft, trimmed: &mut Vec<String>) {
        match self {
            Self::Nothing => {}
            Self::Labels => {
                if !draft.labels.is_empty() {
                    draft.labels.clear();
                    trimmed.push("labels".to_owned());
                }
            }
            Self::Name => clip("name", &mut draft.name, TEXT_BYTES, trimmed),
            Self::Texts => clip_texts(draft, trimmed),
            Self::NetTogether(bytes) => {
                if let Some(usage) = draft.usage.as_mut().filter(|u| u.net.len() > 1) {
                    usage.net = together(&usage.net, bytes);
                    if bytes == 0 {
                        usage.net_unobserved.clear();
                    }
                    note("usage.net.interface", trimmed);
                }
            }
            Self::Net => {
                if let Some(usage) = draft.usage.as_mut().filter(|u| !u.net.is_empty()) {
                    usage.net.clear();
                    trimmed.push("usage.net".to_owned());
                }
            }
        }
    }
}

/// The first interfaces that fit into so many bytes as they are, the others as one, by class: nothing that a bill adds up
/// is lost. An interface has sixteen classes at most.
fn together(net: &[NetUsage], mut bytes: usize) -> Vec<NetUsage> {
    let mut sizes: Vec<(&str, usize)> = Vec::new();
    for one in net.iter().filter(|one| one.interface != OTHER) {
        let size = serde_json::to_vec(one).map_or(usize::MAX, |text| text.len() + 1);
        match sizes.iter_mut().find(|(name, _)| *name == one.interface) {
            Some((_, sum)) => *sum = sum.saturating_add(size),
            None => sizes.push((&one.interface, size)),
        }
    }
    let fits = |(_, size): &&(&str, usize)| {
        bytes = bytes.saturating_sub(*size);
        bytes > 0
    };
    let named: Vec<&str> = sizes.iter().take_while(fits).map(|(name, _)| *name).collect();
    let (kept, rest): (Vec<&NetUsage>, Vec<&NetUsage>) =
        net.iter().partition(|one| named.contains(&one.interface.as_str()));
    let mut by_class: BTreeMap<&str, Traffic> = BTreeMap::new();
    for one in rest {
        let sum = by_class.entry(&one.class).or_default();
        *sum = sum.plus(&one.traffic());
    }
    let other = by_class.into_iter().map(|(class, sum)| NetUsage::new(OTHER, class, &sum));
    kept.into_iter().cloned().chain(other).collect()
}

/// Notes a key once.
fn note(key: &str, trimmed: &mut Vec<String>) {
    if !trimmed.iter().any(|noted| noted == key) {
        trimmed.push(key.to_owned());
    }
}

fn clip_texts(draft: &mut Draft, trimmed: &mut Vec<String>) {
    for (key, text) in [
        ("hypervisor", &mut draft.hypervisor),
        ("cause", &mut draft.cause),
        ("uuid", &mut draft.uuid),
        ("tenant", &mut draft.tenant),
    ] {
        clip(key, text, TEXT_BYTES, trimmed);
    }
    let evidence = &mut draft.evidence;
    for (key, text) in [
        ("evidence.killer_comm", &mut evidence.killer_comm),
        ("evidence.kvm_exit", &mut evidence.kvm_exit),
        ("evidence.annotated_by", &mut evidence.annotated_by),
    ] {
        if let Some(text) = text {
            clip(key, text, TEXT_BYTES, trimmed);
        }
    }
}

/// Puts a draft into the one form that is written: whole subject, no empty usage, a named hypervisor on VM lines.
pub(super) fn settle(draft: &Draft) -> (Draft, Vec<String>) {
    let (mut draft, mut trimmed) = (draft.clone(), Vec::new());
    draft.subject = settle_subject(&draft.subject);
    if let Subject::Snapshot(id) = &draft.subject {
        draft.snapshot_id.clone_from(id);
    }
    for (key, text) in [
        ("vm_id", &mut draft.vm_id),
        ("snapshot_id", &mut draft.snapshot_id),
        ("source_snapshot_id", &mut draft.source_snapshot_id),
        ("boot_id", &mut draft.boot_id),
        ("corrects", &mut draft.corrects),
    ] {
        clip(key, text, IDENTITY_BYTES, &mut trimmed);
    }
    if let Some(mark) = &mut draft.resumed_after {
        clip("resumed_after.id", &mut mark.id, TEXT_BYTES, &mut trimmed);
    }
    if draft.hypervisor.is_empty() && draft.kind.as_str().starts_with("vm.") {
        draft.hypervisor = UNKNOWN.to_owned();
    }
    draft.usage = draft.usage.filter(|u| *u != super::Usage::default());
    (draft, trimmed)
}

/// The subject as it is written: an empty one is the ledger's, an endless one is cut.
pub(super) fn settle_subject(subject: &Subject) -> Subject {
    let cut = |text: &str| {
        let mut text = text.to_owned();
        clip("subject", &mut text, IDENTITY_BYTES, &mut Vec::new());
        text
    };
    match subject {
        Subject::Incarnation(text) | Subject::Storage(text) | Subject::Snapshot(text) if text.is_empty() => {
            Subject::Ledger
        }
        Subject::Incarnation(text) => Subject::Incarnation(cut(text)),
        Subject::Storage(text) => Subject::Storage(cut(text)),
        Subject::Snapshot(text) => Subject::Snapshot(cut(text)),
        Subject::Ledger => Subject::Ledger,
    }
}

fn clip(key: &str, text: &mut String, limit: usize, trimmed: &mut Vec<String>) {
    let mut room = limit;
    let end = text.char_indices().find_map(|(at, c)| match room.checked_sub(encoded_bytes(c)) {
        Some(left) => {
            room = left;
            None
        }
        None => Some(at),
    });
    if let Some(end) = end {
        text.truncate(end);
        note(key, trimmed);
    }
}

/// How many bytes JSON needs for a character, at most.
fn encoded_bytes(c: char) -> usize {
    match c {
        '"' | '\\' => 2,
        c if c < ' ' => 6,
        c => c.len_utf8(),
    }
}
