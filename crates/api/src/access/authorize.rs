//! Whether somebody may do what they ask for.

use http::{Method, Request, StatusCode};

use crate::access::authenticate::unauthorized;
use crate::access::{Identity, MASTERS};
use crate::http::status::ApiError;

/// Open to everybody, as upstream's role `system:public-info-viewer` has it.
const PUBLIC: [&str; 4] = ["/healthz", "/livez", "/readyz", "/version"];

/// Refuses what `identity` may not do: 401 for somebody unknown, 403 for somebody known.
pub fn authorize<B>(identity: &Identity, request: &Request<B>) -> Result<(), ApiError> {
    if request.headers().keys().any(|name| name.as_str().starts_with("impersonate-")) {
        return Err(forbidden(identity, request, "impersonation is not supported"));
    }
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let path = request.uri().path().trim_end_matches('/');
    if identity.is_in(MASTERS) || (reads && PUBLIC.contains(&path)) {
        return Ok(());
    }
    if identity.is_anonymous() {
        return Err(unauthorized());
    }
    if reads && is_discovery(path) {
        return Ok(());
    }
    Err(forbidden(identity, request, "no role allows it"))
}

/// Paths that describe the API: groups and versions, not objects.
fn is_discovery(path: &str) -> bool {
    let mut segments = path.split('/').filter(|segment| !segment.is_empty());
    let Some(first) = segments.next() else { return false };
    let below = segments.count();
    match first {
        "api" => below <= 1,
        "apis" => below <= 2,
        "openapi" => true,
        _ => false,
    }
}

fn forbidden<B>(identity: &Identity, request: &Request<B>, why: &str) -> ApiError {
    let (user, verb, path) = (&identity.name, request.method().as_str().to_lowercase(), request.uri().path());
    let message = format!("forbidden: User {user:?} cannot {verb} path {path:?}: {why}");
    ApiError::plain(StatusCode::FORBIDDEN, "Forbidden", message)
}
