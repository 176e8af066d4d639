//! A daemon without an engine: it keeps objects, numbers their changes, serves watches, logs and sessions.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::sync::broadcast;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

type Body = BoxBody<Bytes, Infallible>;
/// What becomes of a Pod after its creation: these statuses, one after the other.
type Life = Vec<Value>;

/// The fake, which ends with the test.
pub struct FakeDaemon {
    directory: tempfile::TempDir,
    state: Arc<State>,
    _runtime: tokio::runtime::Runtime,
}

pub struct State {
    inner: Mutex<Inner>,
    changes: broadcast::Sender<(String, u64, Value)>,
}

#[derive(Default)]
struct Inner {
    objects: BTreeMap<String, Value>,
    history: Vec<(String, u64, Value)>,
    revision: u64,
    life: Life,
    logs: BTreeMap<String, Vec<u8>>,
    requests: Vec<String>,
    uploads: Vec<(String, Vec<u8>)>,
    refuse_next_put: bool,
    refuse_uploads: bool,
}

impl FakeDaemon {
    pub fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (changes, _) = broadcast::channel(1024);
        let state = Arc::new(State { inner: Mutex::default(), changes });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = {
            let _guard = runtime.enter();
            UnixListener::bind(directory.path().join("monopod.sock")).unwrap()
        };
        let serving = Arc::clone(&state);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&serving);
                let service = hyper::service::service_fn(move |request| {
                    let state = Arc::clone(&state);
                    async move { Ok::<_, Infallible>(answer(state, request).await) }
                });
                let connection =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection.with_upgrades());
            }
        });
        Self { directory, state, _runtime: runtime }
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("monopod.sock")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Puts an object of the namespace `default` there.
    pub fn put(&self, plural: &str, object: Value) {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        self.state.write(&format!("/api/v1/namespaces/default/{plural}/{name}"), Some(object));
    }

    pub fn object(&self, plural: &str, name: &str) -> Option<Value> {
        self.state.inner.lock().unwrap().objects.get(&format!("/api/v1/namespaces/default/{plural}/{name}")).cloned()
    }

    pub fn set_life(&self, life: Life) {
        self.state.inner.lock().unwrap().life = life;
    }

    pub fn set_log(&self, container: &str, log: &[u8]) {
        self.state.inner.lock().unwrap().logs.insert(container.to_owned(), log.to_vec());
    }

    pub fn refuse_next_put(&self) {
        self.state.inner.lock().unwrap().refuse_next_put = true;
    }

    pub fn refuse_uploads(&self) {
        self.state.inner.lock().unwrap().refuse_uploads = true;
    }

    /// `METHOD /path?query` of each request so far.
    pub fn requests(&self) -> Vec<String> {
        self.state.inner.lock().unwrap().requests.clone()
    }

    pub fn uploads(&self) -> Vec<(String, Vec<u8>)> {
        self.state.inner.lock().unwrap().uploads.clone()
    }
}

