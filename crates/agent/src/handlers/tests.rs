//! Requests against real servers on the loopback device.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use spec::k8s_openapi::api::core::v1::{Container, LifecycleHandler, Probe};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, Interest};
use tokio::net::TcpListener;

use super::{Action, HttpGet, InvalidAction};
use crate::probes::{Outcome, attempt};

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const TIMEOUT: Duration = Duration::from_secs(20);

/// A server that answers each request with the next of its answers, and keeps what it was asked.
pub(crate) struct Server {
    pub(crate) port: u16,
    pub(crate) asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub(crate) async fn start(answers: &[&str]) -> Self {
        Self::serve(answers, None).await
    }

    async fn with_tls(answers: &[&str]) -> Self {
        let certificate = CertificateDer::from_pem_slice(include_bytes!("testdata/certificate.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_slice(include_bytes!("testdata/key.pem")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = builder.unwrap().with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
        Self::serve(answers, Some(tokio_rustls::TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn serve(answers: &[&str], tls: Option<tokio_rustls::TlsAcceptor>) -> Self {
        let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (heads, answers) = (Arc::clone(&asked), answers.iter().map(|&text| text.to_owned()).collect::<Vec<_>>());
        tokio::spawn(async move {
            for answer in answers {
                let answer = answer.replace("PORT", &port.to_string());
                let (stream, _) = listener.accept().await.unwrap();
                match &tls {
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            converse(stream, &answer, &heads).await;
                        }
                    }
                    None => converse(stream, &answer, &heads).await,
                }
            }
        });
        Self { port, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    fn probe(&self, get: &Value) -> Action {
        let mut get = get.clone();
        get["port"] = self.port.into();
        of_probe(&json!({ "httpGet": get })).unwrap()
    }
}

async fn converse(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &str, heads: &Mutex<Vec<String>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_hung_up) => break,
        }
    }
    heads.lock().unwrap().push(String::from_utf8(head).unwrap());
    // The client hangs up where it has read enough.
    drop(stream.write_all(answer.as_bytes()).await);
    drop(stream.shutdown().await);
    drop(stream.read(&mut [0]).await);
}

fn container() -> Container {
    serde_json::from_value(json!({ "name": "app", "ports": [{ "name": "web", "containerPort": 8080 }] })).unwrap()
}

fn of_probe(probe: &Value) -> Result<Action, InvalidAction> {
    let probe: Probe = serde_json::from_value(probe.clone()).unwrap();
    Action::of_probe(&probe, &container(), Some(LOCALHOST))
}

async fn outcome(action: &Action) -> Outcome {
    within(action, TIMEOUT).await
}

async fn within(action: &Action, timeout: Duration) -> Outcome {
    let runtime = runtime::fake::FakeRuntime::new("/nonexistent", || "2026-01-01T00:00:00Z".parse().unwrap());
    attempt(&runtime, &spec::ContainerId::new("none"), action, timeout).await
}

fn failure(outcome: Outcome) -> String {
    match outcome {
        Outcome::Failure(message) | Outcome::Refused(message) => message,
        other @ (Outcome::Success | Outcome::Warning(_) | Outcome::Unknown(_)) => panic!("{other:?} is no failure"),
    }
}

#[tokio::test]
async fn a_request_has_the_headers_of_the_kubelet_and_those_of_the_pod() {
    let server = Server::start(&["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"; 2]).await;
    let port = server.port;
    assert_eq!(outcome(&server.probe(&json!({}))).await, Outcome::Success);
    let get = json!({ "path": "healthz?full=1#part", "httpHeaders": [
        { "name": "Host", "value": "shop.example" },
        { "name": "user-agent", "value": "mine" },
        { "name": "Accept", "value": "" },
        { "name": "X-Twice", "value": "a" },
        { "name": "X-Twice", "value": "b" },
    ] });
    assert_eq!(outcome(&server.probe(&get)).await, Outcome::Success);
    let lines = |head: &str| {
        let mut lines: Vec<_> = head.trim_end().lines().map(str::to_lowercase).collect();
        lines[1..].sort();
        lines
    };
    let asked = server.asked();
    let host = format!("host: 127.0.0.1:{port}");
    assert_eq!(
        lines(&asked[0]),
        ["get / http/1.1", "accept: */*", "connection: close", &host, "user-agent: kube-probe/1.37"]
    );
    assert_eq!(
        lines(&asked[1]),
        [
            "get /healthz?full=1 http/1.1",
            "connection: close",
            "host: shop.example",
            "user-agent: mine",
            "x-twice: a",
            "x-twice: b"
        ]
    );
}

#[tokio::test]
async fn a_status_below_400_is_good_and_the_body_of_another_stays_secret() {
    let server = Server::start(&[
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\n\r\n",
        "HTTP/1.1 404 Not Found\r\nContent-Length: 6\r\n\r\nsecret",
        "HTTP/1.1 500 Oh\r\nContent-Length: 6\r\n\r\nsecret",
        "",
        "this is no HTTP\r\n\r\n",
    ])
    .await;
    let probe = server.probe(&json!({}));
    assert_eq!(outcome(&probe).await, Outcome::Success);
    assert_eq!(outcome(&probe).await, Outcome::Warning("Probe terminated redirects, Response body: ".into()));
    assert_eq!(failure(outcome(&probe).await), "HTTP probe failed with statuscode: 404");
    assert_eq!(failure(outcome(&probe).await), "HTTP probe failed with statuscode: 500");
    let url = format!("http://127.0.0.1:{}/", server.port);
    assert_eq!(failure(outcome(&probe).await), format!("Get \"{url}\": EOF"));
    assert!(failure(outcome(&probe).await).starts_with(&format!("Get \"{url}\": ")));
}

#[tokio::test]
async fn redirects_are_followed_on_the_same_host_only() {
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let server = Server::start(&["HTTP/1.1 302 Found\r\nLocation: deeper?a=b\r\n\r\n", ok]).await;
    assert_eq!(outcome(&server.probe(&json!({ "path": "/a/b" }))).await, Outcome::Success);
    assert!(server.asked()[1].starts_with("GET /a/deeper?a=b HTTP/1.1\r\n"), "{:?}", server.asked());

    let server = Server::start(&["HTTP/1.1 307 T\r\nLocation: http://127.0.0.1:PORT/x\r\n\r\n", ok]).await;
    let get = json!({ "httpHeaders": [{ "name": "Host", "value": "shop.example" }] });
    assert_eq!(outcome(&server.probe(&get)).await, Outcome::Success);
    let second = server.asked()[1].to_lowercase();
    assert!(second.contains(&format!("host: 127.0.0.1:{}\r\n", server.port)), "{second}");

    let elsewhere = "HTTP/1.1 302 F\r\nLocation: http://elsewhere.example/\r\nContent-Length: 4\r\n\r\ngone";
    let server = Server::start(&[elsewhere]).await;
    assert_eq!(
        outcome(&server.probe(&json!({}))).await,
        Outcome::Warning("Probe terminated redirects, Response body: gone".into())
    );

    let server = Server::start(&["HTTP/1.1 301 M\r\nLocation: /again\r\n\r\n"; 20]).await;
    let message = failure(outcome(&server.probe(&json!({}))).await);
    assert_eq!(message, format!("Get \"http://127.0.0.1:{}/again\": stopped after 10 redirects", server.port));
    assert_eq!(server.asked().len(), 10);

    let server = Server::start(&["HTTP/1.1 302 F\r\nContent-Length: 0\r\n\r\n"]).await;
    assert!(matches!(outcome(&server.probe(&json!({}))).await, Outcome::Warning(_)), "a redirect to nowhere");
    let server = Server::start(&["HTTP/1.1 302 F\r\nLocation: file:///etc/shadow\r\nContent-Length: 0\r\n\r\n"]).await;
    assert!(matches!(outcome(&server.probe(&json!({}))).await, Outcome::Warning(_)), "no web server");
}

#[tokio::test]
async fn a_body_is_read_no_further_than_it_is_kept() {
    // Says that it is endless: reading it whole would never end.
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 1099511627776\r\n\r\n";
    let server = Server::start(&[&format!("{head}{}", "x".repeat(20_000))]).await;
    assert_eq!(outcome(&server.probe(&json!({}))).await, Outcome::Success);
    let elsewhere = "HTTP/1.1 302 F\r\nLocation: http://elsewhere.example/\r\nContent-Length: 20000\r\n\r\n";
    let server = Server::start(&[&format!("{elsewhere}{}", "x".repeat(20_000))]).await;
    let Outcome::Warning(message) = outcome(&server.probe(&json!({}))).await else { panic!("no warning") };
    assert_eq!(message.matches('x').count(), super::OUTPUT_LIMIT);
}

#[tokio::test]
async fn a_server_that_does_not_answer_in_time_has_failed() {
    let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let short = Duration::from_millis(50);
    let probe = of_probe(&json!({ "httpGet": { "port": port } })).unwrap();
    assert_eq!(
        failure(within(&probe, short).await),
        format!(
            "Get \"http://127.0.0.1:{port}/\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        )
    );
    let probe = of_probe(&json!({ "grpc": { "port": port } })).unwrap();
    assert_eq!(failure(within(&probe, short).await), "timeout: health rpc did not complete within 0s");
}

#[tokio::test]
async fn https_asks_for_no_certificate_and_needs_tls() {
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let server = Server::with_tls(&[ok]).await;
    assert_eq!(outcome(&server.probe(&json!({ "scheme": "HTTPS" }))).await, Outcome::Success);
    let server = Server::start(&["HTTP/1.1 400 Bad Request\r\n\r\n"]).await;
    // The greeting has no empty line, so the server answers when the client has waited long enough to close.
    let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await);
        drop(stream.read(&mut [0; 4096]).await);
    });
    drop(server);
    let probe = of_probe(&json!({ "httpGet": { "port": port, "scheme": "HTTPS" } })).unwrap();
    let message = failure(outcome(&probe).await);
    assert_eq!(message, format!("Get \"https://127.0.0.1:{port}/\": http: server gave HTTP response to HTTPS client"));
}

