//! The whole server on a unix socket in a temporary directory, with a real store.

mod acting;
mod applying;
mod backing_up;
mod claims;
mod deleting;
mod discovering;
mod doors;
mod errors;
mod images;
mod kinds;
mod listing;
mod looking;
mod objects;
mod over_tls;
mod owning;
mod patching;
mod quotas;
mod serving;
mod tables;
mod watching;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use agent::{Agent, AgentConfig, SystemClock};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use image::ImageStore;
use runtime::fake::FakeRuntime;
use serde_json::{Value, json};
use spec::service_network::ServiceNetwork;
use store::{Change, ObjectKey, Store};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::limits::Limits;
use crate::server;

/// No test waits longer than this for anything.
const PATIENCE: Duration = Duration::from_secs(20);

struct TestServer {
    directory: tempfile::TempDir,
    socket: PathBuf,
    context: Arc<Context>,
}

struct Answer {
    code: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or_default().to_owned()
    }
}

impl TestServer {
    /// A server with the namespace `default`, and an agent that sees another store: nobody but the test writes here.
    async fn start() -> Self {
        Self::start_limited(Limits::default()).await
    }

    /// The same with other limits.
    async fn start_limited(limits: Limits) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store")).unwrap();
        let elsewhere = Store::open(&directory.path().join("elsewhere")).unwrap();
        let (agent, _runtime) = start_agent(directory.path(), elsewhere).await;
        let server = Self::serve(directory, store, agent, None, limits).await;
        let namespace = json!({"metadata": {"name": "default"}});
        assert_eq!(server.post("/api/v1/namespaces", &namespace).await.code, StatusCode::CREATED);
        server
    }

    /// A server whose Pods are run by an agent over a runtime without a kernel.
    async fn start_with_agent() -> (Self, FakeRuntime) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store")).unwrap();
        let (agent, runtime) = start_agent(directory.path(), store.clone()).await;
        (Self::serve(directory, store, agent, Some("PEM".to_owned()), Limits::default()).await, runtime)
    }

    async fn serve(
        directory: tempfile::TempDir,
        store: Store,
        agent: Agent,
        ca: Option<String>,
        limits: Limits,
    ) -> Self {
        let context = Arc::new(Context {
            store,
            agent,
            node_name: "n1".to_owned(),
            service_network: ServiceNetwork::parse("10.96.0.0/24").unwrap(),
            shared_writes: tokio::sync::Mutex::new(()),
            steps: steps::Recorder::default(),
            limits,
            version: "0.1.0".to_owned(),
            data_dir: directory.path().join("data"),
            spool: directory.path().join("spool"),
            ca,
            shutdown: CancellationToken::new(),
        });
        crate::standing::keep_standing_objects(&context).await.unwrap();
        let socket = directory.path().join("monopod.sock");
        let listener = server::listen(&socket).await.unwrap();
        let (path, shared) = (socket.clone(), Arc::clone(&context));
        tokio::spawn(async move { server::accept(listener, &path, shared).await.unwrap() });
        Self { directory, socket, context }
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> http::Response<Incoming> {
        let stream = UnixStream::connect(&self.socket).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        sender.send_request(request).await.unwrap()
    }

    async fn ask(&self, request: Request<Full<Bytes>>) -> Answer {
        let response = self.send(request).await;
        let (head, body) = response.into_parts();
        let body = tokio::time::timeout(PATIENCE, body.collect()).await.unwrap().unwrap().to_bytes();
        Answer { code: head.status, headers: head.headers, body }
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(request(Method::GET, path, "", Bytes::new())).await
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask(request(Method::POST, path, "application/json", body.to_string())).await
    }

    async fn put(&self, path: &str, body: &Value) -> Answer {
        self.ask(request(Method::PUT, path, "application/json", body.to_string())).await
    }

    async fn patch(&self, path: &str, kind: &str, body: &Value) -> Answer {
        self.ask(request(Method::PATCH, path, &format!("application/{kind}+json"), body.to_string())).await
    }

    async fn delete(&self, path: &str) -> Answer {
        self.ask(request(Method::DELETE, path, "", Bytes::new())).await
    }

    /// A path in the server's directory.
    fn path(&self, below: &str) -> PathBuf {
        self.directory.path().join(below)
    }

    /// Writes an object past the API, as the agent does.
    async fn write(&self, key: ObjectKey, change: Change) {
        self.context.store.write(key, move |_| Ok::<_, std::convert::Infallible>((change, ()))).await.unwrap();
    }

    /// Changes an object past the API, as the agent does.
    async fn change(&self, key: ObjectKey, change: impl Fn(&mut Value) + Send + 'static) {
        let decide = move |present: Option<&store::StoredObject>| {
            let mut value = present.unwrap().value.as_ref().clone();
            change(&mut value);
            Ok::<_, std::convert::Infallible>((Change::Put(value), ()))
        };
        self.context.store.write(key, decide).await.unwrap();
    }
}

async fn start_agent(root: &Path, store: Store) -> (Agent, FakeRuntime) {
    let images = ImageStore::open(&root.join("images"), store.clone()).unwrap();
    let runtime = FakeRuntime::new(root.join("tmpfs"), jiff::Timestamp::now);
    let mut config = AgentConfig::new("n1", root.join("data"), root.join("logs"));
    // However full the disk of the machine is.
    config.eviction.thresholds.clear();
    let agent = Agent::start(config, store, images, Arc::new(runtime.clone()), Arc::new(SystemClock)).await.unwrap();
    (agent, runtime)
}

fn request(method: Method, path: &str, content_type: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
    if !content_type.is_empty() {
        request = request.header("content-type", content_type);
    }
    request.body(Full::new(body.into())).unwrap()
}

const PODS: &str = "/api/v1/namespaces/default/pods";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "nodeName": "n1",
            "containers": [{"name": "main", "image": "debian:13", "command": ["sleep", "1"]}],
        },
    })
}

fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "v"}})
}

fn pod_key(name: &str) -> ObjectKey {
    ObjectKey::namespaced("pods", "default", name)
}
