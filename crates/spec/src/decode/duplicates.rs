//! JSON and YAML as one value, with a note of each field that stands twice in an object: the last one counts, so a reader is
//! misled.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::DuplicateKeyPolicy;

use super::reader::Path;

/// Reads JSON, and names each field that stands more than once by its path.
pub fn read_json(json: &[u8]) -> Result<(Value, Vec<String>), serde_json::Error> {
    let twice = RefCell::default();
    let mut reader = serde_json::Deserializer::from_slice(json);
    let value = Noting { path: &Path::Root, twice: &twice }.deserialize(&mut reader)?;
    reader.end()?;
    Ok((value, twice.into_inner()))
}

/// The same with one YAML document; the parser's budget refuses deep nesting and anchors that multiply (CVE-2019-11253).
pub fn read_yaml(yaml: &[u8]) -> Result<(Value, Vec<String>), Box<serde_saphyr::Error>> {
    let twice = RefCell::default();
    let options = serde_saphyr::options! { duplicate_keys: DuplicateKeyPolicy::PassThrough };
    let read =
        |reader: serde_saphyr::Deserializer<'_, '_>| Noting { path: &Path::Root, twice: &twice }.deserialize(reader);
    let value = serde_saphyr::with_deserializer_from_slice_with_options(yaml, options, read)?;
    Ok((value, twice.into_inner()))
}

#[derive(Clone, Copy)]
struct Noting<'a> {
    path: &'a Path<'a>,
    twice: &'a RefCell<Vec<String>>,
}

impl<'de> DeserializeSeed<'de> for Noting<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Noting<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any valid JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            let path = Path::Field(self.path, &name);
            let value = map.next_value_seed(Noting { path: &path, ..self })?;
            if fields.contains_key(&name) {
                let path = path.text();
                let mut twice = self.twice.borrow_mut();
                if !twice.contains(&path) {
                    twice.push(path);
                }
            }
            fields.insert(name, value);
        }
        Ok(Value::Object(fields))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Noting { path: &Path::Item(self.path, list.len()), ..self })? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, is: bool) -> Result<Value, E> {
        Ok(Value::Bool(is))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Number::from_f64(number).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_field_that_stands_twice_is_named_once() {
        let table: [(&str, &[&str]); 5] = [
            (r#"{"a": 1, "b": {"a": [1, 1.5, -1, null, true, "x"]}}"#, &[]),
            (r#"{"a": 1, "a": 2, "a": 3}"#, &["a"]),
            (r#"{"spec": {"x": [{"n": 1}, {"n": 1, "n": {}}]}}"#, &["spec.x[1].n"]),
            (r#"{"spec": {"x": 1}, "spec": {"y": 1, "y": 2}}"#, &["spec.y", "spec"]),
            ("[]", &[]),
        ];
        for (text, expected) in table {
            let last_wins: Value = serde_json::from_str(text).unwrap();
            assert_eq!(read_json(text.as_bytes()).unwrap(), (last_wins.clone(), owned(expected)), "{text}");
            assert_eq!(read_yaml(text.as_bytes()).unwrap(), (last_wins, owned(expected)), "{text}");
        }
        assert!(read_json(br#"{"a": 1, "a": "#).is_err());
        assert!(read_json(b"{} x").is_err());
    }

    #[test]
    fn in_yaml_the_last_one_counts_too() {
        let (value, twice) = read_yaml(b"a: 1\nb: {c: x, c: [~, 1.5]}\na: yes\n").unwrap();
        assert_eq!((value, twice), (json!({"a": true, "b": {"c": [null, 1.5]}}), owned(&["b.c", "a"])));
    }

    fn owned(paths: &[&str]) -> Vec<String> {
        paths.iter().map(|path| (*path).to_owned()).collect()
    }
}