#[tokio::test]
async fn a_server_that_is_only_looked_at_sees_an_orderly_end() {
    let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let probe = of_probe(&json!({ "tcpSocket": { "port": port } })).unwrap();
    assert_eq!(outcome(&probe).await, Outcome::Success);
    let (mut visitor, _) = listener.accept().await.unwrap();
    assert_eq!(visitor.read(&mut [0; 16]).await.unwrap(), 0, "the end, and no error of which a server would complain");
    // One that does not close its end holds no port of the machine for it.
    tokio::time::timeout(Duration::from_secs(10), visitor.ready(Interest::ERROR)).await.unwrap().unwrap();
    assert!(visitor.take_error().unwrap().is_some(), "a reset");
}

#[tokio::test]
async fn nobody_listening_is_told_apart() {
    let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let probe = of_probe(&json!({ "tcpSocket": { "port": port } })).unwrap();
    assert_eq!(outcome(&probe).await, Outcome::Success);
    drop(listener);
    let refused = format!("dial tcp 127.0.0.1:{port}: connect: connection refused");
    assert_eq!(outcome(&probe).await, Outcome::Refused(refused.clone()));
    let probe = of_probe(&json!({ "httpGet": { "port": port, "path": "/x" } })).unwrap();
    assert_eq!(outcome(&probe).await, Outcome::Refused(format!("Get \"http://127.0.0.1:{port}/x\": {refused}")));
    let probe = of_probe(&json!({ "grpc": { "port": port } })).unwrap();
    assert!(matches!(outcome(&probe).await, Outcome::Refused(message) if message.contains(&refused)));
}

