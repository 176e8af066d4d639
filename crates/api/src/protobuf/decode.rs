//! From a message to the JSON that Go would have written.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::fmt::temporal::DateTimePrinter;
use serde_json::{Map, Number, Value, json};

use crate::protobuf::messages::{Field, Kind, Message, Messages};
use crate::protobuf::wire::{self, Datum};

/// Deeper than any kind; JSON has such a limit, too.
const DEPTH: usize = 64;

/// Why a body cannot be decoded.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// It does not begin as all do.
    #[error("the body does not begin with Kubernetes' protobuf prefix")]
    NoMagic,
    /// It is of a kind without a known message.
    #[error("no kind {kind:?} is registered for version {api_version:?}")]
    UnknownKind {
        /// Its version.
        api_version: String,
        /// Its kind.
        kind: String,
    },
    /// The bytes are no protobuf, or not of this message.
    #[error("the body is not the protobuf message that it says it is")]
    Malformed,
    /// Messages in messages without end.
    #[error("the body is nested too deeply")]
    TooDeep,
}

/// Decodes messages, and counts how deep it is.
pub struct Decoder<'a> {
    messages: &'a Messages,
    depth: usize,
}

impl<'a> Decoder<'a> {
    /// A decoder of these messages.
    pub fn new(messages: &'a Messages) -> Self {
        Self { messages, depth: 0 }
    }

    /// Adds a message's fields to an object.
    pub fn message_into(
        &mut self,
        object: &mut Map<String, Value>,
        name: &str,
        bytes: &[u8],
    ) -> Result<(), DecodeError> {
        let message = self.messages.get(name).ok_or(DecodeError::Malformed)?;
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(DecodeError::TooDeep);
        }
        for field in wire::fields(bytes) {
            let (number, datum) = field?;
            // A newer client's field that this version does not know.
            if let Some(field) = message.fields.get(&number) {
                self.field_into(object, field, datum)?;
            }
        }
        self.depth -= 1;
        Ok(())
    }

    fn field_into(
        &mut self,
        object: &mut Map<String, Value>,
        field: &Field,
        datum: Datum<'_>,
    ) -> Result<(), DecodeError> {
        if field.inline
            && let (Kind::Message(name), Datum::Bytes(bytes)) = (&field.kind, datum)
        {
            return self.message_into(object, name, bytes);
        }
        if field.map {
            let (key, value) = self.map_entry(field, datum)?;
            let entries = object.entry(&field.name).or_insert_with(|| json!({}));
            if let Some(entries) = entries.as_object_mut() {
                entries.insert(key, value);
            }
        } else if field.repeated {
            let items = self.items(field, datum)?;
            let list = object.entry(&field.name).or_insert_with(|| json!([]));
            if let Some(list) = list.as_array_mut() {
                list.extend(items);
            }
        } else {
            let value = self.value(&field.kind, datum)?;
            if !value.is_null() && (field.keeps_empty || !is_empty(&value)) {
                object.insert(field.name.clone(), value);
            }
        }
        Ok(())
    }

    /// `{key = 1, value = 2}`; what is empty may be left out of it.
    fn map_entry(&mut self, field: &Field, datum: Datum<'_>) -> Result<(String, Value), DecodeError> {
        let Datum::Bytes(bytes) = datum else { return Err(DecodeError::Malformed) };
        let (mut key, mut value) = (String::new(), None);
        for part in wire::fields(bytes) {
            match part? {
                (1, Datum::Bytes(text)) => wire::text(text)?.clone_into(&mut key),
                (2, datum) => value = Some(self.value(&field.kind, datum)?),
                _ => {}
            }
        }
        match value {
            Some(value) => Ok((key, value)),
            None => Ok((key, self.value(&field.kind, Datum::Bytes(&[]))?)),
        }
    }

    fn items(&mut self, field: &Field, datum: Datum<'_>) -> Result<Vec<Value>, DecodeError> {
        if let (Kind::Int | Kind::Bool, Datum::Bytes(bytes)) = (&field.kind, datum) {
            return wire::packed(bytes)?.into_iter().map(|one| self.value(&field.kind, Datum::Varint(one))).collect();
        }
        Ok(vec![self.value(&field.kind, datum)?])
    }

    fn value(&mut self, kind: &Kind, datum: Datum<'_>) -> Result<Value, DecodeError> {
        match (kind, datum) {
            (Kind::Text, Datum::Bytes(bytes)) => Ok(json!(wire::text(bytes)?)),
            (Kind::Bytes, Datum::Bytes(bytes)) => Ok(json!(STANDARD.encode(bytes))),
            (Kind::Bool, Datum::Varint(number)) => Ok(json!(number != 0)),
            (Kind::Int, Datum::Varint(number)) => Ok(json!(number.cast_signed())),
            (Kind::Double, Datum::Fixed64(bits)) => {
                Ok(Number::from_f64(f64::from_bits(bits)).map_or(Value::Null, Value::Number))
            }
            (Kind::Message(name), Datum::Bytes(bytes)) => self.message(name, bytes),
            _ => Err(DecodeError::Malformed),
        }
    }

    fn message(&mut self, name: &str, bytes: &[u8]) -> Result<Value, DecodeError> {
        match name {
            "k8s.io.apimachinery.pkg.api.resource.Quantity" => Ok(json!(wire::text(parts(bytes)?.bytes)?)),
            "k8s.io.apimachinery.pkg.apis.meta.v1.Time" => time(bytes, None),
            "k8s.io.apimachinery.pkg.apis.meta.v1.MicroTime" => time(bytes, Some(6)),
            "k8s.io.apimachinery.pkg.util.intstr.IntOrString" => int_or_string(bytes),
            // JSON within protobuf.
            "k8s.io.apimachinery.pkg.apis.meta.v1.FieldsV1" | "k8s.io.apimachinery.pkg.runtime.RawExtension" => {
                let raw = parts(bytes)?.bytes;
                if raw.is_empty() {
                    return Ok(Value::Null);
                }
                serde_json::from_slice(raw).map_err(|_no_json| DecodeError::Malformed)
            }
            _ => {
                let mut object = Map::new();
                self.message_into(&mut object, name, bytes)?;
                let list = self.messages.get(name).is_some_and(|message: &Message| message.list);
                Ok(if list { object.remove("items").unwrap_or_else(|| json!([])) } else { Value::Object(object) })
            }
        }
    }
}

