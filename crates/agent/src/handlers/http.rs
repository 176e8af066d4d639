//! HTTP GET as probes and hooks send it: one connection for one request, no proxy, no credentials.

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, HOST, LOCATION, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use spec::k8s_openapi::api::core::v1::HTTPGetAction;
use tokio::io::{AsyncRead, AsyncWrite};
use url::Url;

use super::dial::{DialError, dial, word_of};
use super::{InvalidAction, OUTPUT_LIMIT, tls};

/// Go's HTTP client stops here.
const MOST_REDIRECTS: usize = 10;

/// A request that can be sent again and again.
#[derive(Debug, Clone)]
pub(crate) struct HttpGet {
    pub(crate) url: Url,
    /// `Host` among them only where the Pod wants another one than the address.
    headers: HeaderMap,
}

/// What a server said last.
#[derive(Debug)]
pub(crate) struct HttpAnswer {
    pub(crate) status: StatusCode,
    /// The beginning of it.
    pub(crate) body: String,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[error("Get \"{url}\": {cause}")]
pub(crate) struct HttpFailure {
    /// What was asked last.
    pub(crate) url: String,
    /// Why.
    pub(crate) cause: HttpCause,
}

/// What was in the way of an answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpCause {
    /// There is no connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The server knows no TLS.
    #[error("http: server gave HTTP response to HTTPS client")]
    NotTls,
    /// TLS failed.
    #[error("{0}")]
    Tls(std::io::Error),
    /// It hung up, or speaks no HTTP.
    #[error("{0}")]
    Exchange(String),
    /// It sends from one place to the next.
    #[error("stopped after 10 redirects")]
    Redirects,
    /// It sends to a place that is none.
    #[error("failed to parse Location header {0:?}")]
    Location(String),
}

impl HttpGet {
    pub(super) fn new(
        get: &HTTPGetAction,
        host: &str,
        port: u16,
        user_agent: &'static str,
    ) -> Result<Self, InvalidAction> {
        let invalid = |error: &dyn std::fmt::Display| InvalidAction::Request(error.to_string());
        let scheme = if get.scheme.as_deref() == Some("HTTPS") { "https" } else { "http" };
        let bracketed = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let mut url = Url::parse(&format!("{scheme}://{bracketed}:{port}/")).map_err(|error| invalid(&error))?;
        let path = get.path.as_deref().unwrap_or("/");
        let path = path.split_once('#').map_or(path, |(path, _fragment)| path);
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        url.set_path(path);
        url.set_query(query);
        let mut headers = HeaderMap::new();
        for header in get.http_headers.iter().flatten() {
            let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|error| invalid(&error))?;
            headers.append(name, HeaderValue::from_str(&header.value).map_err(|error| invalid(&error))?);
        }
        complete(&mut headers, user_agent);
        Ok(Self { url, headers })
    }

    /// Sends it, and follows the server to other places of the same host. What points to another host is the answer:
    /// a container must not choose whom the daemon talks to.
    pub(crate) async fn send(&self) -> Result<HttpAnswer, HttpFailure> {
        let mut url = self.url.clone();
        let mut headers = self.headers.clone();
        let mut redirects = 0;
        loop {
            let failed = |cause| HttpFailure { url: url.to_string(), cause };
            let (status, location, body) = exchange(&url, &headers).await.map_err(failed)?;
            let Some(location) = location.filter(|_| is_redirect(status)) else {
                return Ok(HttpAnswer { status, body });
            };
            let next = url.join(&location).map_err(|_invalid| failed(HttpCause::Location(location.clone())))?;
            if next.host() != url.host() || !["http", "https"].contains(&next.scheme()) {
                return Ok(HttpAnswer { status, body });
            }
            redirects += 1;
            if redirects >= MOST_REDIRECTS {
                return Err(HttpFailure { url: next.to_string(), cause: HttpCause::Redirects });
            }
            if Url::parse(&location).is_ok() {
                // A whole address names its host itself.
                headers.remove(HOST);
            }
            url = next;
        }
    }

    /// The same without TLS and without what only TLS protects.
    pub(crate) fn in_the_clear(&self) -> Self {
        let mut other = self.clone();
        let port = self.url.port_or_known_default();
        let changed = other.url.set_scheme("http").is_ok() && other.url.set_port(port).is_ok();
        debug_assert!(changed, "a URL with a host takes both");
        other.headers.remove(http::header::AUTHORIZATION);
        other
    }
}