impl State {
    /// Writes or deletes an object and tells the watches.
    fn write(&self, path: &str, object: Option<Value>) -> Value {
        let mut inner = self.inner.lock().unwrap();
        inner.revision += 1;
        let revision = inner.revision;
        let (kind, mut object) = match object {
            Some(object) if inner.objects.contains_key(path) => ("MODIFIED", object),
            Some(object) => ("ADDED", object),
            None => ("DELETED", inner.objects.remove(path).unwrap()),
        };
        object["metadata"]["resourceVersion"] = json!(revision.to_string());
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = json!(format!("uid-{revision}"));
        }
        if kind != "DELETED" {
            inner.objects.insert(path.to_owned(), object.clone());
        }
        let change = (path.to_owned(), revision, json!({"type": kind, "object": object}));
        inner.history.push(change.clone());
        // Nobody may be watching.
        let _receivers = self.changes.send(change);
        object
    }
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Response<Body> {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let query: Vec<(String, String)> = request.uri().query().unwrap_or_default().split('&').map(pair).collect();
    state.inner.lock().unwrap().requests.push(format!("{method} {}", request.uri()));
    let parameter = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    if path.ends_with("/exec") || path.ends_with("/attach") {
        return session(request, &query);
    }
    if let Some(door) = path.strip_prefix("/monopod/v1/images") {
        return images(&state, &method, door, request).await;
    }
    if path.ends_with("/log") {
        let container = parameter("container").unwrap_or_default();
        return match state.inner.lock().unwrap().logs.get(&container) {
            Some(log) => plain(log.clone()),
            None => refuse(
                400,
                "BadRequest",
                &format!("container {container:?} in pod \"web\" is waiting to start: ContainerCreating"),
            ),
        };
    }
    if path == "/version" {
        return reply(200, &json!({"gitVersion": "v1.37.0+monopod"}));
    }
    if path == "/api" || path == "/apis" {
        return reply(200, &discovery(&path));
    }
    let is_object = path.split('/').count() == if path.starts_with("/apis/") { 8 } else { 7 };
    let table = request.headers().get("accept").is_some_and(|accept| accept.to_str().unwrap().contains("as=Table"));
    match method {
        Method::GET if is_object => match state.inner.lock().unwrap().objects.get(&path) {
            Some(object) if table => reply(200, &as_table(std::slice::from_ref(object), 0)),
            Some(object) => reply(200, object),
            None => missing(&path),
        },
        Method::GET if parameter("watch").is_some() => {
            let after = parameter("resourceVersion").unwrap_or_default().parse().unwrap_or_default();
            let with_list = parameter("sendInitialEvents").is_some();
            watch(&state, &path, if with_list { None } else { Some(after) }, parameter("fieldSelector"))
        }
        Method::GET => {
            let inner = state.inner.lock().unwrap();
            let selector = parameter("fieldSelector");
            let items: Vec<_> = inner
                .objects
                .iter()
                .filter(|(key, object)| is_in(key, object, &path, selector.as_deref()))
                .map(|(_, object)| object.clone())
                .collect();
            if table {
                reply(200, &as_table(&items, inner.revision))
            } else {
                reply(
                    200,
                    &json!({"kind": "List", "metadata": {"resourceVersion": inner.revision.to_string()}, "items": items}),
                )
            }
        }
        Method::POST => {
            let object: Value = serde_json::from_slice(&request.collect().await.unwrap().to_bytes()).unwrap();
            create(&state, &path, object)
        }
        Method::PUT => {
            let object: Value = serde_json::from_slice(&request.collect().await.unwrap().to_bytes()).unwrap();
            if std::mem::take(&mut state.inner.lock().unwrap().refuse_next_put) {
                return refuse(409, "Conflict", "the object has been modified");
            }
            reply(200, &state.write(&path, Some(object)))
        }
        Method::DELETE if state.inner.lock().unwrap().objects.contains_key(&path) => {
            let leaving = state.inner.lock().unwrap().objects.get(&path).cloned();
            let mut leaving = leaving.unwrap();
            leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            let leaving = state.write(&path, Some(leaving));
            tokio::spawn(async move { state.write(&path, None) });
            reply(200, &leaving)
        }
        _ => missing(&path),
    }
}

fn create(state: &Arc<State>, collection: &str, object: Value) -> Response<Body> {
    let name = object["metadata"]["name"].as_str().unwrap().to_owned();
    let path = format!("{collection}/{name}");
    if state.inner.lock().unwrap().objects.contains_key(&path) {
        return refuse(409, "AlreadyExists", &format!("pods {name:?} already exists"));
    }
    if object["spec"]["containers"][0]["image"].is_null() && object["kind"] == "Pod" {
        let status = json!({"kind": "Status", "status": "Failure", "code": 422, "reason": "Invalid",
            "message": format!("Pod {name:?} is invalid: spec.containers[0].image: Required value"),
            "details": {"causes": [{"reason": "FieldValueRequired", "message": "Required value", "field": "spec.containers[0].image"}]}});
        return reply(422, &status);
    }
    let created = state.write(&path, Some(object));
    let (state, mut living) = (Arc::clone(state), created.clone());
    tokio::spawn(async move {
        let life = state.inner.lock().unwrap().life.clone();
        for status in life {
            living["status"] = status;
            state.write(&path, Some(living.clone()));
        }
    });
    reply(201, &created)
}

