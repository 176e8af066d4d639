//! The server on a port of the machine, over a runtime without a kernel.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http::header::{SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION};
use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use runtime::fake::FakeRuntime;
use runtime::{
    ContainerConfig, LinuxResources, NetworkMode, PidMode, PodNamespaces, PodSandboxConfig, QosClass, SecurityConfig,
};
use serde_json::{Value, json};
use spec::{ContainerName, Digest, PodRef, PodUid};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::*;

/// No test waits longer than this for anything.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// A server, and a sandbox with a container that runs.
struct Rig {
    server: StreamingServer,
    runtime: FakeRuntime,
    sandbox: SandboxId,
    container: ContainerId,
    shutdown: CancellationToken,
    _directory: tempfile::TempDir,
}

impl Rig {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let runtime = FakeRuntime::new(directory.path(), jiff::Timestamp::now);
        let sandbox = runtime.run_pod_sandbox(sandbox_config()).await.unwrap().id;
        let container = runtime.create_container(&sandbox, container_config()).await.unwrap();
        runtime.start_container(&container).await.unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let shutdown = CancellationToken::new();
        let server = StreamingServer::start(listener, Arc::new(runtime.clone()), shutdown.clone()).unwrap();
        Self { server, runtime, sandbox, container, shutdown, _directory: directory }
    }

    fn exec_url(&self) -> String {
        self.server.exec_url(self.container.clone(), echo()).unwrap()
    }
}

fn sandbox_config() -> PodSandboxConfig {
    PodSandboxConfig {
        pod: PodRef::new("default", "p"),
        uid: PodUid::new("u"),
        attempt: 0,
        hostname: "p".to_owned(),
        network: NetworkMode::Host,
        qos: QosClass::BestEffort,
        resources: LinuxResources::default(),
        log_directory: "/logs".into(),
        tmpfs: Vec::new(),
        shm_size: 0,
        ports: Vec::new(),
        namespaces: PodNamespaces::default(),
        cgroup: None,
        labels: BTreeMap::new(),
    }
}

fn container_config() -> ContainerConfig {
    ContainerConfig {
        name: ContainerName::new("main"),
        attempt: 0,
        image_ref: "image".to_owned(),
        image_id: format!("sha256:{}", "0".repeat(64)).parse::<Digest>().unwrap(),
        command: vec!["sleep".to_owned()],
        env: Vec::new(),
        working_dir: "/".into(),
        mounts: Vec::new(),
        stdin: true,
        stdin_once: false,
        tty: false,
        resources: LinuxResources::default(),
        security: SecurityConfig::default(),
        pid: PidMode::default(),
        stop_signal: None,
        labels: BTreeMap::new(),
        log_path: None,
    }
}

fn echo() -> ExecRequest {
    let command = vec!["echo".to_owned(), "hi".to_owned()];
    ExecRequest { command, stdin: false, stdout: true, stderr: true, tty: false }
}

const ATTACH: AttachRequest = AttachRequest { stdin: false, stdout: true, stderr: false, tty: false };

/// Asks for a URL, with these headers besides the necessary ones.
async fn ask(method: Method, url: &str, headers: &[(&str, &str)]) -> http::Response<Incoming> {
    let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let stream = TcpStream::connect(host).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    let mut request = Request::builder().method(method).uri(format!("/{path}")).header("host", host);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap()
}

async fn upgrade(url: &str, protocol: &str) -> http::Response<Incoming> {
    let headers = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        (SEC_WEBSOCKET_VERSION.as_str(), "13"),
        (SEC_WEBSOCKET_KEY.as_str(), "dGhlIHNhbXBsZSBub25jZQ=="),
        (SEC_WEBSOCKET_PROTOCOL.as_str(), protocol),
    ];
    ask(Method::GET, url, &headers).await
}

async fn open(url: &str, protocol: &str) -> Socket {
    let response = upgrade(url, protocol).await;
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(response.headers()[SEC_WEBSOCKET_PROTOCOL], protocol);
    let io = hyper::upgrade::on(response).await.unwrap();
    WebSocketStream::from_raw_socket(TokioIo::new(io), Role::Client, None).await
}

async fn next(socket: &mut Socket) -> Message {
    tokio::time::timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap()
}

/// What comes on the status channel.
async fn status(mut socket: Socket) -> Value {
    loop {
        if let Message::Binary(data) = next(&mut socket).await
            && let [3, status @ ..] = data.as_ref()
            && !status.is_empty()
        {
            return serde_json::from_slice(status).unwrap();
        }
    }
}

async fn body(response: http::Response<Incoming>) -> (u16, String) {
    let code = response.status().as_u16();
    let body = tokio::time::timeout(PATIENCE, response.into_body().collect()).await.unwrap().unwrap();
    (code, String::from_utf8(body.to_bytes().to_vec()).unwrap())
}

#[tokio::test]
async fn a_url_gives_one_session() {
    let rig = Rig::new().await;
    let url = rig.exec_url();
    for protocol in ["v5.channel.k8s.io", "v4.channel.k8s.io"] {
        let mut socket = open(&rig.exec_url(), protocol).await;
        assert_eq!(next(&mut socket).await, Message::Binary(Bytes::from_static(b"\x01")));
        assert_eq!(next(&mut socket).await, Message::Binary(Bytes::from_static(b"\x01echo hi\n")));
        assert_eq!(status(socket).await, json!({"metadata": {}, "status": "Success"}));
    }
    drop(open(&url, "v5.channel.k8s.io").await);
    assert_eq!(body(upgrade(&url, "v5.channel.k8s.io").await).await, (404, "404 page not found\n".to_owned()));
}

