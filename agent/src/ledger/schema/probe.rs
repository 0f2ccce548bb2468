//! A deserializer without input. It gives each type what it asks for and notes it: the keys of an object, the width of
//! a number. A text that a type refuses is tried in another form, which tells what texts it takes; a key that can be
//! left away is optional.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;

use serde::de::value::{BorrowedStrDeserializer, StrDeserializer};
use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

/// What texts a type takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Text {
    Any,
    Decimal { digits: usize },
    Instant,
    Kind,
    Reason,
}

/// What a type takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shape {
    Bool,
    Integer { minimum: i64, maximum: u64 },
    Text(Text),
    Words(&'static [&'static str]),
    Array(Box<Shape>),
    Map(Box<Shape>),
    Object(Vec<Key>),
}

/// A key of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) shape: Shape,
    pub(super) required: bool,
}

/// Tried in this order; the narrowest numbers come last, so that the first that fits tells the width.
const TEXTS: [(&str, Text); 7] = [
    ("any text", Text::Any),
    ("340282366920938463463374607431768211455", Text::Decimal { digits: 39 }),
    ("18446744073709551615", Text::Decimal { digits: 20 }),
    ("4294967295", Text::Decimal { digits: 10 }),
    ("1970-01-01T00:00:00.000000000Z", Text::Instant),
    ("vm.compute.start", Text::Kind),
    ("boot", Text::Reason),
];

/// How many texts and keys a type may have before this gives up.
const TRIES: usize = 10_000;

/// Why a type could not be read, in serde's words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Refused(String);

impl de::Error for Refused {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self(text.to_string())
    }
}

#[derive(Default)]
struct State {
    /// Which text each place is given.
    choices: RefCell<HashMap<String, usize>>,
    /// The place that was given a text last, which is the one that refuses it.
    asked: RefCell<Option<String>>,
    /// The key that is left away.
    without: RefCell<Option<String>>,
    found: RefCell<Option<Shape>>,
}

/// What `T` takes.
pub(super) fn shape_of<T: DeserializeOwned>() -> Result<Shape, String> {
    let state = State::default();
    for _ in 0..TRIES {
        state.asked.take();
        let Err(refused) = T::deserialize(Probe { state: &state, path: String::new() }) else {
            let mut shape = state.found.take().ok_or("nothing was asked for")?;
            require::<T>(&state, "", &mut shape);
            return Ok(shape);
        };
        let place = state.asked.take().ok_or_else(|| refused.to_string())?;
        let mut choices = state.choices.borrow_mut();
        let choice = choices.entry(place.clone()).or_default();
        *choice += 1;
        if *choice >= TEXTS.len() {
            return Err(format!("{place}: {refused}"));
        }
    }
    Err("there is no end to it".to_owned())
}

/// Leaves each key away once.
fn require<T: DeserializeOwned>(state: &State, path: &str, shape: &mut Shape) {
    match shape {
        Shape::Object(keys) => {
            for key in keys {
                let path = format!("{path}.{}", key.name);
                state.without.replace(Some(path.clone()));
                key.required = T::deserialize(Probe { state, path: String::new() }).is_err();
                state.without.take();
                require::<T>(state, &path, &mut key.shape);
            }
        }
        Shape::Array(inner) | Shape::Map(inner) => require::<T>(state, &format!("{path}[]"), inner),
        _ => {}
    }
}

struct Probe<'a> {
    state: &'a State,
    path: String,
}

