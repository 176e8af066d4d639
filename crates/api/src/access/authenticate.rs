//! Finds out who asks: by the connection, else by a token in the request.

use http::{HeaderMap, StatusCode};

use crate::access::{Identity, tokens};
use crate::context::Context;
use crate::http::status::ApiError;

/// Who is at the other end of a connection, as far as the connection itself tells.
#[derive(Debug, Clone)]
pub enum Peer {
    /// Root or the daemon's own user, on the unix socket.
    Owner,
    /// The bearer of a client certificate that our authority has signed.
    Certificate(Identity),
    /// Somebody who has shown nothing.
    Unknown,
}

/// Who asks. What the connection proves comes first, as upstream's authenticators are ordered; a token that is wrong is
/// refused, and no token at all is somebody anonymous.
pub fn authenticate(context: &Context, peer: &Peer, headers: &HeaderMap) -> Result<Identity, ApiError> {
    match peer {
        Peer::Owner => Ok(Identity::owner()),
        Peer::Certificate(identity) => Ok(identity.clone()),
        Peer::Unknown => match tokens::of_request(headers) {
            Some(token) => tokens::bearer(context, &token).ok_or_else(unauthorized),
            None => Ok(Identity::anonymous()),
        },
    }
}

/// 401: nobody knows who asks.
pub fn unauthorized() -> ApiError {
    ApiError::plain(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
}
