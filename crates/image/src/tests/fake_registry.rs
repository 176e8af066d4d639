//! `FakeRegistry`: a registry on loopback, with manifests and blobs in memory, that can refuse, break off, and lie.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::support::Layout;
use crate::{Image, ImageStore, PullError, RegistryConfig};
use layer::digest_of;

pub(super) type Body = UnsyncBoxBody<Bytes, std::io::Error>;
/// Answers a request in place of the registry, if it wants to.
type Intercept = dyn Fn(&Asked) -> Option<Response<Body>> + Send + Sync;

/// A request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) method: Method,
    /// With query.
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Asked {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

#[derive(Default)]
struct Content {
    /// By tag and by digest.
    manifests: BTreeMap<String, (String, Vec<u8>)>,
    blobs: BTreeMap<String, Vec<u8>>,
    asked: Vec<Asked>,
}

/// Dropping it ends it.
pub(super) struct FakeRegistry {
    pub(super) address: SocketAddr,
    content: Arc<Mutex<Content>>,
    _serving: JoinSet<()>,
}

impl FakeRegistry {
    pub(super) async fn start() -> Self {
        Self::start_with(|_| None).await
    }

    pub(super) async fn start_with(
        intercept: impl Fn(&Asked) -> Option<Response<Body>> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let content: Arc<Mutex<Content>> = Arc::default();
        let (shared, intercept): (_, Arc<Intercept>) = (Arc::clone(&content), Arc::new(intercept));
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (content, intercept) = (Arc::clone(&shared), Arc::clone(&intercept));
                connections.spawn(async move {
                    let service = service_fn(|request| answer(&content, &*intercept, request));
                    // A client that goes away is no fault of ours.
                    drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
                });
            }
        });
        Self { address, content, _serving: serving }
    }

    /// `HOST:PORT/NAME`.
    pub(super) fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// Takes all blobs of a layout, and the manifest that a descriptor leads to, under a tag and its digest.
    pub(super) fn push(&self, tag: &str, layout: &Layout, manifest: &Value) {
        let mut content = self.content.lock().unwrap();
        for data in layout.members.values() {
            let digest = digest_of(data).to_string();
            let media_type = serde_json::from_slice::<Value>(data).ok().and_then(|document| {
                let is_index = document.get("manifests").is_some();
                let kind = if is_index { "index" } else { "manifest" };
                document.get("schemaVersion").map(|_| format!("application/vnd.oci.image.{kind}.v1+json"))
            });
            if let Some(media_type) = media_type {
                content.manifests.insert(digest.clone(), (media_type, data.clone()));
            }
            content.blobs.insert(digest, data.clone());
        }
        let digest = manifest["digest"].as_str().unwrap();
        let document = content.manifests[digest].clone();
        content.manifests.insert(tag.to_owned(), document);
    }

    /// Puts any bytes in place of a manifest.
    pub(super) fn put_manifest(&self, name: &str, media_type: &str, data: &[u8]) {
        self.content.lock().unwrap().manifests.insert(name.to_owned(), (media_type.to_owned(), data.to_vec()));
    }

    /// Puts any bytes in place of a blob.
    pub(super) fn put_blob(&self, digest: &str, data: &[u8]) {
        self.content.lock().unwrap().blobs.insert(digest.to_owned(), data.to_vec());
    }

    /// What was asked for since the last time, but for greetings.
    pub(super) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.content.lock().unwrap().asked)
    }

    /// `METHOD PATH` of what was asked for since the last time, digests shortened.
    pub(super) fn lines(&self) -> Vec<String> {
        self.asked().iter().map(|asked| format!("{} {}", asked.method, asked.path)).collect()
    }
}

/// A configuration that does not wait long.
pub(super) fn impatient() -> RegistryConfig {
    let mut config = RegistryConfig::default();
    config.patience_mut().back_off = Duration::from_millis(1);
    config
}

/// Pulls without credentials.
pub(super) async fn pull(images: &ImageStore, reference: &str) -> Result<Image, Arc<PullError>> {
    images.pull(&reference.parse().unwrap(), Vec::new()).unwrap().finished().await
}

pub(super) fn reply(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Response<Body> {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(whole(body)).unwrap()
}

/// Promises `length` bytes, sends these, and hangs up.
pub(super) fn broken_off(length: usize, sent: &[u8]) -> Response<Body> {
    let pieces =
        vec![Ok(Frame::data(Bytes::copy_from_slice(sent))), Err(std::io::Error::from(std::io::ErrorKind::BrokenPipe))];
    // A pause, so that what was sent is on its way before the connection ends.
    let body = StreamBody::new(stream::unfold(pieces.into_iter(), |mut pieces| async move {
        tokio::task::yield_now().await;
        pieces.next().map(|piece| (piece, pieces))
    }));
    Response::builder().header("content-length", length).body(body.boxed_unsync()).unwrap()
}

fn whole(body: &[u8]) -> Body {
    Full::new(Bytes::copy_from_slice(body)).map_err(|never| match never {}).boxed_unsync()
}

async fn answer(
    content: &Mutex<Content>,
    intercept: &Intercept,
    request: Request<Incoming>,
) -> Result<Response<Body>, std::io::Error> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().unwrap().to_string();
    let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    let asked = Asked { method: parts.method, path, headers: parts.headers, body };
    content.lock().unwrap().asked.push(asked.clone());
    Ok(intercept(&asked).unwrap_or_else(|| serve(&content.lock().unwrap(), &asked)))
}

fn serve(content: &Content, asked: &Asked) -> Response<Body> {
    let mut names = asked.path.rsplit('/');
    let (name, kind) = (names.next().unwrap(), names.next().unwrap_or_default());
    match kind {
        "manifests" => match content.manifests.get(name) {
            Some((media_type, data)) => {
                let digest = digest_of(data).to_string();
                reply(200, &[("content-type", media_type), ("docker-content-digest", &digest)], data)
            }
            None => reply(404, &[], br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#),
        },
        "blobs" => match (content.blobs.get(name), asked.header("range")) {
            (Some(data), None) => reply(200, &[], data),
            (Some(data), Some(range)) => {
                let start: usize = range.strip_prefix("bytes=").unwrap().trim_end_matches('-').parse().unwrap();
                let told = format!("bytes {start}-{}/{}", data.len() - 1, data.len());
                reply(StatusCode::PARTIAL_CONTENT.as_u16(), &[("content-range", &told)], &data[start..])
            }
            (None, _) => reply(404, &[], b"not json"),
        },
        _ => reply(404, &[], b""),
    }
}
