//! What a registry asks for when it answers 401: the `WWW-Authenticate` header (RFC 9110, 11.6.1).

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

/// How to prove who one is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User and password with each request (RFC 7617).
    Basic,
    /// A token from somewhere else (distribution-spec, "Token authentication").
    Bearer {
        /// Who gives tokens.
        realm: String,
        /// For what, in the realm's words.
        service: Option<String>,
    },
}

/// The challenge that we can answer best.
pub(super) fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    let values = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    let mut all: Vec<Challenge> = values.filter_map(parse).collect();
    spec::ordered::sort_by_key(&mut all, |challenge| matches!(challenge, Challenge::Basic));
    all.into_iter().next()
}

fn parse(value: &str) -> Option<Challenge> {
    let (scheme, rest) = value.trim().split_once(' ').unwrap_or((value.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let (mut realm, mut service) = (None, None);
    let mut rest = rest;
    while let Some((name, value, after)) = parameter(rest) {
        if name.eq_ignore_ascii_case("realm") {
            realm = Some(value);
        } else if name.eq_ignore_ascii_case("service") {
            service = Some(value);
        }
        rest = after;
    }
    Some(Challenge::Bearer { realm: realm?, service })
}

/// `name="value"` or `name=value`, and what comes after it.
fn parameter(text: &str) -> Option<(&str, String, &str)> {
    let (name, rest) = text.trim_start_matches([' ', ',']).split_once('=')?;
    let Some(quoted) = rest.strip_prefix('"') else {
        let (value, after) = rest.split_once(',').unwrap_or((rest, ""));
        return Some((name.trim(), value.trim().to_owned(), after));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((name.trim(), value, quoted.get(at + 1..).unwrap_or_default())),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(values: &[&'static str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, http::HeaderValue::from_static(value));
        }
        challenge(&headers)
    }

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        let bearer = |realm: &str, service: Option<&str>| {
            Some(Challenge::Bearer { realm: realm.to_owned(), service: service.map(str::to_owned) })
        };
        let hub =
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a:pull""#;
        assert_eq!(asked(&[hub]), bearer("https://auth.docker.io/token", Some("registry.docker.io")));
        assert_eq!(asked(&["bearer service=a , realm=https://b"]), bearer("https://b", Some("a")));
        assert_eq!(asked(&[r#"Bearer realm="https://a/?x=\"1,2\"""#]), bearer(r#"https://a/?x="1,2""#, None));
        assert_eq!(asked(&["Basic realm=\"x\"", "Bearer realm=\"https://b\""]), bearer("https://b", None));
        assert_eq!(asked(&["Basic realm=\"x\""]), Some(Challenge::Basic));
        for nothing in ["Negotiate", "Bearer", "Bearer service=\"a\"", "Bearer realm=\"endless", ""] {
            assert_eq!(asked(&[nothing]), None, "{nothing}");
        }
        assert_eq!(asked(&[]), None);
    }
}
