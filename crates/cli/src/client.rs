//! The daemon's API as this program uses it: JSON objects over the unix socket.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use futures::{AsyncBufRead, Stream, StreamExt as _, TryStreamExt};
use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, Connection};
use kube::core::Status;
use serde_json::Value;

use crate::connector::UnixConnector;
use crate::errors::{Failure, Refusal};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
const DISCOVERY: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// A client of one daemon.
#[derive(Clone)]
pub struct Client {
    kube: kube::Client,
    socket: PathBuf,
}

/// Kubernetes' client, through this socket; nothing is sent yet. As many connections as `idle` are kept for the next request.
pub fn through(socket: &Path, idle: usize) -> kube::Client {
    let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(idle)
        .build::<_, Body>(UnixConnector::new(socket.to_owned()));
    kube::Client::new(tower::util::MapRequest::new(http, with_host), "default")
}

/// Kubernetes' client knows paths; the one of HTTP wants whole addresses. The host's name means nothing to a socket.
fn with_host(mut request: Request<Body>) -> Request<Body> {
    if request.uri().authority().is_none()
        && let Ok(whole) = address(&request.uri().to_string()).parse()
    {
        *request.uri_mut() = whole;
    }
    request
}

/// A change of an object, as a watch reports it.
#[derive(Debug, Clone)]
pub struct Event {
    /// `ADDED`, `MODIFIED`, `DELETED` or `BOOKMARK`.
    pub kind: String,
    /// The object after the change; of a deletion, the last one.
    pub object: Value,
}

impl Client {
    /// A client of the daemon behind this socket; nothing is sent yet.
    pub fn new(socket: &Path) -> Self {
        Self { kube: through(socket, usize::MAX), socket: socket.to_owned() }
    }

    /// The socket's path.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Reads an object or a list.
    pub async fn get(&self, path: &str) -> Result<Value> {
        self.json(Method::GET, path, None).await
    }

