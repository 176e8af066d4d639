//! Field selectors: `k=v`, `k==v`, `k!=v`, all of which must hold; which fields there are is the kind's own word.

use serde_json::Value;

use crate::http::status::ApiError;
use crate::kinds::{FieldReader, Kind};

/// All of these must hold.
#[derive(Debug, Clone, Default)]
pub struct FieldSelector(Vec<Term>);

#[derive(Debug, Clone)]
struct Term {
    read: FieldReader,
    equal: bool,
    value: String,
}

impl FieldSelector {
    /// Parses the text of `fieldSelector`; a field that the kind cannot select by is refused.
    pub fn parse(kind: &Kind, text: &str) -> Result<Self, ApiError> {
        let terms = split_terms(text).into_iter().filter(|term| !term.is_empty());
        terms.map(|term| parse_term(kind, term, text)).collect::<Result<_, _>>().map(Self)
    }

    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `object` passes every term.
    pub fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|term| (term.read.of(object) == term.value) == term.equal)
    }
}

fn parse_term(kind: &Kind, term: &str, whole: &str) -> Result<Term, ApiError> {
    let (field, equal, value) = ["!=", "==", "="]
        .into_iter()
        .filter_map(|operator| Some((term.find(operator)?, operator)))
        .min_by_key(|(at, operator)| (*at, std::cmp::Reverse(operator.len())))
        .and_then(|(at, operator)| Some((term.get(..at)?, operator != "!=", term.get(at + operator.len()..)?)))
        .ok_or_else(|| ApiError::bad_request(format!("invalid selector: {whole:?}; can't understand {term:?}")))?;
    let read = kind.field(field).ok_or_else(|| ApiError::bad_request(format!("field label not supported: {field}")))?;
    Ok(Term { read, equal, value: unescape(value) })
}

/// Splits at commas that no backslash escapes.
fn split_terms(text: &str) -> Vec<&str> {
    let mut escaped = false;
    text.split(|c| {
        let separates = c == ',' && !escaped;
        escaped = c == '\\' && !escaped;
        separates
    })
    .collect()
}

fn unescape(value: &str) -> String {
    let mut plain = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        plain.push(if c == '\\' { chars.next().unwrap_or('\\') } else { c });
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds;
    use serde_json::json;

    #[test]
    fn pods_are_selected_by_their_fields() {
        let pod = json!({
            "metadata": {"name": "a,b", "namespace": "default"},
            "spec": {"nodeName": "n1", "restartPolicy": "Always"},
            "status": {"phase": "Running"},
        });
        let cases = [
            ("", true),
            ("metadata.namespace=default", true),
            ("metadata.name=a\\,b", true),
            ("spec.nodeName==n1,status.phase!=Failed", true),
            ("status.phase!=Running", false),
            ("status.phase!=Succeeded,status.phase!=Failed", true),
            ("status.podIP=", true),
            ("spec.hostNetwork=false", true),
        ];
        for (text, want) in cases {
            let selector = FieldSelector::parse(&kinds::POD, text).unwrap();
            assert_eq!(selector.matches(&pod), want, "{text:?}");
        }
    }

    #[test]
    fn an_unknown_field_is_named() {
        let error = FieldSelector::parse(&kinds::POD, "spec.hostname=x").unwrap_err();
        assert_eq!(error.to_string(), "field label not supported: spec.hostname");
        assert!(FieldSelector::parse(&kinds::POD, "metadata.name").is_err());
    }
}
