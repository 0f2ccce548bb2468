//! Holds a JSON value against a JSON Schema, stricter than the standard: a key that the schema does not name is a
//! fault, and so is a word of JSON Schema that this does not know. Also compiled into the tests of the real agent.

use regex_lite::Regex;
use serde_json::{Map, Value};

/// What is wrong with a value; empty if nothing is.
pub fn faults(schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    check(schema, value, "", &mut found);
    found
}

fn check(schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
    let Some(words) = schema.as_object() else {
        if *schema == Value::Bool(false) {
            found.push(format!("{path} must not be there"));
        }
        return;
    };
    if value.is_null() && is_nullable(words) {
        return;
    }
    for (word, means) in words {
        let good = match word.as_str() {
            "$schema" | "title" | "description" | "format" => true,
            "type" => kinds(means).any(|kind| is_a(kind, value)),
            "const" => means == value,
            "enum" => means.as_array().is_some_and(|all| all.contains(value)),
            "pattern" => {
                let pattern = Regex::new(means.as_str().unwrap_or_default());
                value.as_str().zip(pattern.ok()).is_some_and(|(text, pattern)| pattern.is_match(text))
            }
            "minimum" => whole(value) >= whole(means),
            "maximum" => whole(value) <= whole(means),
            "required" => means.as_array().is_some_and(|all| all.iter().all(|key| has(value, key))),
            "items" => {
                let items = value.as_array().into_iter().flatten();
                items.enumerate().for_each(|(at, item)| check(means, item, &format!("{path}[{at}]"), found));
                true
            }
            "additionalProperties" => {
                let entries = value.as_object().into_iter().flatten();
                entries.for_each(|(key, value)| check(means, value, &format!("{path}.{key}"), found));
                true
            }
            "properties" => means.as_object().is_some_and(|keys| {
                properties(keys, value, path, found);
                true
            }),
            "if" => {
                let branch = if holds(means, value) { "then" } else { "else" };
                condition(words.get(branch), value, path, found);
                true
            }
            "then" | "else" => words.contains_key("if"),
            _ => false,
        };
        if !good {
            found.push(format!("{path}: {value} is not as \"{word}\": {means} wants"));
        }
    }
}

/// The one type, or each of several.
fn kinds(means: &Value) -> impl Iterator<Item = &str> {
    means.as_str().into_iter().chain(means.as_array().into_iter().flatten().filter_map(Value::as_str))
}

fn is_nullable(words: &Map<String, Value>) -> bool {
    words.get("type").is_some_and(|means| kinds(means).any(|kind| kind == "null"))
}

fn properties(keys: &Map<String, Value>, value: &Value, path: &str, found: &mut Vec<String>) {
    for (key, value) in value.as_object().into_iter().flatten() {
        match keys.get(key) {
            Some(schema) => check(schema, value, &format!("{path}.{key}"), found),
            None => found.push(format!("{path}.{key} is not in the schema")),
        }
    }
}

/// The words of a condition speak of some keys and leave the others alone.
fn condition(schema: Option<&Value>, value: &Value, path: &str, found: &mut Vec<String>) {
    let Some(schema) = schema else { return };
    if schema.get("required").and_then(Value::as_array).is_some_and(|all| !all.iter().all(|key| has(value, key))) {
        found.push(format!("{path}: one of {} is missing", schema["required"]));
    }
    for (key, means) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        if let Some(value) = value.get(key) {
            check(means, value, &format!("{path}.{key}"), found);
        }
    }
}

fn holds(schema: &Value, value: &Value) -> bool {
    let mut found = Vec::new();
    condition(Some(schema), value, "", &mut found);
    found.is_empty()
}

fn has(value: &Value, key: &Value) -> bool {
    key.as_str().is_some_and(|key| value.get(key).is_some())
}

fn whole(value: &Value) -> Option<i128> {
    value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from))
}

fn is_a(kind: &str, value: &Value) -> bool {
    match kind {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    }
}