/// What the kubelet adds, and what an empty value takes away.
fn complete(headers: &mut HeaderMap, user_agent: &'static str) {
    for (name, value) in [(USER_AGENT, user_agent), (ACCEPT, "*/*")] {
        match headers.get(&name).map(HeaderValue::is_empty) {
            None => drop(headers.insert(name, HeaderValue::from_static(value))),
            Some(true) => drop(headers.remove(name)),
            Some(false) => {}
        }
    }
    if headers.get(HOST).is_some_and(HeaderValue::is_empty) {
        headers.remove(HOST);
    }
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

type Exchanged = (StatusCode, Option<String>, String);

async fn exchange(url: &Url, headers: &HeaderMap) -> Result<Exchanged, HttpCause> {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let port = url.port_or_known_default().unwrap_or(80);
    let request = request(url, headers)?;
    let stream = dial(host, port).await?;
    if url.scheme() != "https" {
        return speak(stream, request).await;
    }
    match tls::secure(stream, host).await {
        Ok(stream) => speak(stream, request).await,
        Err(error) if tls::speaks_no_tls(&error) => Err(HttpCause::NotTls),
        Err(error) => Err(HttpCause::Tls(error)),
    }
}

fn request(url: &Url, headers: &HeaderMap) -> Result<Request<Empty<Bytes>>, HttpCause> {
    let unsendable = |error: &dyn std::fmt::Display| HttpCause::Exchange(error.to_string());
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut request =
        Request::get(format!("{}{query}", url.path())).body(Empty::new()).map_err(|error| unsendable(&error))?;
    request.headers_mut().clone_from(headers);
    if !headers.contains_key(HOST) {
        let port = url.port_or_known_default().map(|port| format!(":{port}")).unwrap_or_default();
        let authority = format!("{}{port}", url.host_str().unwrap_or_default());
        request.headers_mut().insert(HOST, authority.parse().map_err(|error| unsendable(&error))?);
    }
    Ok(request)
}

async fn speak(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Empty<Bytes>>,
) -> Result<Exchanged, HttpCause> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| exchange_error(&error))?;
    let talk = async {
        let answer = sender.send_request(request).await.map_err(|error| exchange_error(&error))?;
        let location = answer.headers().get(LOCATION).map(|value| String::from_utf8_lossy(value.as_bytes()).into());
        let status = answer.status();
        let body = beginning_of(answer.into_body()).await.map_err(|error| exchange_error(&error))?;
        Ok((status, location, body))
    };
    // What goes wrong with the connection is told to the talk too, so that this alone ends it.
    let moving = async {
        drop(connection.await);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        talked = talk => talked,
        () = moving => Err(HttpCause::Exchange("EOF".to_owned())),
    }
}

/// Reads no further than it keeps.
async fn beginning_of(mut body: Incoming) -> Result<String, hyper::Error> {
    let mut kept = Vec::new();
    while kept.len() < OUTPUT_LIMIT
        && let Some(frame) = body.frame().await
    {
        if let Ok(data) = frame?.into_data() {
            kept.extend_from_slice(&data);
        }
    }
    kept.truncate(OUTPUT_LIMIT);
    Ok(String::from_utf8_lossy(&kept).into_owned())
}

fn exchange_error(error: &hyper::Error) -> HttpCause {
    if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        return HttpCause::Exchange("EOF".to_owned());
    }
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            return HttpCause::Exchange(word_of(io));
        }
        cause = inner.source();
    }
    HttpCause::Exchange(error.to_string())
}
