//! The OpenAPI document: which questions there are stands here as data; what is answered is read off the types that are
//! answered with.

mod question;

use axum::{http::HeaderMap, response::Response};
use serde_json::{Map, Value, json};

use super::{
    answer::Described,
    api::{VmDetail, VmDetails, VmList},
    etag,
    fleet::{ManyPast, Newest},
    own_status::AgentStatus,
    problem::Problem,
    usage::VmPast,
};
use crate::account::snapshot::Sample;

use question::{Body, Parameter, QUESTIONS, Question};

/// The document, as `docs/openapi.json` has it.
#[must_use]
pub fn document() -> Value {
    let mut paths = Map::new();
    for question in &QUESTIONS {
        paths.insert(question.path.to_owned(), json!({ "get": operation(question) }));
    }
    paths.insert("/v1/annotations".to_owned(), json!({ "post": annotate() }));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "kvmeter",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Written by `cargo xtask docs` from the agent's types. Objects may get more keys in later versions.",
            "license": { "name": "MIT OR Apache-2.0" },
        },
        "paths": paths,
        "components": { "schemas": {
            "AgentStatus": AgentStatus::schema(),
            "ManyPast": ManyPast::schema(),
            "Newest": Newest::schema(),
            "Problem": Problem::schema(),
            "Sample": Sample::schema(),
            "VmDetail": VmDetail::schema(),
            "VmDetails": VmDetails::schema(),
            "VmList": VmList::schema(),
            "VmPast": VmPast::schema(),
        } },
    })
}

fn reference(component: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{component}") })
}

fn operation(question: &Question) -> Value {
    let parameter = |(name, place, kind, help): &Parameter| {
        let required = *place == "path";
        json!({ "name": name, "in": place, "required": required, "description": help, "schema": { "type": kind } })
    };
    let content = match question.body {
        // The one answer that has two forms.
        Body::Json("VmList") => json!({ "application/json": { "schema": {
            "oneOf": [reference("VmList"), reference("VmDetails")],
        } } }),
        Body::Json(component) => json!({ "application/json": { "schema": reference(component) } }),
        Body::Text(kind) => json!({ kind: {} }),
    };
    let mut responses = Map::new();
    responses.insert("200".to_owned(), json!({ "description": question.summary, "content": content }));
    for (status, meaning) in question.more {
        responses.insert((*status).to_owned(), other(status, meaning));
    }
    let mut operation = json!({ "operationId": question.id, "summary": question.summary, "responses": responses });
    if let Some(operation) = operation.as_object_mut().filter(|_| !question.parameters.is_empty()) {
        operation.insert("parameters".to_owned(), question.parameters.iter().map(parameter).collect());
    }
    operation
}

fn other(status: &str, meaning: &str) -> Value {
    if status.starts_with(['4', '5']) {
        let problem = json!({ "application/problem+json": { "schema": reference("Problem") } });
        json!({ "description": meaning, "content": problem })
    } else {
        json!({ "description": meaning })
    }
}

/// The one question that states something. What its body may be is checked by hand (`lifecycle::annotation`).
fn annotate() -> Value {
    let text = |help: &str| json!({ "type": "string", "description": help });
    let statuses = [
        ("202", "It was taken."),
        ("400", "Something in the body cannot be used; it is named."),
        ("403", "Not for this user, or over TCP."),
        ("404", "It is about nobody there is."),
        ("503", "There is no room for it."),
    ];
    let responses: Map<_, _> = statuses.iter().map(|(s, meaning)| ((*s).to_owned(), other(s, meaning))).collect();
    json!({
        "operationId": "annotate",
        "summary": "Tells what an orchestrator knows of a VM; on the Unix socket only.",
        "requestBody": { "required": true, "content": { "application/json": { "schema": {
            "type": "object",
            "properties": {
                "vm_id": text("Which VM: this, or uuid, or pid."),
                "uuid": text("Its UUID."),
                "pid": { "type": "integer", "description": "Its process." },
                "name": text("Its name."),
                "tenant": text("Whom it belongs to."),
                "labels": {
                    "type": "object",
                    "additionalProperties": { "type": "string" },
                    "description": "Its labels.",
                },
                "snapshot_id": text("The snapshot that its next stop makes."),
                "source_snapshot_id": text("The snapshot that it starts from."),
                "reason": text("Why it starts or stops next."),
                "ttl": text("How long a statement about what is still to come holds, such as 5m."),
            },
        } } } },
        "responses": responses,
    })
}

/// The document, for who has it not.
pub(super) async fn get(headers: HeaderMap) -> Response {
    let text = document().to_string();
    let tag = etag::of(text.as_bytes());
    etag::answer(&headers, "application/json", text, &tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_leads_somewhere_and_every_operation_has_a_name_of_its_own() {
        let document = document();
        let text = document.to_string();
        for part in text.split("\"$ref\":\"#").skip(1) {
            let pointer = part.split('"').next().unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
        let mut ids: Vec<_> =
            text.split("\"operationId\":\"").skip(1).map(|id| id.split('"').next().unwrap()).collect();
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!((ids.len(), count), (QUESTIONS.len() + 1, QUESTIONS.len() + 1));
    }

    #[test]
    fn what_can_be_stated_is_told_and_nothing_else() {
        let document = document();
        let told =
            &document["paths"]["/v1/annotations"]["post"]["requestBody"]["content"]["application/json"]["schema"];
        let told: Vec<_> = told["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(told, crate::lifecycle::annotation::PARAMETERS);
    }

    #[test]
    fn path_parameters_are_those_of_the_path() {
        for question in &QUESTIONS {
            let named: Vec<_> = question.parameters.iter().filter(|p| p.1 == "path").map(|p| p.0).collect();
            let due: Vec<_> = question.path.split('{').skip(1).filter_map(|part| part.split('}').next()).collect();
            assert_eq!(named, due, "{}", question.path);
        }
    }

    #[test]
    fn a_sample_has_the_keys_that_are_told() {
        let sample = Sample {
            at: "1970-01-01T00:00:00.000000000Z".to_owned(),
            cpu_percent: Some(1.0),
            cpu_delay_percent: Some(1.0),
            memory_used_bytes: Some(1),
            memory_limit_bytes: Some(1),
            network_in_bytes_per_sec: Some(1.0),
            network_out_bytes_per_sec: Some(1.0),
            disk_read_bytes_per_sec: Some(1.0),
            disk_write_bytes_per_sec: Some(1.0),
            requests_per_sec: Some(1.0),
            latency_p95_ms: Some(1.0),
        };
        let written = serde_json::to_value(&sample).unwrap();
        let schema = Sample::schema();
        let told = schema["properties"].as_object().unwrap();
        assert_eq!(written.as_object().unwrap().keys().collect::<Vec<_>>(), told.keys().collect::<Vec<_>>());
        for (key, value) in written.as_object().unwrap() {
            assert_eq!(told[key]["type"] == "integer", value.is_u64(), "{key}");
        }
    }
}
