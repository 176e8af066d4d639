//! The query string of a request.

use crate::http::status::ApiError;

/// Decoded parameters in their order. Empty ones (`?&watch=1`, as kube-rs writes) are skipped.
#[derive(Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Takes the part of the URL after `?`.
    pub fn parse(text: Option<&str>) -> Self {
        let pairs = form_urlencoded::parse(text.unwrap_or_default().as_bytes());
        Self(pairs.filter(|(name, _)| !name.is_empty()).map(|(n, v)| (n.into_owned(), v.into_owned())).collect())
    }

    /// The first value of a parameter that is not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, value)| n == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    /// All values of a parameter.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> + use<'a> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// A boolean as apimachinery reads it: present means true, but for `false` and `0`.
    pub fn flag(&self, name: &str) -> bool {
        self.all(name).next().is_some_and(|value| !value.eq_ignore_ascii_case("false") && value != "0")
    }

    /// A number.
    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, ApiError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_not_a_number) => {
                Err(ApiError::bad_request(format!("invalid query parameter {name}={text:?}: a number is expected")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_empty_ones_skipped() {
        let query =
            Query::parse(Some("?&watch=1&labelSelector=a%3Db+c&command=sh&command=-c&x=".trim_start_matches('?')));
        assert_eq!(query.get("labelSelector"), Some("a=b c"));
        assert_eq!(query.all("command").collect::<Vec<_>>(), ["sh", "-c"]);
        assert_eq!(query.get("x"), None);
    }

    #[test]
    fn a_flag_is_true_but_for_false_and_0() {
        for (text, want) in [
            ("f=true", true),
            ("f=1", true),
            ("f", true),
            ("f=", true),
            ("f=0", false),
            ("f=False", false),
            ("", false),
        ] {
            assert_eq!(Query::parse(Some(text)).flag("f"), want, "{text:?}");
        }
    }

    #[test]
    fn a_number_that_is_none_is_named() {
        let error = Query::parse(Some("limit=ten")).number::<u64>("limit").unwrap_err();
        assert_eq!(error.to_string(), "invalid query parameter limit=\"ten\": a number is expected");
    }
}
