//! What the API answers, as types that write themselves and say what they write: from one declaration come the JSON and
//! its schema, so the document (`openapi`) cannot say anything else than the code.

use std::{borrow::Cow, collections::BTreeMap};

use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::{Value, json};

/// A value that says what its JSON looks like.
pub trait Described: Serialize {
    /// Whether a key with it may be left out.
    const OPTIONAL: bool = false;

    /// Its JSON Schema.
    fn schema() -> Value;

    /// Whether a key with it is left out.
    fn is_absent(&self) -> bool {
        false
    }
}

/// An object whose keys are known.
pub trait Object {
    /// Writes its keys.
    ///
    /// # Errors
    /// The serializer's.
    fn write<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error>;

    /// Name, meaning, schema and whether it must be there, of each key.
    fn keys() -> Vec<(&'static str, &'static str, Value, bool)>;
}

/// Declares answers: each key with its type and meaning. `..` takes over another object's keys.
macro_rules! answers {
    ($($(#[$doc:meta])* struct $name:ident $(<$life:lifetime>)? {
        $(..$base:ident: $base_type:ty,)*
        $($key:ident: $type:ty = $help:literal;)*
    })+) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $name $(<$life>)? {
            $(#[doc = "Its first keys."] pub $base: $base_type,)*
            $(#[doc = $help] pub $key: $type,)*
        }

        impl $(<$life>)? $crate::expose::answer::Object for $name $(<$life>)? {
            fn write<M: serde::ser::SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
                $($crate::expose::answer::Object::write(&self.$base, map)?;)*
                $(if !$crate::expose::answer::Described::is_absent(&self.$key) {
                    map.serialize_entry(stringify!($key), &self.$key)?;
                })*
                Ok(())
            }

            fn keys() -> Vec<(&'static str, &'static str, serde_json::Value, bool)> {
                #[allow(unused_mut, reason = "it has no flat part")]
                let mut all = Vec::new();
                $(all.extend(<$base_type as $crate::expose::answer::Object>::keys());)*
                all.extend([$((
                    stringify!($key),
                    $help,
                    <$type as $crate::expose::answer::Described>::schema(),
                    !<$type as $crate::expose::answer::Described>::OPTIONAL,
                ),)*]);
                all
            }
        }

        impl $(<$life>)? serde::Serialize for $name $(<$life>)? {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut map = serializer.serialize_map(None)?;
                $crate::expose::answer::Object::write(self, &mut map)?;
                serde::ser::SerializeMap::end(map)
            }
        }

        impl $(<$life>)? $crate::expose::answer::Described for $name $(<$life>)? {
            fn schema() -> serde_json::Value {
                $crate::expose::answer::object(<Self as $crate::expose::answer::Object>::keys())
            }
        }
    )+};
}
pub(crate) use answers;

/// The schema of an object with these keys.
pub(super) fn object(keys: Vec<(&'static str, &'static str, Value, bool)>) -> Value {
    let required: Vec<_> = keys.iter().filter(|key| key.3).map(|key| key.0).collect();
    let mut properties = serde_json::Map::new();
    for (name, help, mut schema, _) in keys {
        if let Some(schema) = schema.as_object_mut() {
            schema.insert("description".to_owned(), help.into());
        }
        properties.insert(name.to_owned(), schema);
    }
    let mut schema = json!({ "type": "object" });
    if let Some(schema) = schema.as_object_mut() {
        if !required.is_empty() {
            schema.insert("required".to_owned(), json!(required));
        }
        schema.insert("properties".to_owned(), Value::Object(properties));
    }
    schema
}

macro_rules! described {
    ($($type:ty => $schema:tt;)+) => {$(
        impl Described for $type {
            fn schema() -> Value {
                json!($schema)
            }
        }
    )+};
}

described! {
    bool => { "type": "boolean" };
    u32 => { "type": "integer", "minimum": 0, "maximum": (u32::MAX) };
    i32 => { "type": "integer", "minimum": (i32::MIN), "maximum": (i32::MAX) };
    u64 => { "type": "integer", "minimum": 0 };
    usize => { "type": "integer", "minimum": 0 };
    f64 => { "type": "number" };
    String => { "type": "string" };
    &str => { "type": "string" };
    Cow<'_, str> => { "type": "string" };
}

impl<T: Described> Described for Option<T> {
    const OPTIONAL: bool = true;

    fn schema() -> Value {
        T::schema()
    }

    fn is_absent(&self) -> bool {
        self.is_none()
    }
}

impl<T: Described> Described for Vec<T> {
    fn schema() -> Value {
        json!({ "type": "array", "items": T::schema() })
    }
}

impl<K: AsRef<str> + Serialize + Ord, T: Described> Described for BTreeMap<K, T> {
    fn schema() -> Value {
        json!({ "type": "object", "additionalProperties": T::schema() })
    }
}

impl<T: Described> Described for &T {
    fn schema() -> Value {
        T::schema()
    }

    fn is_absent(&self) -> bool {
        T::is_absent(self)
    }
}

/// Entries in an order of their own.
#[derive(Clone, Debug)]
pub struct Entries<T>(pub Vec<(String, T)>);

impl<T: Serialize> Serialize for Entries<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        self.0.iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
        map.end()
    }
}

impl<T: Described> Described for Entries<T> {
    fn schema() -> Value {
        json!({ "type": "object", "additionalProperties": T::schema() })
    }
}

/// A key that is always there; `null` is nothing.
#[derive(Clone, Debug)]
pub struct Nullable<T>(pub Option<T>);

impl<T: Serialize> Serialize for Nullable<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<T: Described> Described for Nullable<T> {
    fn schema() -> Value {
        let mut schema = T::schema();
        if let Some(kind) = schema.get_mut("type") {
            *kind = json!([kind.clone(), "null"]);
        }
        schema
    }
}

/// A whole number as decimal text: JSON's readers lose digits beyond 2^53.
#[derive(Clone, Copy, Debug)]
pub struct Decimal(pub u128);

impl From<u64> for Decimal {
    fn from(number: u64) -> Self {
        Self(number.into())
    }
}

impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl Described for Decimal {
    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^(0|[1-9][0-9]{0,38})$" })
    }
}

/// RFC 3339 in UTC with nine decimals.
#[derive(Clone, Debug)]
pub struct At(pub String);

impl At {
    /// Of Unix nanoseconds.
    #[must_use]
    pub fn unix(ns: u64) -> Self {
        Self(crate::clock::rfc3339(ns))
    }
}

impl Serialize for At {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl Described for At {
    fn schema() -> Value {
        let pattern = "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{9}Z$";
        json!({ "type": "string", "format": "date-time", "pattern": pattern })
    }
}
