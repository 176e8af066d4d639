//! Bearer tokens: who their bearer is.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};

use crate::access::Identity;
use crate::context::Context;

/// A browser cannot set headers of a WebSocket, so it offers its token as a subprotocol.
pub const IN_SUBPROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// The token that a request carries.
pub fn of_request(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get_all(name).into_iter().filter_map(|value: &http::HeaderValue| value.to_str().ok());
    if let Some((scheme, token)) = text(AUTHORIZATION).find_map(|value| value.trim().split_once(' '))
        && scheme.eq_ignore_ascii_case("bearer")
    {
        return Some(token.trim().to_owned());
    }
    let mut offered = text(SEC_WEBSOCKET_PROTOCOL).flat_map(|value| value.split(',')).map(str::trim);
    let encoded = offered.find_map(|protocol| protocol.strip_prefix(IN_SUBPROTOCOL))?;
    String::from_utf8(URL_SAFE_NO_PAD.decode(encoded).ok()?).ok()
}

/// Whose token this is: the ServiceAccount's that it was issued for, while all that it is bound to is there.
pub fn bearer(context: &Context, token: &str) -> Option<Identity> {
    review(context, token, &[]).ok().map(|(identity, _audiences)| identity)
}

/// Whose token for one of these audiences this is, and for which of them; for this server where none is named.
pub fn review(
    context: &Context,
    token: &str,
    audiences: &[String],
) -> Result<(Identity, Vec<String>), agent::TokenError> {
    let user = context.agent.tokens().verify(token, audiences, &context.store, Context::now())?;
    let key = |field: &str| format!("authentication.kubernetes.io/{field}");
    let mut extra = vec![(key("credential-id"), vec![format!("JTI={}", user.id)])];
    if let Some(pod) = user.pod {
        extra.extend([(key("pod-name"), vec![pod.name]), (key("pod-uid"), vec![pod.uid])]);
    }
    let for_whom = user.audiences.into_iter().filter(|audience| audiences.is_empty() || audiences.contains(audience));
    let for_whom = for_whom.collect();
    Ok((Identity { name: user.name, uid: user.uid, groups: user.groups, extra }, for_whom))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_in_a_header_or_a_subprotocol() {
        let table = [
            ("authorization", "Bearer abc", Some("abc")),
            ("authorization", "bearer  abc ", Some("abc")),
            ("authorization", "Basic abc", None),
            ("authorization", "abc", None),
            ("sec-websocket-protocol", "base64url.bearer.authorization.k8s.io.YWJj, v5.channel.k8s.io", Some("abc")),
            ("sec-websocket-protocol", "v5.channel.k8s.io", None),
            ("sec-websocket-protocol", "base64url.bearer.authorization.k8s.io.%%", None),
        ];
        for (name, value, want) in table {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            assert_eq!(of_request(&headers).as_deref(), want, "{name}: {value}");
        }
    }
}
