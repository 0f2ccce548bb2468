//! A line as a CloudEvent 1.0: its id is the line's, its data the line itself, byte for byte, so that who receives it
//! can still check `sum` and the chain.

use serde::Serialize;

use super::super::wire::When;
use super::super::{Line, Subject};
use super::Event;

/// What all types begin with, as the specification wants: a name we can speak for, backwards.
const TYPES: &str = "io.github.kvmeter.";

#[derive(Serialize)]
struct Head<'a> {
    specversion: &'static str,
    id: &'a str,
    source: String,
    r#type: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    subject: &'a str,
    time: When,
    datacontenttype: &'static str,
}

pub(super) fn of(line: &Line, bytes: &[u8]) -> Event {
    let fact = &line.fact;
    let head = Head {
        specversion: "1.0",
        id: &line.id,
        source: source(&line.host),
        r#type: format!("{TYPES}{}", fact.kind),
        subject: if fact.vm_id.is_empty() && fact.subject != Subject::Ledger {
            fact.subject.text("")
        } else {
            &fact.vm_id
        },
        time: When(fact.emitted_at),
        datacontenttype: "application/json",
    };
    // Texts and instants always serialise.
    let mut json = serde_json::to_vec(&head).unwrap_or_default();
    json.pop();
    json.extend_from_slice(b",\"data\":");
    json.extend_from_slice(bytes);
    json.push(b'}');
    Event { id: line.id.clone(), json }
}

/// The host as a URI reference. The same fact in two ledgers of a host is one event, so the ledger is not in it.
pub(super) fn source(host: &str) -> String {
    let mut text = String::from("/kvmeter/hosts/");
    for byte in host.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}