/// A health service; `status` is that of gRPC, `serving` that of the service.
async fn grpc_server(status: &'static str, serving: &'static [u8]) -> (u16, Arc<Mutex<Vec<(String, Vec<u8>)>>>) {
    let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&asked);
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let kept = Arc::clone(&kept);
            async move {
                let text = format!("{} {}", request.uri().path(), request.headers()["user-agent"].to_str().unwrap());
                let body = request.into_body().collect().await.unwrap().to_bytes().to_vec();
                kept.lock().unwrap().push((text, body));
                let response = http::Response::builder().header("content-type", "application/grpc");
                if status != "0" {
                    // As a server does that has nothing else to say.
                    let response = response.header("grpc-status", status).header("grpc-message", "no such thing");
                    return Ok::<_, std::convert::Infallible>(response.body(Full::default().boxed()).unwrap());
                }
                let trailers = http::HeaderMap::from_iter([(
                    http::HeaderName::from_static("grpc-status"),
                    http::HeaderValue::from_static("0"),
                )]);
                let frames = [Ok(Frame::data(Bytes::from_static(serving))), Ok(Frame::trailers(trailers))];
                Ok(response.body(StreamBody::new(futures::stream::iter(frames)).boxed()).unwrap())
            }
        });
        let http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        drop(http2.serve_connection(TokioIo::new(stream), service).await);
    });
    (port, asked)
}

