//! The body of `POST /v1/annotations`, read and checked; every mistake names its parameter.

use std::time::Duration;

use serde_json::{Map, Value};

use super::{DEFAULT_TTL, MAX_TTL, Request, Stated, Target};
use crate::{
    ledger::Reason,
    vm::{
        Owner,
        identity::{MAX_LABEL_BYTES, is_vm_id, label},
    },
};

/// The longest body that is read, in bytes.
pub const MAX_BODY: usize = 16 * 1024;
/// The kernel's `PID_MAX_LIMIT` on 64 bits.
const MAX_PID: u64 = 4_194_304;
/// The longest snapshot id, in bytes.
const MAX_SNAPSHOT: usize = MAX_LABEL_BYTES;
const STARTS: [Reason; 5] = [Reason::Boot, Reason::Restart, Reason::Clone, Reason::Restore, Reason::HibernateWake];
const STOPS: [Reason; 2] = [Reason::StopUser, Reason::StopCrash];
/// What a body may say.
pub const PARAMETERS: [&str; 10] =
    ["vm_id", "uuid", "pid", "name", "tenant", "labels", "snapshot_id", "source_snapshot_id", "reason", "ttl"];

/// What is wrong with a body.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct BadRequest {
    /// Which parameter.
    pub parameter: String,
    /// What is wrong with it, and what is allowed.
    pub detail: String,
}

fn bad<T>(parameter: &str, detail: impl Into<String>) -> Result<T, BadRequest> {
    Err(BadRequest { parameter: parameter.to_owned(), detail: detail.into() })
}

/// Reads a body.
///
/// # Errors
/// The first mistake found.
pub fn parse(body: &[u8]) -> Result<Request, BadRequest> {
    let object = match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => object,
        Ok(_) => return bad("body", "the body must be a JSON object"),
        Err(error) => return bad("body", format!("the body is no JSON: {error}")),
    };
    if let Some(unknown) = object.keys().find(|key| !PARAMETERS.contains(&key.as_str())) {
        let name = label(unknown.as_bytes());
        return bad(&name, format!("there is no parameter {name:?}; there are {}", PARAMETERS.join(", ")));
    }
    let mut request = Request {
        target: target(&object)?,
        owner: owner(&object)?,
        start: Stated { snapshot: snapshot(&object, "source_snapshot_id")?, ..Stated::default() },
        stop: Stated { snapshot: snapshot(&object, "snapshot_id")?, ..Stated::default() },
        ttl: ttl(&object)?,
    };
    match reason(&object)? {
        Some(reason) if STOPS.contains(&reason) => request.stop.reason = Some(reason),
        reason => request.start.reason = reason,
    }
    if request.owner.is_empty() && request.start.is_empty() && request.stop.is_empty() {
        return bad(
            "body",
            "nothing is stated; give at least one of name, tenant, labels, snapshot_id, source_snapshot_id, reason",
        );
    }
    Ok(request)
}

/// A text, where one is given.
fn text<'a>(object: &'a Map<String, Value>, key: &str) -> Result<Option<&'a str>, BadRequest> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => bad(key, format!("{key} must be a text")),
    }
}

fn target(object: &Map<String, Value>) -> Result<Target, BadRequest> {
    let given: Vec<_> =
        ["vm_id", "uuid", "pid"].into_iter().filter(|key| object.get(*key).is_some_and(|v| !v.is_null())).collect();
    let [key] = given.as_slice() else {
        let which = given.get(1).copied().unwrap_or("vm_id");
        return bad(which, "give exactly one of vm_id, uuid and pid");
    };
    if *key == "pid" {
        let pid = object.get("pid").and_then(Value::as_u64).filter(|pid| (1..=MAX_PID).contains(pid));
        return match pid.and_then(|pid| u32::try_from(pid).ok()) {
            Some(pid) => Ok(Target::Pid(pid)),
            None => bad("pid", format!("pid must be a whole number from 1 to {MAX_PID}")),
        };
    }
    let value = text(object, key)?.unwrap_or_default();
    if *key == "vm_id" {
        return if is_vm_id(value) {
            Ok(Target::VmId(value.to_owned()))
        } else {
            bad("vm_id", "vm_id must match [A-Za-z0-9._:-]{1,64}")
        };
    }
    match Owner::default().with_uuid(value) {
        Ok(owner) => Ok(Target::Uuid(owner.uuid.unwrap_or_default())),
        Err(error) => bad("uuid", error.to_string()),
    }
}

