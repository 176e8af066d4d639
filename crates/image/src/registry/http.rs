//! Requests to registries: connections kept for reuse, redirects followed with care, bodies bounded.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST, LOCATION, RANGE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::Response;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::config::RegistryConfig;
use super::connect::{ConnectError, Connector};

/// More are a loop, or an attack. Go's client has the same bound.
const REDIRECTS: usize = 10;
/// Idle connections kept for each server.
const IDLE: usize = 4;

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It broke off.
    #[error("the connection to {authority} broke off")]
    Broken {
        /// The server.
        authority: String,
        /// How.
        #[source]
        source: hyper::Error,
    },
    /// Nothing comes.
    #[error("{authority} sends nothing for {seconds} s")]
    Silent {
        /// The server.
        authority: String,
        /// So long.
        seconds: u64,
    },
    /// The body ended before its time.
    #[error("{authority} sent {found} bytes of {expected}")]
    Short {
        /// The server.
        authority: String,
        /// As the manifest says.
        expected: u64,
        /// As they came.
        found: u64,
    },
    /// Sent from one server to the next.
    #[error("{authority} redirects more than {REDIRECTS} times")]
    Redirects {
        /// The last one.
        authority: String,
    },
    /// Sent nowhere, or where nobody should go.
    #[error("{authority} redirects to {target:?}: {why}")]
    Redirect {
        /// Who says it.
        authority: String,
        /// Where to.
        target: String,
        /// Why it is not followed.
        why: &'static str,
    },
    /// An answer without end.
    #[error("{authority} answers with more than {limit} bytes")]
    TooLarge {
        /// The server.
        authority: String,
        /// What is read.
        limit: u64,
    },
    /// A name or path that no request can have.
    #[error("cannot ask for {target:?}")]
    Request {
        /// The URL.
        target: String,
        /// Why.
        #[source]
        source: http::Error,
    },
}

/// What is asked for.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) https: bool,
    pub(super) authority: String,
    /// With query.
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// An answer, and who gave it in the end.
pub(super) struct Answer {
    pub(super) response: Response<Incoming>,
    pub(super) authority: String,
}

/// Whether it is spoken to by TLS, and its `HOST[:PORT]`.
type Server = (bool, String);
type Sender = SendRequest<Full<Bytes>>;

/// The connections of one pull.
pub(super) struct Http {
    connector: Connector,
    config: Arc<RegistryConfig>,
    idle: Mutex<HashMap<Server, Vec<Sender>>>,
}

impl Call {
    pub(super) fn get(https: bool, authority: &str, path: String) -> Self {
        let (method, headers) = (Method::GET, HeaderMap::new());
        Self { method, https, authority: authority.to_owned(), path, headers, body: Bytes::new() }
    }

    /// For messages: without the query, which may hold a signature.
    fn shown(&self) -> String {
        let scheme = if self.https { "https" } else { "http" };
        format!("{scheme}://{}{}", self.authority, self.path.split('?').next().unwrap_or_default())
    }

    /// Turns to where `location` says. What is for one server only stays behind when it is another one.
    fn redirect(&mut self, location: &HeaderValue, config: &RegistryConfig) -> Result<(), HttpError> {
        let target = String::from_utf8_lossy(location.as_bytes()).into_owned();
        let shown = target.split('?').next().unwrap_or_default().to_owned();
        let refused = |why| HttpError::Redirect { authority: self.authority.clone(), target: shown, why };
        let uri: Uri = match target.parse() {
            Ok(uri) => uri,
            Err(_invalid) => return Err(refused("it is no URL")),
        };
        let (https, authority) = match (uri.scheme_str(), uri.authority()) {
            (None, None) if target.starts_with('/') => (self.https, self.authority.clone()),
            (Some("https"), Some(authority)) => (true, authority.to_string()),
            (Some("http"), Some(authority)) => (false, authority.to_string()),
            _ => return Err(refused("it is neither an http(s) URL nor a path")),
        };
        if authority.contains('@') {
            return Err(refused("it has a user in it"));
        }
        if !https && (self.https || !config.may_be_plain(&authority)) {
            return Err(refused("that is not encrypted"));
        }
        if (https, &authority) != (self.https, &self.authority) {
            self.headers.remove(AUTHORIZATION);
        }
        self.path = uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
        (self.https, self.authority) = (https, authority);
        Ok(())
    }
}

impl Http {
    pub(super) fn new(config: Arc<RegistryConfig>) -> Self {
        Self { connector: Connector::new(&config), config, idle: Mutex::default() }
    }

