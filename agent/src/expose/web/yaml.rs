//! YAML as the values that serde reads; keys without a value are as if they were not there.

use saphyr::{LoadableYamlNode as _, Scalar, Yaml};
use serde_json::{Map, Value};

/// The one document of a text; an empty one is an empty table.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    let documents = Yaml::load_from_str(text).map_err(|error| format!("no YAML: {error}"))?;
    match documents.as_slice() {
        [] => Ok(Value::Object(Map::new())),
        [one] => match value(one)? {
            Value::Null => Ok(Value::Object(Map::new())),
            whole => Ok(whole),
        },
        _ => Err("more than one YAML document".to_owned()),
    }
}

fn value(yaml: &Yaml<'_>) -> Result<Value, String> {
    Ok(match yaml {
        Yaml::Value(Scalar::Null) => Value::Null,
        Yaml::Value(Scalar::Boolean(flag)) => (*flag).into(),
        Yaml::Value(Scalar::Integer(number)) => (*number).into(),
        Yaml::Value(Scalar::FloatingPoint(number)) => number.into_inner().into(),
        Yaml::Value(Scalar::String(text)) => text.as_ref().into(),
        Yaml::Sequence(all) => Value::Array(all.iter().map(value).collect::<Result<_, _>>()?),
        Yaml::Mapping(all) => {
            let mut table = Map::new();
            for (key, inner) in all {
                let Yaml::Value(Scalar::String(key)) = key else {
                    return Err(format!("the key {key:?} is no text: put it into quotes"));
                };
                let inner = value(inner)?;
                if !inner.is_null() {
                    table.insert(key.as_ref().to_owned(), inner);
                }
            }
            Value::Object(table)
        }
        Yaml::Representation(..) | Yaml::Tagged(..) | Yaml::Alias(_) | Yaml::BadValue => {
            return Err("tags, aliases and values that YAML has no form for are not taken".to_owned());
        }
    })
}