fn owner(object: &Map<String, Value>) -> Result<Owner, BadRequest> {
    const NONE: [(&str, &str); 0] = [];
    let tenant = Owner::new(text(object, "tenant")?, NONE).or_else(|error| bad("tenant", error.to_string()))?;
    let mut pairs = Vec::new();
    match object.get("labels") {
        None | Some(Value::Null) => {}
        Some(Value::Object(labels)) => {
            for (key, value) in labels {
                match value {
                    Value::String(value) => pairs.push((key.as_str(), value.as_str())),
                    _ => {
                        return bad("labels", format!("the value of label {:?} must be a text", label(key.as_bytes())));
                    }
                }
            }
        }
        Some(_) => return bad("labels", "labels must be an object of texts"),
    }
    let owner = Owner::new(None, pairs).or_else(|error| bad("labels", error.to_string()))?;
    let owner = Owner { tenant: tenant.tenant, ..owner };
    match text(object, "name")? {
        Some(name) => owner.with_name(name).or_else(|error| bad("name", error.to_string())),
        None => Ok(owner),
    }
}

/// An id is taken as it is or not at all: a changed one would be another's.
fn snapshot(object: &Map<String, Value>, key: &str) -> Result<Option<String>, BadRequest> {
    let Some(id) = text(object, key)? else { return Ok(None) };
    if id.is_empty() || id.len() > MAX_SNAPSHOT || id.chars().any(char::is_control) {
        return bad(key, format!("{key} must be 1 to {MAX_SNAPSHOT} bytes without control characters"));
    }
    Ok(Some(id.to_owned()))
}

fn reason(object: &Map<String, Value>) -> Result<Option<Reason>, BadRequest> {
    let Some(text) = text(object, "reason")? else { return Ok(None) };
    let allowed = || STARTS.iter().chain(&STOPS);
    match allowed().find(|reason| reason.as_str() == text) {
        Some(reason) => Ok(Some(*reason)),
        None => bad(
            "reason",
            format!("reason must be one of {}", allowed().map(|r| r.as_str()).collect::<Vec<_>>().join(", ")),
        ),
    }
}

