//! The one form that Kubernetes' types are read from: a JSON value, with its place in the document.
//!
//! Reading a type is generic code of some kilobytes, and a Pod has hundreds of types. Were they read from several forms, each
//! of them would be in the program several times; so what is wanted of all of them is in this one: it notes fields that the
//! type does not know, and where it failed.

use std::cell::RefCell;

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, Expected, IntoDeserializer as _, MapAccess, SeqAccess, Unexpected,
    Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::{Error, Map, Value};

/// What is found on the way.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Whether `metadata.managedFields` is passed over.
    pub(super) without_owners: bool,
    /// Fields that the types do not know.
    pub(super) unknown: Vec<String>,
    /// Where the first failure was.
    pub(super) failed: Option<String>,
}

/// A place in the document.
#[derive(Debug, Clone, Copy)]
pub(super) enum Path<'a> {
    Root,
    Field(&'a Path<'a>, &'a str),
    Item(&'a Path<'a>, usize),
}

impl Path<'_> {
    /// As Kubernetes writes it: `spec.containers[0].image`.
    fn write(&self, text: &mut String) {
        match self {
            Path::Root => {}
            Path::Field(parent, name) => {
                parent.write(text);
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(name);
            }
            Path::Item(parent, index) => {
                parent.write(text);
                text.push('[');
                text.push_str(&index.to_string());
                text.push(']');
            }
        }
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text);
        text
    }
}

/// A value that is being read.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'de, 'a> {
    value: &'de Value,
    path: &'a Path<'a>,
    notes: &'a RefCell<Notes>,
}

impl<'de, 'a> Reader<'de, 'a> {
    /// Reads from a whole document.
    pub(super) fn new(document: &'de Value, notes: &'a RefCell<Notes>) -> Self {
        Self { value: document, path: &Path::Root, notes }
    }

    /// Reads a part, and notes where it was if that fails: the innermost place comes first.
    fn part<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(self).inspect_err(|_| self.note_failure())
    }

    #[cold]
    fn note_failure(&self) {
        self.notes.borrow_mut().failed.get_or_insert_with(|| self.path.text());
    }

    #[cold]
    fn note_unknown(&self) {
        self.notes.borrow_mut().unknown.push(self.path.text());
    }

    /// As serde says it where a type wants something else.
    #[cold]
    fn wrong_type(&self, wanted: &dyn Expected) -> Error {
        let found = match self.value {
            Value::Null => Unexpected::Unit,
            Value::Bool(is) => Unexpected::Bool(*is),
            Value::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(number), _) => Unexpected::Unsigned(number),
                (None, Some(number)) => Unexpected::Signed(number),
                (None, None) => Unexpected::Float(number.as_f64().unwrap_or_default()),
            },
            Value::String(text) => Unexpected::Str(text),
            Value::Array(_) => Unexpected::Seq,
            Value::Object(_) => Unexpected::Map,
        };
        Error::invalid_type(found, wanted)
    }
}

/// Types of one form only are asked for that one: with all of them, each type would have its own code to refuse the others.
impl<'de> Deserializer<'de> for Reader<'de, '_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(is) => visitor.visit_bool(*is),
            Value::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(number), _) => visitor.visit_u64(number),
                (None, Some(number)) => visitor.visit_i64(number),
                (None, None) => visitor.visit_f64(number.as_f64().unwrap_or_default()),
            },
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Array(items) => visitor.visit_seq(Items { of: self, rest: items.iter().enumerate() }),
            Value::Object(fields) => visitor.visit_map(Fields::new(self, fields)),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Bool(is) => visitor.visit_bool(*is),
            _ => Err(self.wrong_type(&visitor)),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::String(text) => visitor.visit_borrowed_str(text),
            _ => Err(self.wrong_type(&visitor)),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Array(items) => visitor.visit_seq(Items { of: self, rest: items.iter().enumerate() }),
            _ => Err(self.wrong_type(&visitor)),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Object(fields) => visitor.visit_map(Fields::new(self, fields)),
            _ => Err(self.wrong_type(&visitor)),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_map(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.value.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    /// What a type skips, it does not know.
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.note_unknown();
        visitor.visit_unit()
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.value {
            Value::String(name) => visitor.visit_enum(name.as_str().into_deserializer()),
            _ => Err(Error::custom("expected a text")),
        }
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct identifier
    }
}

struct Items<'de, 'a> {
    of: Reader<'de, 'a>,
    rest: std::iter::Enumerate<std::slice::Iter<'de, Value>>,
}

impl<'de> SeqAccess<'de> for Items<'de, '_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Some((index, value)) = self.rest.next() else { return Ok(None) };
        Reader { value, path: &Path::Item(self.of.path, index), notes: self.of.notes }.part(seed).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
}

struct Fields<'de, 'a> {
    of: Reader<'de, 'a>,
    rest: serde_json::map::Iter<'de>,
    now: Option<(&'de str, &'de Value)>,
}

impl<'de, 'a> Fields<'de, 'a> {
    fn new(of: Reader<'de, 'a>, fields: &'de Map<String, Value>) -> Self {
        Self { of, rest: fields.iter(), now: None }
    }

    /// Goes on to the next field, and gives its name.
    fn advance(&mut self) -> Option<&'de str> {
        let (mut name, mut value) = self.rest.next()?;
        if name == "managedFields" && self.is_without_owners() {
            (name, value) = self.rest.next()?;
        }
        self.now = Some((name, value));
        Some(name)
    }

    /// The field whose name was given.
    fn take(&mut self) -> Result<(&'de str, &'de Value), Error> {
        self.now.take().ok_or_else(|| Error::custom("a value without a name"))
    }

    fn is_without_owners(&self) -> bool {
        matches!(self.of.path, Path::Field(Path::Root, "metadata")) && self.of.notes.borrow().without_owners
    }
}

impl<'de> MapAccess<'de> for Fields<'de, '_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some(name) = self.advance() else { return Ok(None) };
        seed.deserialize(BorrowedStrDeserializer::new(name)).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Error> {
        let (name, value) = self.take()?;
        Reader { value, path: &Path::Field(self.of.path, name), notes: self.of.notes }.part(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
}
