//! Headers that go no further, in either direction.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, AUTHORIZATION, CONNECTION, SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::access::impersonate;
use crate::access::tokens::IN_SUBPROTOCOL;

/// Headers of one connection, not of the message (RFC 9110 §7.6.1; Go's `httputil.ReverseProxy`).
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "proxy-connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

/// The protocol that the client wants to change to.
pub fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut words = list(headers, &CONNECTION);
    words.any(|word| word.eq_ignore_ascii_case("upgrade")).then(|| headers.get(UPGRADE).cloned())?
}

/// The request as the Pod's server gets it: nothing by which the client is known here, nothing of this connection.
pub fn clean_request(headers: &mut HeaderMap, uri: &str) {
    drop_hops(headers);
    headers.remove(AUTHORIZATION);
    let of_impersonation = |name: &&HeaderName| name.as_str().starts_with(impersonate::PREFIX);
    let names: Vec<HeaderName> = headers.keys().filter(of_impersonation).cloned().collect();
    for name in names {
        headers.remove(name);
    }
    let protocols: Vec<String> = list(headers, &SEC_WEBSOCKET_PROTOCOL)
        .filter(|protocol| !protocol.starts_with(IN_SUBPROTOCOL))
        .map(str::to_owned)
        .collect();
    headers.remove(SEC_WEBSOCKET_PROTOCOL);
    if let Ok(protocols) = HeaderValue::from_str(&protocols.join(", "))
        && !protocols.is_empty()
    {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, protocols);
    }
    if let Ok(uri) = HeaderValue::from_str(uri) {
        headers.insert(FORWARDED_URI, uri);
    }
}

/// The answer as the client gets it: a Pod does not say which sites may use this server.
pub fn clean_answer(headers: &mut HeaderMap) {
    drop_hops(headers);
    for name in [
        ACCESS_CONTROL_ALLOW_CREDENTIALS,
        ACCESS_CONTROL_ALLOW_HEADERS,
        ACCESS_CONTROL_ALLOW_METHODS,
        ACCESS_CONTROL_ALLOW_ORIGIN,
    ] {
        headers.remove(name);
    }
}

fn drop_hops(headers: &mut HeaderMap) {
    let named: Vec<String> = list(headers, &CONNECTION).map(str::to_lowercase).collect();
    for name in named.iter().map(String::as_str).chain(HOP_BY_HOP) {
        headers.remove(name);
    }
}

fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_credentials_nor_what_is_of_the_connection_reach_the_pod() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer secret"),
            ("connection", "Upgrade, X-Mine"),
            ("upgrade", "websocket"),
            ("x-mine", "1"),
            ("te", "trailers"),
            ("sec-websocket-protocol", "chat, base64url.bearer.authorization.k8s.io.c2VjcmV0"),
            ("accept", "text/html"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        assert_eq!(upgrade(&headers).unwrap(), "websocket");
        clean_request(&mut headers, "/api/x");
        let mut left: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        left.sort();
        assert_eq!(left, ["accept: text/html", "sec-websocket-protocol: chat", "x-forwarded-uri: /api/x"]);
        assert_eq!(upgrade(&headers), None);
    }
}
