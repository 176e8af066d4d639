//! Asks Kubernetes' own types for their fields, so that the table cannot miss one.

use std::cell::RefCell;
use std::collections::BTreeMap;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor,
    value::{Error, StrDeserializer},
};

/// The field names of each object below `T`, by path: `spec.containers[]` has `name`, `image`, ….
pub(super) fn fields_of<'de, T: Deserialize<'de>>() -> BTreeMap<String, Vec<&'static str>> {
    let found = RefCell::new(BTreeMap::new());
    T::deserialize(Discover { path: String::new(), found: &found }).unwrap();
    found.into_inner()
}

/// A document that has every field once, made up while it is read.
struct Discover<'a> {
    path: String,
    found: &'a RefCell<BTreeMap<String, Vec<&'static str>>>,
}

impl<'de> Deserializer<'de> for Discover<'_> {
    type Error = Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.found.borrow_mut().insert(self.path.clone(), fields.to_vec());
        visitor.visit_map(EachField { of: self, rest: fields, now: "" })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Error> {
        if name.contains("Time") {
            return visitor.visit_newtype_struct(StrDeserializer::new("2020-01-01T00:00:00Z"));
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let path = format!("{}[]", self.path);
        visitor.visit_seq(One(Some(Discover { path, found: self.found })))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_map(Nothing)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_bool(true)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_str(match self.path.as_str() {
            "apiVersion" => "v1",
            "kind" => "Pod",
            _ => "",
        })
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_i32(1)
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct enum
        identifier ignored_any
    }
}

struct EachField<'a> {
    of: Discover<'a>,
    rest: &'static [&'static str],
    now: &'static str,
}

impl<'de> MapAccess<'de> for EachField<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some((now, rest)) = self.rest.split_first() else { return Ok(None) };
        (self.now, self.rest) = (now, rest);
        seed.deserialize(StrDeserializer::new(now)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let dot = if self.of.path.is_empty() { "" } else { "." };
        seed.deserialize(Discover { path: format!("{}{dot}{}", self.of.path, self.now), found: self.of.found })
    }
}

struct One<'a>(Option<Discover<'a>>);

impl<'de> SeqAccess<'de> for One<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        self.0.take().map(|item| seed.deserialize(item)).transpose()
    }
}

struct Nothing;

impl<'de> MapAccess<'de> for Nothing {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, _: K) -> Result<Option<K::Value>, Error> {
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, _: V) -> Result<V::Value, Error> {
        unreachable!("there is no key")
    }
}
