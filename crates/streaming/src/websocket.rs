//! The WebSocket handshake (RFC 6455 §4.2), with the choice of Kubernetes' subprotocol.

use http::header::{
    CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use http::{HeaderMap, Response, StatusCode};
use hyper::Request;
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use crate::refusal::{Refusal, empty};

/// The socket once it is open.
pub type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// No client sends more than 32 KiB at once; four MiB are taken.
const MAX_MESSAGE: usize = 4 << 20;

/// How much is read at once: each read clears so much memory first, however little comes.
const READ: usize = 16 << 10;

/// How the two sides talk once the socket is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// `channel.k8s.io`, or none named: from before v4. A failure is told as text, success by silence.
    V1,
    /// `v4.channel.k8s.io`: the client cannot close stdin alone.
    V4,
    /// `v5.channel.k8s.io`: a message on channel 255 closes one channel.
    V5,
}

impl Protocol {
    /// What is spoken for exec and attach.
    pub const ALL: &'static [(&'static str, Self)] = &[
        ("v5.channel.k8s.io", Self::V5),
        ("v4.channel.k8s.io", Self::V4),
        ("channel.k8s.io", Self::V1),
        ("", Self::V1),
    ];
}

/// A handshake that was accepted.
pub struct Handshake<P, F> {
    /// What was chosen.
    pub protocol: P,
    /// 101. The socket opens once this is sent.
    pub reply: Response<()>,
    /// Waits for the socket.
    pub open: F,
}

/// Whether the client asks for a WebSocket.
pub fn is_wanted(headers: &HeaderMap) -> bool {
    words(headers, &UPGRADE).any(|word| word.eq_ignore_ascii_case("websocket"))
}

/// Accepts the handshake with one of the protocols that are `spoken`, or says why not.
pub fn accept<P: Copy>(
    request: &mut Request<Incoming>,
    spoken: &'static [(&'static str, P)],
) -> Result<Handshake<P, impl Future<Output = Result<Socket, hyper::Error>> + Send + use<P>>, Refusal> {
    let (key, name, protocol) = negotiate(request.headers(), spoken)?;
    let mut reply = empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = reply.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if !name.is_empty() {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name));
    }
    let accepted = HeaderValue::from_str(&derive_accept_key(key.as_bytes()));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accepted.map_err(|error| Refusal::internal(&error))?);
    let upgrade = hyper::upgrade::on(request);
    let open = async move {
        let io = TokioIo::new(upgrade.await?);
        let config = WebSocketConfig::default()
            .read_buffer_size(READ)
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        Ok(WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await)
    };
    Ok(Handshake { protocol, reply, open })
}

/// The client's key, and the first of its protocols that is spoken here. One that offers none speaks the nameless one.
fn negotiate<P: Copy>(
    headers: &HeaderMap,
    spoken: &'static [(&'static str, P)],
) -> Result<(String, &'static str, P), Refusal> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let upgrades = words(headers, &CONNECTION).any(|word| word.eq_ignore_ascii_case("upgrade"));
    if !upgrades || !text(UPGRADE).eq_ignore_ascii_case("websocket") {
        let offered = text(UPGRADE);
        return Err(Refusal::bad_request(format!(
            "Upgrade request required: streams are spoken over WebSocket ({}) and SPDY/3.1{}",
            names(spoken),
            if offered.is_empty() { String::new() } else { format!(", not over {offered}") }
        )));
    }
    if text(SEC_WEBSOCKET_VERSION) != "13" || text(SEC_WEBSOCKET_KEY).is_empty() {
        return Err(Refusal::bad_request("the WebSocket handshake needs Sec-WebSocket-Version: 13 and a key"));
    }
    let known = |offered: &str| spoken.iter().find(|(name, _)| *name == offered);
    let mut offered = words(headers, &SEC_WEBSOCKET_PROTOCOL).peekable();
    let found = if offered.peek().is_none() { known("") } else { offered.find_map(known) };
    let (name, protocol) = found.ok_or_else(|| {
        Refusal::bad_request(format!("none of the offered subprotocols is spoken here: {}", names(spoken)))
    })?;
    Ok((text(SEC_WEBSOCKET_KEY).to_owned(), name, *protocol))
}

fn names<P>(spoken: &[(&str, P)]) -> String {
    spoken.iter().map(|(name, _)| *name).filter(|name| !name.is_empty()).collect::<Vec<_>>().join(", ")
}

fn words<'a>(headers: &'a HeaderMap, name: &http::HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(connection: &str, upgrade: &str, protocols: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(CONNECTION, connection.parse().unwrap());
        headers.insert(UPGRADE, upgrade.parse().unwrap());
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        for protocol in protocols {
            headers.append(SEC_WEBSOCKET_PROTOCOL, protocol.parse().unwrap());
        }
        headers
    }

    #[test]
    fn the_clients_first_known_protocol_is_chosen() {
        let table: [(&str, &str, &[&str], Option<Protocol>); 8] = [
            ("Upgrade", "websocket", &["v5.channel.k8s.io"], Some(Protocol::V5)),
            ("keep-alive, upgrade", "WebSocket", &["v4.channel.k8s.io, v5.channel.k8s.io"], Some(Protocol::V4)),
            ("Upgrade", "websocket", &["base64.binary.k8s.io", "v4.channel.k8s.io"], Some(Protocol::V4)),
            ("Upgrade", "websocket", &["v3.channel.k8s.io"], None),
            ("Upgrade", "websocket", &["channel.k8s.io"], Some(Protocol::V1)),
            ("Upgrade", "websocket", &[], Some(Protocol::V1)),
            ("Upgrade", "SPDY/3.1", &["v5.channel.k8s.io"], None),
            ("close", "websocket", &["v5.channel.k8s.io"], None),
        ];
        for (connection, upgrade, protocols, want) in table {
            let found = negotiate(&headers(connection, upgrade, protocols), Protocol::ALL);
            let found = found.map(|(_, _, protocol)| protocol);
            assert_eq!(found.ok(), want, "{connection} {upgrade} {protocols:?}");
        }
    }
}