fn ttl(object: &Map<String, Value>) -> Result<Duration, BadRequest> {
    let given = match object.get("ttl") {
        None | Some(Value::Null) => return Ok(DEFAULT_TTL),
        Some(Value::String(text)) => humantime::parse_duration(text).ok(),
        Some(value) => value.as_u64().map(Duration::from_secs),
    };
    match given.filter(|ttl| (Duration::from_secs(1)..=MAX_TTL).contains(ttl)) {
        Some(ttl) => Ok(ttl),
        None => bad("ttl", "ttl must be a duration from 1s to 1day, such as \"10m\", or a number of seconds"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(body: &str) -> Result<Request, BadRequest> {
        parse(body.as_bytes())
    }

    #[test]
    fn a_statement_is_split_into_whose_it_is_and_its_two_transitions() {
        let request = of(
            r#"{"vm_id":"web-1","name":"Web","tenant":"acme","labels":{"tier":"gold"},"reason":"stop-user","snapshot_id":"s2","source_snapshot_id":"s1","ttl":"1h"}"#,
        )
        .unwrap();
        assert_eq!(request.target, Target::VmId("web-1".into()));
        assert_eq!((request.owner.tenant.as_deref(), request.owner.name.as_deref()), (Some("acme"), Some("Web")));
        assert_eq!((request.stop.reason, request.stop.snapshot.as_deref()), (Some(Reason::StopUser), Some("s2")));
        assert_eq!((request.start.reason, request.start.snapshot.as_deref()), (None, Some("s1")));
        assert_eq!(request.ttl, Duration::from_secs(3600));
        let clone = of(r#"{"pid":77,"reason":"clone","ttl":5,"name":null}"#).unwrap();
        assert_eq!((clone.target, clone.start.reason), (Target::Pid(77), Some(Reason::Clone)));
        assert_eq!(clone.ttl, Duration::from_secs(5));
        let upper = of(r#"{"uuid":"6F1F0F6E-9D0C-4B8E-8F0A-2F5D1D7C9A11","tenant":"a"}"#).unwrap();
        assert_eq!(upper.target, Target::Uuid("6f1f0f6e-9d0c-4b8e-8f0a-2f5d1d7c9a11".into()));
        assert_eq!(upper.ttl, DEFAULT_TTL);
    }

    #[test]
    fn every_mistake_names_its_parameter() {
        let long = "x".repeat(129);
        for (body, parameter) in [
            ("", "body"),
            ("[1]", "body"),
            (r#"{"vm_id":"a"}"#, "body"),
            (r#"{"tenant":"a"}"#, "vm_id"),
            (r#"{"vm_id":"a","uuid":"b","tenant":"a"}"#, "uuid"),
            (r#"{"vm_id":"a b","tenant":"a"}"#, "vm_id"),
            (r#"{"vm_id":7,"tenant":"a"}"#, "vm_id"),
            (r#"{"uuid":"00000000-0000-0000-0000-000000000000","tenant":"a"}"#, "uuid"),
            (r#"{"pid":0,"tenant":"a"}"#, "pid"),
            (r#"{"pid":"7","tenant":"a"}"#, "pid"),
            (r#"{"pid":4194305,"tenant":"a"}"#, "pid"),
            (r#"{"vm_id":"a","reason":"vm-rm"}"#, "reason"),
            (r#"{"vm_id":"a","reason":["boot"]}"#, "reason"),
            (r#"{"vm_id":"a","labels":{"k":1}}"#, "labels"),
            (r#"{"vm_id":"a","labels":"k"}"#, "labels"),
            (r#"{"vm_id":"a","tenant":""}"#, "tenant"),
            (&format!(r#"{{"vm_id":"a","name":"{long}"}}"#), "name"),
            (&format!(r#"{{"vm_id":"a","snapshot_id":"{long}"}}"#), "snapshot_id"),
            (r#"{"vm_id":"a","source_snapshot_id":"a\nb"}"#, "source_snapshot_id"),
            (r#"{"vm_id":"a","tenant":"a","ttl":"2days"}"#, "ttl"),
            (r#"{"vm_id":"a","tenant":"a","ttl":0}"#, "ttl"),
            (r#"{"vm_id":"a","tenant":"a","owner":"b"}"#, "owner"),
        ] {
            assert_eq!(of(body).unwrap_err().parameter, parameter, "{body}");
        }
    }

    proptest! {
        #[test]
        fn any_body_is_read_without_harm(raw in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&raw);
        }

        #[test]
        fn what_is_taken_is_bounded(key in "vm_id|uuid|pid|name|tenant|snapshot_id|reason|ttl|labels|\\PC{0,8}", value in "\\PC{0,300}") {
            let body = serde_json::json!({ "vm_id": "a", "tenant": "t", key: value });
            if let Ok(request) = parse(body.to_string().as_bytes()) {
                prop_assert!(request.ttl <= MAX_TTL);
                let texts = [request.owner.name, request.owner.tenant, request.stop.snapshot, request.start.snapshot];
                prop_assert!(texts.iter().flatten().all(|text| text.len() <= MAX_LABEL_BYTES && !text.chars().any(char::is_control)));
            }
        }
    }
}
