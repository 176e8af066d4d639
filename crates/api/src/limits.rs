//! How much is done at once for those who are not the administrator: what is beyond that is asked to come again, so that one
//! client that has run wild takes neither all memory nor the way in from the others (kube-apiserver's
//! `--max-requests-inflight` and `--max-mutating-requests-inflight`).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use http::{Method, Request};
use http_body_util::BodyExt as _;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::access::{Identity, MASTERS};
use crate::http::query::Query;
use crate::http::reply::{Body, Reply};
use crate::http::status::ApiError;
use crate::route::{Route, Target};

/// Requests under way, each of which may hold a body of three megabytes: upstream's 400 that read and 200 that write.
const REQUESTS: usize = 600;

/// Watches and followed logs, which are a few tens of kilobytes each (`docs/performance.md`).
const STREAMS: usize = 2000;

/// What is left.
pub struct Limits {
    requests: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { requests: Arc::new(Semaphore::new(REQUESTS)), streams: Arc::new(Semaphore::new(STREAMS)) }
    }
}

/// A request's place among those that are under way; free again when it is dropped.
pub struct Place(Option<OwnedSemaphorePermit>);

impl Limits {
    /// Takes a place, or says that there is none. The administrator always has one, as with upstream's level `exempt`; a
    /// connection that becomes a session with a container counts among the connections alone.
    pub fn take<B>(&self, identity: &Identity, route: &Route, request: &Request<B>) -> Result<Place, ApiError> {
        if identity.is_in(MASTERS) || is_session(route) {
            return Ok(Place(None));
        }
        let (places, what) = if lasts(route, request) {
            (&self.streams, "watches and followed logs")
        } else {
            (&self.requests, "requests")
        };
        match Arc::clone(places).try_acquire_owned() {
            Ok(permit) => Ok(Place(Some(permit))),
            Err(_full) => Err(ApiError::too_many(&format!("too many {what} are under way"))),
        }
    }
}

/// Whether the answer has no end known now.
fn lasts<B>(route: &Route, request: &Request<B>) -> bool {
    let Route::Objects { target, .. } = route else { return false };
    if request.method() != Method::GET {
        return false;
    }
    let query = Query::parse(request.uri().query());
    match target {
        Target::Collection => query.flag("watch"),
        Target::Subresource(_, part) => part == "log" && query.flag("follow"),
        Target::Object(_) => false,
    }
}

/// Whether the connection is handed over.
fn is_session(route: &Route) -> bool {
    let Route::Objects { target: Target::Subresource(_, part), .. } = route else { return false };
    matches!(part.as_str(), "exec" | "attach" | "portforward" | "proxy")
}

impl Place {
    /// Keeps the place until the whole answer is on its way.
    pub fn hold(self, reply: Reply) -> Reply {
        match self.0 {
            Some(permit) => reply.map(|inner| Held { inner, _permit: permit }.boxed_unsync()),
            None => reply,
        }
    }
}

/// A body that takes a place up.
struct Held {
    inner: Body,
    _permit: OwnedSemaphorePermit,
}

impl HttpBody for Held {
    type Data = <Body as HttpBody>::Data;
    type Error = <Body as HttpBody>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
impl Limits {
    /// With room for so many.
    pub fn of(requests: usize, streams: usize) -> Self {
        Self { requests: Arc::new(Semaphore::new(requests)), streams: Arc::new(Semaphore::new(streams)) }
    }
}
