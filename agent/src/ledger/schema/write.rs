//! What was learned of a type, as JSON Schema.

use serde_json::{Map, Value, json};

use super::super::{Kind, Reason};
use super::probe::{Key, Shape, Text};

/// An object's schema; `path` is where it stands.
pub(super) fn object(path: &str, keys: &[Key]) -> Map<String, Value> {
    let mut properties = Map::new();
    for key in keys {
        properties.insert(key.name.to_owned(), schema(&format!("{path}.{}", key.name), &key.shape));
    }
    let required: Vec<_> = keys.iter().filter(|key| key.required).map(|key| key.name).collect();
    let mut object = Map::new();
    object.insert("type".to_owned(), "object".into());
    if !required.is_empty() {
        object.insert("required".to_owned(), json!(required));
    }
    object.insert("properties".to_owned(), Value::Object(properties));
    object
}

fn schema(path: &str, shape: &Shape) -> Value {
    match shape {
        Shape::Bool => json!({ "type": "boolean" }),
        Shape::Integer { minimum, maximum } => json!({ "type": "integer", "minimum": minimum, "maximum": maximum }),
        Shape::Text(text) => of_text(*text),
        Shape::Words(words) => json!({ "type": "string", "enum": words }),
        Shape::Array(item) => json!({ "type": "array", "items": schema(path, item) }),
        Shape::Map(value) => json!({ "type": "object", "additionalProperties": schema(path, value) }),
        Shape::Object(keys) => Value::Object(object(path, keys)),
    }
}

fn of_text(text: Text) -> Value {
    match text {
        Text::Any => json!({ "type": "string" }),
        Text::Decimal { digits } => {
            json!({ "type": "string", "pattern": format!("^(0|[1-9][0-9]{{0,{}}})$", digits - 1) })
        }
        Text::Instant => json!({
            "type": "string",
            "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{9}Z$"
        }),
        Text::Kind => {
            json!({ "type": "string", "enum": Kind::ALL.iter().map(|kind| kind.as_str()).collect::<Vec<_>>() })
        }
        Text::Reason => {
            json!({ "type": "string", "enum": Reason::ALL.iter().map(|reason| reason.as_str()).collect::<Vec<_>>() })
        }
    }
}
