//! The upgrade to SPDY/3.1, with the choice of Kubernetes' protocol on top of it.

use http::header::{CONNECTION, HeaderName, HeaderValue, UPGRADE};
use http::{HeaderMap, Response, StatusCode};
use hyper::Request;
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{ReadHalf, WriteHalf, split};

use crate::refusal::{Refusal, empty};
use crate::spdy::Connection;

const SPDY: &str = "SPDY/3.1";
const VERSION: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");

type Io = TokioIo<Upgraded>;

/// A connection once it is open.
pub type Opened = Connection<ReadHalf<Io>, WriteHalf<Io>>;

/// An upgrade that was accepted, or the reply that says what would have been.
pub enum Upgrade<F> {
    /// 101, and what waits for the connection.
    Accepted(Response<()>, F),
    /// 403, with the protocols that are spoken.
    Refused(Response<()>),
}

/// Whether a client asks for SPDY.
pub fn is_wanted(headers: &HeaderMap) -> bool {
    headers.get(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(SPDY.as_bytes()))
}

/// Accepts the upgrade with the one protocol that is spoken.
pub fn accept(
    request: &mut Request<Incoming>,
    protocol: &'static str,
) -> Result<Upgrade<impl Future<Output = Result<Opened, hyper::Error>> + Send + use<>>, Refusal> {
    let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
    let connection: Vec<String> = request.headers().get_all(CONNECTION).iter().filter_map(text).collect();
    if !connection.iter().flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case("upgrade")) {
        return Err(Refusal::bad_request("unable to upgrade: missing upgrade headers in request"));
    }
    let offered: Vec<String> = request.headers().get_all(VERSION).iter().filter_map(text).collect();
    if !offered.iter().flat_map(|value| value.split(',')).any(|name| name.trim() == protocol) {
        let mut reply = empty(StatusCode::FORBIDDEN);
        reply.headers_mut().insert(ACCEPTED, HeaderValue::from_static(protocol));
        return Ok(Upgrade::Refused(reply));
    }
    let mut reply = empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = reply.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(SPDY));
    headers.insert(VERSION, HeaderValue::from_static(protocol));
    let upgrade = hyper::upgrade::on(request);
    let open = async move {
        let (read, write) = split(TokioIo::new(upgrade.await?));
        Ok(Connection::new(read, write))
    };
    Ok(Upgrade::Accepted(reply, open))
}