#[tokio::test]
async fn spdy_is_spoken_too() {
    let rig = Rig::new().await;
    let spdy = [("connection", "Upgrade"), ("upgrade", "SPDY/3.1")];
    let with = |protocol| [spdy[0], spdy[1], ("x-stream-protocol-version", protocol)];
    let response = ask(Method::POST, &rig.exec_url(), &with("v5.channel.k8s.io, v4.channel.k8s.io")).await;
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(response.headers()["x-stream-protocol-version"], "v4.channel.k8s.io");
    let url = rig.server.port_forward_url(rig.sandbox.clone(), Vec::new()).unwrap();
    let response = ask(Method::POST, &url, &with("portforward.k8s.io")).await;
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let response = ask(Method::POST, &rig.exec_url(), &with("v9.channel.k8s.io")).await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert_eq!(response.headers()["x-accepted-stream-protocol-versions"], "v4.channel.k8s.io");
}

#[tokio::test]
async fn an_attach_ends_well_however_the_container_does() {
    let rig = Rig::new().await;
    let url = rig.server.attach_url(rig.container.clone(), ATTACH).unwrap();
    let mut socket = open(&url, "v5.channel.k8s.io").await;
    assert_eq!(next(&mut socket).await, Message::Binary(Bytes::from_static(b"\x01")), "attached");
    assert!(rig.runtime.exit("main", 7));
    assert_eq!(status(socket).await["status"], "Success");
    let url = rig.server.attach_url(rig.container.clone(), ATTACH).unwrap();
    let failed = status(open(&url, "v5.channel.k8s.io").await).await;
    let why = "Internal error occurred: error attaching to container: container \"main\" is not running";
    assert_eq!((&failed["message"], &failed["code"]), (&json!(why), &json!(500)));
    let failed = status(open(&rig.exec_url(), "v5.channel.k8s.io").await).await;
    let why = "Internal error occurred: error executing command in container: container \"main\" is not running";
    assert_eq!(failed["message"], why);
}

#[tokio::test]
async fn a_port_is_reached_by_the_channels_that_were_asked_for() {
    let rig = Rig::new().await;
    let program = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = program.local_addr().unwrap().port();
    let url = rig.server.port_forward_url(rig.sandbox.clone(), vec![port]).unwrap();
    let mut socket = open(&url, "v4.channel.k8s.io").await;
    let [low, high] = port.to_le_bytes();
    for channel in [0, 1] {
        assert_eq!(next(&mut socket).await, Message::Binary(vec![channel, low, high].into()));
    }
    let (mut connected, _) = program.accept().await.unwrap();
    socket.send(Message::Binary(Bytes::from_static(b"\x00ping"))).await.unwrap();
    let mut heard = [0; 4];
    connected.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"ping");
    connected.write_all(b"pong").await.unwrap();
    assert_eq!(next(&mut socket).await, Message::Binary(Bytes::from_static(b"\x00pong")));
    let url = rig.server.port_forward_url(rig.sandbox.clone(), Vec::new()).unwrap();
    let (code, why) = body(upgrade(&url, "v4.channel.k8s.io").await).await;
    assert_eq!((code, why.as_str()), (400, "query parameter \"ports\" is required\n"));
}

#[tokio::test]
async fn a_token_opens_its_own_door_only() {
    let rig = Rig::new().await;
    let protocol = "v5.channel.k8s.io";
    let elsewhere = rig.exec_url().replace("/exec/", "/attach/");
    let table = [
        (Method::GET, elsewhere, 404),
        (Method::GET, rig.exec_url() + "x", 404),
        (Method::GET, rig.exec_url().replace("/exec/", "/run/"), 404),
        (Method::DELETE, rig.exec_url(), 405),
        (Method::GET, rig.exec_url(), 400),
    ];
    for (method, url, code) in table {
        assert_eq!(ask(method.clone(), &url, &[]).await.status(), code, "{method} {url}");
    }
    let refused = upgrade(&rig.exec_url(), "v1.unknown").await;
    assert_eq!(
        (refused.status(), &refused.headers()["connection"]),
        (StatusCode::BAD_REQUEST, &"close".parse().unwrap())
    );
    drop(open(&rig.exec_url(), protocol).await);
}

#[tokio::test]
async fn streams_that_cannot_be_are_refused() {
    let rig = Rig::new().await;
    let terminal = ExecRequest { tty: true, ..echo() };
    assert_eq!(rig.server.exec_url(rig.container.clone(), terminal), Err(NoUrl::TerminalWithStderr));
    let nothing = AttachRequest { stdout: false, ..ATTACH };
    assert_eq!(rig.server.attach_url(rig.container.clone(), nothing), Err(NoUrl::NoStream));
}

#[tokio::test]
async fn sessions_end_with_the_server() {
    let rig = Rig::new().await;
    let url = rig.server.attach_url(rig.container.clone(), ATTACH).unwrap();
    let mut socket = open(&url, "v5.channel.k8s.io").await;
    next(&mut socket).await;
    rig.shutdown.cancel();
    let ended = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap();
    assert!(!matches!(ended, Some(Ok(_))), "{ended:?}");
}