    /// Reads an object that may be missing. That is no error: where backtraces are on, each error takes milliseconds.
    pub async fn find(&self, path: &str) -> Result<Option<Value>> {
        match self.try_send(request(Method::GET, path, Some("application/json"), None)?).await? {
            Ok(response) => self.body(response).await.map(Some),
            Err(refusal) if refusal.status.code == 404 => Ok(None),
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// Reads an object or a list as the table that the server makes of it.
    pub async fn get_table(&self, path: &str) -> Result<Value> {
        self.read(request(Method::GET, path, Some(TABLE), None)?).await
    }

    /// The kinds below `/api` or `/apis`.
    pub async fn discover(&self, door: &str) -> Result<Value> {
        self.read(request(Method::GET, door, Some(DISCOVERY), None)?).await
    }

    /// Creates an object.
    pub async fn create(&self, path: &str, object: &Value) -> Result<Value> {
        self.json(Method::POST, path, Some(object)).await
    }

    /// Replaces an object.
    pub async fn replace(&self, path: &str, object: &Value) -> Result<Value> {
        self.json(Method::PUT, path, Some(object)).await
    }

    /// Merges a patch into an object, lists by their keys (strategic merge).
    pub async fn patch(&self, path: &str, change: &Value) -> Result<Value> {
        let body = serde_json::to_vec(change).context("cannot encode the request")?;
        let mut request = request(Method::PATCH, path, Some("application/json"), Some(body))?;
        let kind = http::HeaderValue::from_static("application/strategic-merge-patch+json");
        request.headers_mut().insert(http::header::CONTENT_TYPE, kind);
        self.read(request).await
    }

    /// Deletes an object; the body are `DeleteOptions`.
    pub async fn delete(&self, path: &str, options: &Value) -> Result<Value> {
        self.json(Method::DELETE, path, Some(options)).await
    }

    /// Follows changes of objects until the server ends the watch.
    pub async fn watch(&self, path: &str) -> Result<impl Stream<Item = Result<Event>> + use<>> {
        self.events(request(Method::GET, path, None, None)?).await
    }

    /// Follows changes as tables of one row.
    pub async fn watch_table(&self, path: &str) -> Result<impl Stream<Item = Result<Event>> + use<>> {
        self.events(request(Method::GET, path, Some(TABLE), None)?).await
    }

    /// Reads a body as it comes, such as a log.
    pub async fn stream(&self, path: &str) -> Result<impl AsyncBufRead + use<>> {
        let response = self.send(request(Method::GET, path, None, None)?).await?;
        Ok(response.into_body().into_data_stream().map_err(io::Error::other).into_async_read())
    }

    /// Reads a large body piece by piece. One that breaks off is an error, not an end.
    pub async fn download(&self, path: &str) -> Result<impl Stream<Item = io::Result<Bytes>> + use<>> {
        let response = self.send(request(Method::GET, path, None, None)?).await?;
        Ok(response.into_body().into_data_stream().map_err(io::Error::other))
    }

    /// Opens a session (exec, attach) over a WebSocket.
    pub async fn connect(&self, path: &str) -> Result<Connection> {
        let request = Request::get(address(path)).body(Vec::new()).context("cannot build the request")?;
        self.kube.connect(request).await.map_err(|error| self.explain(error))
    }

    /// Posts an object; the answer is lines of JSON, as they come.
    pub async fn post_for_lines(&self, path: &str, body: &Value) -> Result<impl Stream<Item = Result<Value>> + use<>> {
        let body = serde_json::to_vec(body).context("cannot encode the request")?;
        let response = self.send(request(Method::POST, path, None, Some(body))?).await?;
        let body = response.into_body().into_data_stream().map_err(io::Error::other).into_async_read();
        Ok(futures::AsyncBufReadExt::lines(body).map(|line| {
            let line = line.context("the daemon's answer broke off")?;
            serde_json::from_str(&line).context("the daemon's answer is not JSON")
        }))
    }

    async fn json(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let body = body.map(serde_json::to_vec).transpose().context("cannot encode the request")?;
        self.read(request(method, path, Some("application/json"), body)?).await
    }

    async fn read(&self, request: Request<Body>) -> Result<Value> {
        self.body(self.send(request).await?).await
    }

    async fn body(&self, response: Response<Body>) -> Result<Value> {
        let body = response.into_body().collect().await;
        let body = body.map_err(|error| self.explain(error))?.to_bytes();
        serde_json::from_slice(&body).context("the server's answer is not JSON")
    }

    async fn events(&self, request: Request<Body>) -> Result<impl Stream<Item = Result<Event>> + use<>> {
        let body = self.send(request).await?.into_body().into_data_stream().map_err(io::Error::other).into_async_read();
        let lines = futures::AsyncBufReadExt::lines(body);
        Ok(lines
            .map_err(|error| anyhow::Error::new(error).context("the watch broke off"))
            .and_then(async |line| event(&line)))
    }

    async fn send(&self, request: Request<Body>) -> Result<Response<Body>> {
        Ok(self.try_send(request).await??)
    }

    async fn try_send(&self, request: Request<Body>) -> Result<Result<Response<Body>, Refusal>> {
        let response = self.kube.send(request).await.map_err(|error| self.explain(error))?;
        show_warnings(&response);
        if response.status().is_success() {
            return Ok(Ok(response));
        }
        let code = response.status().as_u16();
        let body = response.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        Ok(Err(Refusal { status: status_of(&body, code) }))
    }

    /// The same failure in words for the person before the terminal.
    pub fn explain(&self, error: kube::Error) -> anyhow::Error {
        if let kube::Error::Api(status) = error {
            return Refusal { status: *status }.into();
        }
        match io_cause(&error) {
            Some(kind) => unreachable(&self.socket, kind, error),
            None => Failure::new("the request to the daemon failed").because(error).into(),
        }
    }
}

/// A refused answer's status; servers and proxies may also answer in plain text.
pub fn status_of(body: &Bytes, code: u16) -> Status {
    serde_json::from_slice(body)
        .unwrap_or_else(|_| Status::failure(String::from_utf8_lossy(body).trim(), "").with_code(code))
}

/// Why the daemon cannot be reached, and what to do.
pub fn unreachable(
    socket: &Path,
    kind: io::ErrorKind,
    cause: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> anyhow::Error {
    let socket = socket.display();
    let failure = match kind {
        io::ErrorKind::NotFound => Failure::new(format!("the daemon is not running: no socket at {socket}"))
            .hint("start it with `sudo monopod serve`; if it runs elsewhere, name its socket with --socket"),
        io::ErrorKind::ConnectionRefused => {
            Failure::new(format!("the daemon is not running: nobody listens at {socket}"))
                .hint("start it with `sudo monopod serve`; Pods that ran go on, and it takes them over")
        }
        io::ErrorKind::PermissionDenied => {
            Failure::new(format!("permission denied at {socket}: only root may talk to the daemon"))
                .hint("run the command as root: `sudo monopod …`")
        }
        _ => return Failure::new(format!("the connection to the daemon at {socket} broke off")).because(cause).into(),
    };
    failure.into()
}

fn request(method: Method, path: &str, accept: Option<&str>, body: Option<Vec<u8>>) -> Result<Request<Body>> {
    let mut builder = Request::builder().method(method).uri(address(path));
    if let Some(accept) = accept {
        builder = builder.header(http::header::ACCEPT, accept);
    }
    if body.is_some() {
        builder = builder.header(http::header::CONTENT_TYPE, "application/json");
    }
    builder = builder.header(http::header::USER_AGENT, concat!("monopod/", env!("CARGO_PKG_VERSION")));
    builder.body(body.map_or_else(Body::empty, Body::from)).context("cannot build the request")
}

fn address(path: &str) -> String {
    format!("http://monopod{path}")
}

fn event(line: &str) -> Result<Event> {
    let mut value: Value = serde_json::from_str(line).context("the server's watch is not JSON")?;
    let object = value.get_mut("object").map(Value::take).unwrap_or_default();
    let kind = value.get("type").and_then(Value::as_str).unwrap_or_default();
    if kind == "ERROR" {
        let status = serde_json::from_value(object).context("the server ended the watch without saying why")?;
        return Err(Refusal { status }.into());
    }
    Ok(Event { kind: kind.to_owned(), object })
}

/// Prints `Warning: 299 - "text"` headers as kubectl does.
fn show_warnings(response: &Response<Body>) {
    for header in response.headers().get_all(http::header::WARNING) {
        let text = header.to_str().unwrap_or_default();
        let text = text.split_once('"').map_or(text, |(_code, text)| text.trim_end_matches('"'));
        crate::output::note(&format!("Warning: {}", text.replace("\\\"", "\"")));
    }
}

fn io_cause(error: &(dyn std::error::Error + 'static)) -> Option<io::ErrorKind> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Some(error.kind());
        }
        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_incomplete_message) {
            return Some(io::ErrorKind::UnexpectedEof);
        }
        cause = error.source();
    }
    None
}