fn is_in(key: &str, object: &Value, collection: &str, selector: Option<&str>) -> bool {
    let (above, _name) = key.rsplit_once('/').unwrap();
    // `/api/v1/pods` are those of all namespaces.
    let everywhere = collection.rsplit_once('/').filter(|(root, _)| *root == "/api/v1");
    let inside = above == collection || everywhere.is_some_and(|(_, plural)| above.ends_with(&format!("/{plural}")));
    let name = selector.and_then(|selector| selector.strip_prefix("metadata.name="));
    inside && name.is_none_or(|name| object["metadata"]["name"] == name)
}

/// The changes after a revision; without one what there is, a bookmark, and the changes from then on.
fn watch(state: &State, path: &str, after: Option<u64>, selector: Option<String>) -> Response<Body> {
    let changes = state.changes.subscribe();
    let (past, present, now) = {
        let inner = state.inner.lock().unwrap();
        let present = inner.objects.iter().filter(|(key, object)| is_in(key, object, path, selector.as_deref()));
        let added: Vec<_> = present.map(|(_, object)| json!({"type": "ADDED", "object": object})).collect();
        (inner.history.clone(), added, inner.revision)
    };
    let metadata = json!({"resourceVersion": now.to_string(), "annotations": {"k8s.io/initial-events-end": "true"}});
    let end = json!({"type": "BOOKMARK", "object": {"metadata": metadata}});
    let listed: Vec<_> = if after.is_none() { present.into_iter().chain([end]).collect() } else { Vec::new() };
    let after = after.unwrap_or(now);
    let listed = listed.into_iter().map(|event| Ok(Frame::data(Bytes::from(format!("{event}\n")))));
    let collection = path.to_owned();
    let coming = futures::stream::unfold(changes, async |mut changes| Some((changes.recv().await.ok()?, changes)));
    let events = futures::stream::iter(past).chain(coming).scan(after, |seen, (key, revision, event)| {
        let fresh = revision > *seen;
        *seen = revision.max(*seen);
        futures::future::ready(Some(fresh.then_some((key, event))))
    });
    let lines = events.filter_map(move |event| {
        let line = event.filter(|(key, event)| is_in(key, &event["object"], &collection, selector.as_deref()));
        futures::future::ready(line.map(|(_, event)| Ok(Frame::data(Bytes::from(format!("{event}\n"))))))
    });
    Response::new(StreamBody::new(futures::stream::iter(listed).chain(lines).boxed()).boxed_unsync_to_box())
}

trait ToBox {
    fn boxed_unsync_to_box(self) -> Body;
}

impl<S> ToBox for StreamBody<S>
where
    S: futures::Stream<Item = Result<Frame<Bytes>, Infallible>> + Send + 'static,
{
    fn boxed_unsync_to_box(self) -> Body {
        BoxBody::new(SyncBody(Mutex::new(Box::pin(self))))
    }
}

/// Bodies have to be `Sync`, which streams are not.
struct SyncBody<B>(Mutex<std::pin::Pin<Box<B>>>);

impl<B: hyper::body::Body<Data = Bytes, Error = Infallible>> hyper::body::Body for SyncBody<B> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.lock().unwrap().as_mut().poll_frame(context)
    }
}

fn as_table(objects: &[Value], revision: u64) -> Value {
    let row = |object: &Value| {
        json!({"cells": [object["metadata"]["name"], object["status"]["phase"], object["status"]["podIP"]],
            "object": object})
    };
    json!({"kind": "Table", "metadata": {"resourceVersion": revision.to_string()},
        "columnDefinitions": [{"name": "Name", "format": "name"}, {"name": "Status"}, {"name": "IP", "priority": 1}],
        "rows": objects.iter().map(row).collect::<Vec<_>>()})
}

/// Some kinds, so that others than those known by heart can be asked for.
fn discovery(door: &str) -> Value {
    let resource = |plural: &str, kind: &str, short: &str, category: &str| {
        json!({"resource": plural, "singularResource": kind.to_lowercase(), "scope": "Namespaced", "verbs": ["get", "list"],
            "responseKind": {"kind": kind}, "shortNames": [short], "categories": [category]})
    };
    let (group, resources) = match door {
        "/api" => {
            (json!({}), json!([resource("pods", "Pod", "po", "all"), resource("services", "Service", "svc", "all")]))
        }
        _ => (json!({"name": "rbac.authorization.k8s.io"}), json!([resource("roles", "Role", "ro", "")])),
    };
    json!({"items": [{"metadata": group, "versions": [{"version": "v1", "resources": resources}]}]})
}