    pub(super) fn connector(&self) -> &Connector {
        &self.connector
    }

    /// Sends a request and follows redirects.
    pub(super) async fn send(&self, mut call: Call) -> Result<Answer, HttpError> {
        for _ in 0..=REDIRECTS {
            let response = self.send_once(&call).await?;
            let is_redirect = matches!(
                response.status(),
                StatusCode::MOVED_PERMANENTLY
                    | StatusCode::FOUND
                    | StatusCode::SEE_OTHER
                    | StatusCode::TEMPORARY_REDIRECT
                    | StatusCode::PERMANENT_REDIRECT
            );
            let may_follow = call.method == Method::GET || call.method == Method::HEAD;
            match response.headers().get(LOCATION) {
                Some(location) if is_redirect && may_follow => call.redirect(location, &self.config)?,
                _ => return Ok(Answer { response, authority: call.authority }),
            }
        }
        Err(HttpError::Redirects { authority: call.authority })
    }

    async fn send_once(&self, call: &Call) -> Result<Response<Incoming>, HttpError> {
        let key = (call.https, call.authority.clone());
        while let Some(mut sender) = self.take_idle(&key) {
            match self.exchange(&mut sender, call).await {
                // The server closed it while it was idle.
                Err(HttpError::Broken { .. }) => {}
                answered => return self.keep(key, sender, answered),
            }
        }
        let stream = self.connector.connect(call.https, &call.authority).await?;
        let broken = |source| HttpError::Broken { authority: call.authority.clone(), source };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // It ends with its sender.
        tokio::spawn(connection);
        let answered = self.exchange(&mut sender, call).await;
        self.keep(key, sender, answered)
    }

    async fn exchange(&self, sender: &mut Sender, call: &Call) -> Result<Response<Incoming>, HttpError> {
        let bad = |source| HttpError::Request { target: call.shown(), source };
        let request = Request::builder().method(&call.method).uri(&call.path).header(HOST, &call.authority);
        let request = request.header(USER_AGENT, concat!("monopod/", env!("CARGO_PKG_VERSION")));
        let mut request = request.body(Full::new(call.body.clone())).map_err(bad)?;
        request.headers_mut().extend(call.headers.clone());
        let limit = self.config.patience.answer;
        let answered = timeout(limit, sender.send_request(request)).await;
        let answered = answered.map_err(|_elapsed| silent(&call.authority, limit))?;
        answered.map_err(|source| HttpError::Broken { authority: call.authority.clone(), source })
    }

    /// A connection whose last answer was read to its end.
    fn take_idle(&self, key: &Server) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let senders = idle.get_mut(key)?;
        senders.retain(|sender| !sender.is_closed());
        let ready = senders.iter().position(SendRequest::is_ready)?;
        Some(senders.swap_remove(ready))
    }

    fn keep<T>(&self, key: Server, sender: Sender, answered: Result<T, HttpError>) -> Result<T, HttpError> {
        if answered.is_ok() {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let senders = idle.entry(key).or_default();
            if senders.len() < IDLE {
                senders.push(sender);
            }
        }
        answered
    }

    /// The next bytes of a body; `None` at its end.
    pub(super) async fn next_bytes(&self, answer: &mut Answer) -> Result<Option<Bytes>, HttpError> {
        let limit = self.config.patience.silence;
        loop {
            let frame = timeout(limit, answer.response.body_mut().frame()).await;
            let Some(frame) = frame.map_err(|_elapsed| silent(&answer.authority, limit))? else { return Ok(None) };
            let frame = frame.map_err(|source| HttpError::Broken { authority: answer.authority.clone(), source })?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
    }

    /// A whole body, if it has at most `limit` bytes.
    pub(super) async fn read(&self, answer: &mut Answer, limit: u64) -> Result<Vec<u8>, HttpError> {
        let mut body = Vec::new();
        while let Some(data) = self.next_bytes(answer).await? {
            if (body.len() + data.len()) as u64 > limit {
                return Err(HttpError::TooLarge { authority: answer.authority.clone(), limit });
            }
            body.extend_from_slice(&data);
        }
        Ok(body)
    }
}

/// `Range` of all bytes from `offset` on.
pub(super) fn set_range(call: &mut Call, offset: u64) {
    if let Ok(range) = HeaderValue::try_from(format!("bytes={offset}-")) {
        call.headers.insert(RANGE, range);
    }
}

fn silent(authority: &str, limit: Duration) -> HttpError {
    HttpError::Silent { authority: authority.to_owned(), seconds: limit.as_secs() }
}