/// The first two numbers and the last bytes of a small message.
#[derive(Default)]
struct Parts<'a> {
    first: u64,
    second: u64,
    bytes: &'a [u8],
}

fn parts(bytes: &[u8]) -> Result<Parts<'_>, DecodeError> {
    let mut parts = Parts::default();
    for field in wire::fields(bytes) {
        match field? {
            (1, Datum::Varint(number)) => parts.first = number,
            (2, Datum::Varint(number)) => parts.second = number,
            (_, Datum::Bytes(bytes)) => parts.bytes = bytes,
            _ => {}
        }
    }
    Ok(parts)
}

/// Seconds and nanoseconds. None of both is Go's zero time, which is no time.
fn time(bytes: &[u8], precision: Option<u8>) -> Result<Value, DecodeError> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let parts = parts(bytes)?;
    let nanos = i32::try_from(parts.second).map_err(|_too_many| DecodeError::Malformed)?;
    let nanos = if precision.is_some() { nanos } else { 0 };
    let time =
        jiff::Timestamp::new(parts.first.cast_signed(), nanos).map_err(|_out_of_range| DecodeError::Malformed)?;
    let printer = DateTimePrinter::new().precision(precision);
    Ok(json!(printer.timestamp_to_string(&time)))
}

/// type = 1 (0 is a number), intVal = 2, strVal = 3.
fn int_or_string(bytes: &[u8]) -> Result<Value, DecodeError> {
    let parts = parts(bytes)?;
    if parts.first == 0 { Ok(json!(parts.second.cast_signed())) } else { Ok(json!(wire::text(parts.bytes)?)) }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(truth) => !truth,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(_) | Value::Object(_) => false,
    }
}