async fn images(state: &State, method: &Method, door: &str, request: Request<Incoming>) -> Response<Body> {
    let image = json!({"id": "sha256:0123456789abcdef", "references": ["docker.io/library/nginx:1"], "size": 1000});
    match (method, door) {
        (&Method::GET, _) => reply(200, &json!({"images": [image]})),
        (&Method::DELETE, _) => refuse(409, "Conflict", "image docker.io/library/nginx:1 is used by pod default/web"),
        _ if state.inner.lock().unwrap().refuse_uploads => refuse(400, "BadRequest", "this is not an image"),
        _ => {
            let uri = request.uri().to_string();
            let Ok(body) = request.collect().await else { return refuse(400, "BadRequest", "the upload broke off") };
            state.inner.lock().unwrap().uploads.push((uri, body.to_bytes().to_vec()));
            reply(200, &json!({"images": [image]}))
        }
    }
}

/// Programs of the fake: `cat` echoes stdin, `exit N`, `size` prints the terminal's size, all else prints its words.
fn session(mut request: Request<Incoming>, query: &[(String, String)]) -> Response<Body> {
    let words: Vec<String> = query.iter().filter(|(key, _)| key == "command").map(|(_, word)| word.clone()).collect();
    if words.first().is_some_and(|word| word == "missing") {
        return refuse(400, "BadRequest", "container missing is not valid for pod web");
    }
    let key = derive_accept_key(request.headers()["sec-websocket-key"].as_bytes());
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let upgraded = TokioIo::new(upgrade.await.unwrap());
        let socket = WebSocketStream::from_raw_socket(upgraded, Role::Server, None).await;
        // The client may leave at any moment.
        let _left = play(socket, words).await;
    });
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-accept", key)
        .header("sec-websocket-protocol", "v5.channel.k8s.io")
        .body(Full::default().boxed())
        .unwrap()
}

async fn play<S>(
    mut socket: WebSocketStream<S>,
    words: Vec<String>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let output = |channel: u8, data: &[u8]| Message::Binary([&[channel], data].concat().into());
    socket.send(output(1, b"")).await?;
    let mut code = 0;
    match words.first().map(String::as_str) {
        Some("cat" | "size") => {
            while let Some(message) = socket.next().await {
                let data = message?.into_data();
                match data.split_first() {
                    Some((255, [0])) => break,
                    Some((0, input)) if words[0] == "cat" => socket.send(output(1, input)).await?,
                    Some((0, b"\x03")) => {
                        socket.send(output(1, b"interrupted")).await?;
                        code = 130;
                        break;
                    }
                    Some((4, size)) => socket.send(output(1, size)).await?,
                    _ => {}
                }
            }
        }
        Some("exit") => code = words[1].parse()?,
        _ => {
            socket.send(output(1, words.join(" ").as_bytes())).await?;
            socket.send(output(2, b"to stderr")).await?;
        }
    }
    let status = match code {
        0 => json!({"metadata": {}, "status": "Success"}),
        code => json!({"metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]}}),
    };
    socket.send(output(3, status.to_string().as_bytes())).await?;
    socket.close(None).await?;
    Ok(())
}

fn pair(text: &str) -> (String, String) {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    let mut bytes = Vec::new();
    let mut rest = value.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        if *first == b'%' {
            bytes.push(u8::from_str_radix(std::str::from_utf8(&tail[..2]).unwrap(), 16).unwrap());
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    (key.to_owned(), String::from_utf8(bytes).unwrap())
}

fn missing(path: &str) -> Response<Body> {
    let mut parts = path.rsplit('/');
    let (name, plural) = (parts.next().unwrap(), parts.next().unwrap());
    refuse(404, "NotFound", &format!("{plural} {name:?} not found"))
}

fn refuse(code: u16, reason: &str, message: &str) -> Response<Body> {
    reply(code, &json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}))
}

fn reply(code: u16, value: &Value) -> Response<Body> {
    let mut response = plain(value.to_string().into_bytes());
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}

fn plain(bytes: Vec<u8>) -> Response<Body> {
    Response::new(Full::new(Bytes::from(bytes)).boxed())
}
