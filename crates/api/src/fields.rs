//! Reading an object's fields by their path, without allocating: `Value::pointer` copies each step to unescape it.

use serde_json::Value;

/// The field at a path such as `/status/podIPs/0/ip`. No step may need escaping.
pub fn at<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('/').skip(1).try_fold(object, |value, step| match value {
        Value::Object(fields) => fields.get(step),
        Value::Array(items) => items.get(step.parse::<usize>().ok()?),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    })
}

/// A text; empty if it is absent.
pub fn text_at<'a>(object: &'a Value, path: &str) -> &'a str {
    at(object, path).and_then(Value::as_str).unwrap_or_default()
}

/// The items of a list; none if it is absent.
pub fn items_at<'a>(object: &'a Value, path: &str) -> impl DoubleEndedIterator<Item = &'a Value> + use<'a> {
    at(object, path).and_then(Value::as_array).into_iter().flatten()
}

/// A boolean; false if it is absent.
pub fn flag_at(object: &Value, path: &str) -> bool {
    at(object, path).and_then(Value::as_bool).unwrap_or_default()
}

/// A whole number.
pub fn number_at(object: &Value, path: &str) -> Option<i64> {
    at(object, path).and_then(Value::as_i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_found_by_path() {
        let object = json!({"a": {"b": [{"c": "x", "n": 3, "t": true}]}, "n": null});
        assert_eq!(text_at(&object, "/a/b/0/c"), "x");
        assert_eq!((number_at(&object, "/a/b/0/n"), flag_at(&object, "/a/b/0/t")), (Some(3), true));
        assert_eq!(items_at(&object, "/a/b").count(), 1);
        for absent in ["/a/b/1/c", "/a/x", "/a/b/c", "/n/x", "/a/b/0/c/d"] {
            assert_eq!((at(&object, absent), text_at(&object, absent)), (None, ""), "{absent}");
        }
    }
}
