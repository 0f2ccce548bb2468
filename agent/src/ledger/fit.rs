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

/// What is given up, in order.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    Nothing,
    Labels,
    Name,
    Texts,
    Files,
    NetTogether,
    Net,
}

/// The order in which a line is made shorter.
pub(super) const STEPS: [Step; 7] =
    [Step::Nothing, Step::Labels, Step::Name, Step::Texts, Step::Files, Step::NetTogether, Step::Net];

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
            Self::Files => {
                if !draft.files.is_empty() {
                    draft.files.clear();
                    trimmed.push("files".to_owned());
                }
            }
            Self::NetTogether => {
                if let Some(usage) = draft.usage.as_mut().filter(|u| u.net.len() > 1) {
                    usage.net = together(&usage.net);
                    usage.net_unobserved.clear();
                    trimmed.push("usage.net.interface".to_owned());
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

/// All interfaces as one, by class: sixteen entries at most, and nothing that a bill adds up is lost.
fn together(net: &[NetUsage]) -> Vec<NetUsage> {
    let mut by_class: BTreeMap<&str, Traffic> = BTreeMap::new();
    for one in net {
        let sum = by_class.entry(&one.class).or_default();
        *sum = sum.plus(&one.traffic());
    }
    by_class.into_iter().map(|(class, sum)| NetUsage::new(OTHER, class, &sum)).collect()
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
        if !trimmed.iter().any(|t| t == key) {
            trimmed.push(key.to_owned());
        }
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
