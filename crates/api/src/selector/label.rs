//! Label selectors: `a=b,a!=b,a in (x,y),a notin (..),a,!a` (kubernetes.io, "Labels and Selectors").

use serde_json::Value;
use store::StoredObject;

use crate::fields::at;
use crate::http::status::ApiError;

/// All of these must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector(Vec<Requirement>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    Exists,
    Absent,
    In(Vec<String>),
    NotIn(Vec<String>),
    Above(i64),
    Below(i64),
}

impl LabelSelector {
    /// Parses the text of `labelSelector`; empty selects all.
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        let mut parser = Parser { rest: text };
        let mut requirements = Vec::new();
        parser.skip_spaces();
        while !parser.rest.is_empty() {
            requirements.push(parser.requirement().map_err(|why| {
                ApiError::bad_request(format!("unable to parse requirement: {why} in label selector {text:?}"))
            })?);
            let more = parser.take(",");
            if more == parser.rest.is_empty() {
                let (found, wanted) =
                    (parser.rest, if more { "identifier after ','" } else { "',' or 'end of string'" });
                let why = format!("unable to parse requirement: found {found:?}, expected: {wanted}");
                return Err(ApiError::bad_request(why));
            }
        }
        Ok(Self(requirements))
    }

    /// Whether its bytes have what is asked for, anywhere: all others need not be read. Values are words that JSON has as they are.
    pub fn may_match(&self, object: &StoredObject) -> bool {
        self.0.iter().all(|requirement| match &requirement.test {
            Test::In(values) => values.iter().any(|value| object.mentions(value)),
            Test::Exists | Test::Absent | Test::NotIn(_) | Test::Above(_) | Test::Below(_) => true,
        })
    }

    /// Whether the labels of `object` pass every requirement.
    pub fn matches(&self, object: &Value) -> bool {
        let labels = at(object, "/metadata/labels");
        self.0.iter().all(|requirement| {
            requirement.test.holds(labels.and_then(|labels| labels.get(&requirement.key)).and_then(Value::as_str))
        })
    }
}

impl Test {
    fn holds(&self, value: Option<&str>) -> bool {
        let is_one_of = |values: &[String]| value.is_some_and(|value| values.iter().any(|wanted| wanted == value));
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match self {
            Self::Exists => value.is_some(),
            Self::Absent => value.is_none(),
            Self::In(values) => is_one_of(values),
            // An object without the label passes, as upstream has it.
            Self::NotIn(values) => !is_one_of(values),
            Self::Above(limit) => number().is_some_and(|number| number > *limit),
            Self::Below(limit) => number().is_some_and(|number| number < *limit),
        }
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn requirement(&mut self) -> Result<Requirement, String> {
        if self.take("!") {
            return Ok(Requirement { key: self.key()?, test: Test::Absent });
        }
        let key = self.key()?;
        let test = if self.take("==") || self.take("=") {
            Test::In(vec![self.value()?])
        } else if self.take("!=") {
            Test::NotIn(vec![self.value()?])
        } else if self.take(">") {
            Test::Above(self.number()?)
        } else if self.take("<") {
            Test::Below(self.number()?)
        } else if self.take_word("notin") {
            Test::NotIn(self.values()?)
        } else if self.take_word("in") {
            Test::In(self.values()?)
        } else {
            Test::Exists
        };
        Ok(Requirement { key, test })
    }

    fn key(&mut self) -> Result<String, String> {
        let key = self.word();
        if key.is_empty() { Err(format!("found {:?}, expected: identifier", self.rest)) } else { Ok(key.to_owned()) }
    }

    fn value(&mut self) -> Result<String, String> {
        let value = self.word();
        let label = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if value.len() > 63 || !value.chars().all(label) {
            return Err(format!("invalid label value {value:?}"));
        }
        Ok(value.to_owned())
    }

    fn number(&mut self) -> Result<i64, String> {
        let word = self.word();
        word.parse().map_err(|error| format!("{word:?} is no whole number ({error})"))
    }

    fn values(&mut self) -> Result<Vec<String>, String> {
        if !self.take("(") {
            return Err(format!("found {:?}, expected: '('", self.rest));
        }
        let mut values = vec![self.value()?];
        while self.take(",") {
            values.push(self.value()?);
        }
        if self.take(")") { Ok(values) } else { Err(format!("found {:?}, expected: ',' or ')'", self.rest)) }
    }

    fn word(&mut self) -> &'a str {
        let end = self.rest.find(|c: char| c.is_whitespace() || "=!,()<>".contains(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        self.skip_spaces();
        word
    }

    fn take(&mut self, token: &str) -> bool {
        let Some(rest) = self.rest.strip_prefix(token) else { return false };
        self.rest = rest;
        self.skip_spaces();
        true
    }

    fn take_word(&mut self, word: &str) -> bool {
        let ended = |rest: &str| rest.starts_with(|c: char| c.is_whitespace() || c == '(');
        self.rest.strip_prefix(word).is_some_and(ended) && self.take(word)
    }

    fn skip_spaces(&mut self) {
        self.rest = self.rest.trim_start();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_select() {
        let object = json!({"metadata": {"labels": {"app": "web", "tier": "front", "in": "x", "n": "7", "e": ""}}});
        let cases = [
            ("", true),
            ("app=web", true),
            ("app==web", true),
            ("app = web , tier = front", true),
            ("app=db", false),
            ("app!=db", true),
            ("app!=web", false),
            ("missing!=x", true),
            ("missing=x", false),
            ("app in (db, web)", true),
            ("app in (db)", false),
            ("app notin (db,cache)", true),
            ("app notin (web)", false),
            ("missing notin (web)", true),
            ("app", true),
            ("!app", false),
            ("!missing", true),
            ("in", true),
            ("in=x,app=web", true),
            ("n>6", true),
            ("n<7", false),
            ("e=", true),
            ("e in ()", true),
            ("app=web,tier=back", false),
        ];
        for (text, want) in cases {
            assert_eq!(LabelSelector::parse(text).unwrap().matches(&object), want, "{text:?}");
        }
    }

    #[test]
    fn bad_selectors_are_refused() {
        for text in ["=a", "a in b", "a in (b", "a b", "a=b c", "a>x", "a=b/c", ",a", "a,", "!"] {
            assert!(LabelSelector::parse(text).is_err(), "{text:?} must be refused");
        }
    }

    #[test]
    fn an_object_without_labels_has_none() {
        assert!(LabelSelector::parse("!a").unwrap().matches(&json!({"metadata": {}})));
        assert!(!LabelSelector::parse("a").unwrap().matches(&json!({})));
    }
}