impl Probe<'_> {
    /// Notes what was asked for and gives it.
    fn note<T>(&self, shape: Shape, given: T) -> T {
        self.state.found.replace(Some(shape));
        given
    }

    fn integer<T>(&self, minimum: i64, maximum: u64, given: T) -> T {
        self.note(Shape::Integer { minimum, maximum }, given)
    }
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Refused;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Refused> {
        Err(de::Error::custom(format_args!("{}: a type that does not say what it wants", self.path)))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_bool(self.note(Shape::Bool, true))
    }

    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_i32(self.integer(i32::MIN.into(), i32::MAX.unsigned_abs().into(), 1))
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_u32(self.integer(0, u32::MAX.into(), 1))
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_u64(self.integer(0, u64::MAX, 1))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_string(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let choice = self.state.choices.borrow().get(&self.path).copied().unwrap_or(0);
        let (text, kind) = TEXTS[choice.min(TEXTS.len() - 1)];
        self.state.asked.replace(Some(self.path.clone()));
        visitor.visit_str(self.note(Shape::Text(kind), text))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let (state, path) = (self.state, format!("{}[]", self.path));
        let value = visitor.visit_seq(One { state, path, given: false })?;
        let item = state.found.take().ok_or_else(|| Refused("an array of nothing".to_owned()))?;
        state.found.replace(Some(Shape::Array(Box::new(item))));
        Ok(value)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let (state, path) = (self.state, format!("{}[]", self.path));
        let value = visitor.visit_map(One { state, path, given: false })?;
        let item = state.found.take().ok_or_else(|| Refused("a map to nothing".to_owned()))?;
        state.found.replace(Some(Shape::Map(Box::new(item))));
        Ok(value)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        let state = self.state;
        let mut keys = Vec::new();
        let value =
            visitor.visit_map(Fields { state, path: self.path, fields: fields.iter(), next: None, keys: &mut keys })?;
        state.found.replace(Some(Shape::Object(keys)));
        Ok(value)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        words: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        let first = words.first().copied().unwrap_or_default();
        let given: StrDeserializer<'_, Refused> = StrDeserializer::new(self.note(Shape::Words(words), first));
        visitor.visit_enum(Word(given))
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_string(visitor)
    }

    forward_to_deserialize_any! {
        i8 i16 i64 i128 u8 u16 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct ignored_any
    }
}

struct Word<'a>(StrDeserializer<'a, Refused>);

impl<'de, 'a> EnumAccess<'de> for Word<'a> {
    type Error = Refused;
    type Variant = <StrDeserializer<'a, Refused> as EnumAccess<'de>>::Variant;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self::Variant), Refused> {
        self.0.variant_seed(seed)
    }
}

/// One element of an array, or one entry of a map.
struct One<'a> {
    state: &'a State,
    path: String,
    given: bool,
}

impl<'de> SeqAccess<'de> for One<'_> {
    type Error = Refused;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Refused> {
        if std::mem::replace(&mut self.given, true) {
            return Ok(None);
        }
        seed.deserialize(Probe { state: self.state, path: self.path.clone() }).map(Some)
    }
}

impl<'de> MapAccess<'de> for One<'_> {
    type Error = Refused;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Refused> {
        if std::mem::replace(&mut self.given, true) {
            return Ok(None);
        }
        seed.deserialize(BorrowedStrDeserializer::new("key")).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Refused> {
        seed.deserialize(Probe { state: self.state, path: self.path.clone() })
    }
}

/// The keys of an object, one after the other.
struct Fields<'a> {
    state: &'a State,
    path: String,
    fields: std::slice::Iter<'static, &'static str>,
    next: Option<&'static str>,
    keys: &'a mut Vec<Key>,
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Refused;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Refused> {
        let without = self.state.without.borrow().clone();
        let there = |name: &&&'static str| without.as_ref() != Some(&format!("{}.{name}", self.path));
        self.next = self.fields.by_ref().find(there).copied();
        self.next.map(|name| seed.deserialize(BorrowedStrDeserializer::new(name))).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Refused> {
        let name = self.next.take().unwrap_or_default();
        let value = seed.deserialize(Probe { state: self.state, path: format!("{}.{name}", self.path) })?;
        let shape = self.state.found.take().ok_or_else(|| Refused(format!("{name} takes nothing")))?;
        self.keys.push(Key { name, shape, required: false });
        Ok(value)
    }
}