#[tokio::test]
async fn a_grpc_server_is_healthy_if_it_serves() {
    let table: [(&str, &[u8], Result<(), &str>); 6] = [
        ("0", b"\0\0\0\0\x02\x08\x01", Ok(())),
        ("0", b"\0\0\0\0\x02\x08\x02", Err("service unhealthy (responded with \"NOT_SERVING\")")),
        ("0", b"\0\0\0\0\0", Err("service unhealthy (responded with \"UNKNOWN\")")),
        ("5", b"", Err("error: health rpc probe failed: rpc error: code = NotFound desc = no such thing")),
        (
            "12",
            b"",
            Err(
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): no such thing",
            ),
        ),
        ("0", b"\0\0\0\0\x09\x08\x01", Err("error: health rpc probe failed: the answer is no HealthCheckResponse")),
    ];
    for (status, serving, expected) in table {
        let (port, asked) = grpc_server(status, serving).await;
        let probe = of_probe(&json!({ "grpc": { "port": port, "service": "shop.Cart" } })).unwrap();
        match (outcome(&probe).await, expected) {
            (Outcome::Success, Ok(())) => {}
            (Outcome::Failure(message), Err(expected)) => assert_eq!(message, expected),
            (other, expected) => panic!("{other:?} is not {expected:?}"),
        }
        let asked = asked.lock().unwrap();
        assert_eq!(asked[0].0, "/grpc.health.v1.Health/Check kube-probe/1.37");
        assert_eq!(asked[0].1, b"\0\0\0\0\x0b\x0a\x09shop.Cart");
    }
}

#[tokio::test]
async fn a_web_server_is_no_grpc_server() {
    let server = Server::start(&["HTTP/1.1 400 Bad Request\r\n\r\n"]).await;
    let probe = of_probe(&json!({ "grpc": { "port": server.port } })).unwrap();
    assert!(failure(outcome(&probe).await).starts_with("error: health rpc probe failed: "));
}

#[test]
fn ports_are_found_by_name_in_the_same_container() {
    let url = |port: Value| match of_probe(&json!({ "httpGet": { "port": port } })) {
        Ok(Action::Http(HttpGet { url, .. })) => url.to_string(),
        Ok(other) => panic!("{other:?}"),
        Err(invalid) => invalid.to_string(),
    };
    assert_eq!(url(json!("web")), "http://127.0.0.1:8080/");
    assert_eq!(url(json!("9090")), "http://127.0.0.1:9090/");
    assert_eq!(url(json!("http")), "strconv.Atoi: parsing \"http\": invalid syntax");
    assert_eq!(url(json!("70000")), "invalid port number: 70000");
}

#[test]
fn a_host_is_the_pods_own_unless_it_names_another() {
    let probe: Probe =
        serde_json::from_value(json!({ "httpGet": { "port": 1, "host": "::1", "path": "/a b" } })).unwrap();
    let Ok(Action::Http(get)) = Action::of_probe(&probe, &container(), None) else { panic!("a request") };
    assert_eq!(get.url.as_str(), "http://[::1]:1/a%20b");
    let probe: Probe = serde_json::from_value(json!({ "httpGet": { "port": 1 } })).unwrap();
    assert_eq!(Action::of_probe(&probe, &container(), None).unwrap_err(), InvalidAction::NoAddress);
}

#[test]
fn a_hook_that_opens_a_connection_is_none() {
    let hook: LifecycleHandler = serde_json::from_value(json!({ "tcpSocket": { "port": 1 } })).unwrap();
    let invalid = Action::of_hook(&hook, &container(), Some(LOCALHOST)).unwrap_err();
    assert_eq!(invalid.to_string(), "invalid handler: a hook runs a command, sends a request or sleeps");
}
