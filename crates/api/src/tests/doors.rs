//! log, exec and attach, with an agent over a runtime without a kernel.

use futures::StreamExt as _;
use http::header::{SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION};
use store::ObjectKey;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::images::import_image;
use super::*;

/// A server on which the Pod `p` runs.
async fn with_running_pod() -> (TestServer, FakeRuntime) {
    let (server, runtime) = TestServer::start_with_agent().await;
    import_image(&server).await;
    let mut changes = server.context.store.watch("pods", None).unwrap();
    let mut wanted = pod("p");
    wanted["spec"]["containers"][0]["image"] = json!("test/true:1");
    assert_eq!(server.post(PODS, &wanted).await.code, StatusCode::CREATED);
    let running = async {
        while let Some(change) = changes.next().await {
            if change.object.value["status"]["phase"] == "Running" {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, running).await.unwrap();
    (server, runtime)
}

/// Writes what infra would have written of the Pod `p`.
async fn write_log(server: &TestServer, lines: &str) {
    let uid = server.get(&format!("{PODS}/p")).await.json()["metadata"]["uid"].as_str().unwrap().to_owned();
    let directory = server.path(&format!("logs/default_p_{uid}/main"));
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("0.log"), lines).unwrap();
}

fn upgrade(path: &str, protocols: &str) -> Request<Full<Bytes>> {
    let mut request = request(Method::GET, path, "", Bytes::new());
    let headers = request.headers_mut();
    headers.insert("connection", "Upgrade".parse().unwrap());
    headers.insert("upgrade", "websocket".parse().unwrap());
    headers.insert(SEC_WEBSOCKET_VERSION, "13".parse().unwrap());
    headers.insert(SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==".parse().unwrap());
    headers.insert(SEC_WEBSOCKET_PROTOCOL, protocols.parse().unwrap());
    request
}

async fn open(server: &TestServer, path: &str) -> WebSocketStream<TokioIo<hyper::upgrade::Upgraded>> {
    open_as(server, path, "v5.channel.k8s.io, v4.channel.k8s.io").await
}

async fn open_as(
    server: &TestServer,
    path: &str,
    protocols: &str,
) -> WebSocketStream<TokioIo<hyper::upgrade::Upgraded>> {
    let response = server.send(upgrade(path, protocols)).await;
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(response.headers()["sec-websocket-protocol"], protocols.split(',').next().unwrap());
    assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    let io = hyper::upgrade::on(response).await.unwrap();
    WebSocketStream::from_raw_socket(TokioIo::new(io), Role::Client, None).await
}

async fn all(mut socket: WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Some(Ok(message)) = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap() {
        messages.push(message);
    }
    messages
}

#[tokio::test]
async fn exec_runs_a_command() {
    let (server, _runtime) = with_running_pod().await;
    let socket = open(&server, &format!("{PODS}/p/exec?command=echo&command=hi&stdout=true&stderr=true")).await;
    let messages = all(socket).await;
    let binary = |text: &'static [u8]| Message::Binary(Bytes::from_static(text));
    assert_eq!(messages[0], binary(b"\x01"));
    assert_eq!(messages[1], binary(b"\x01echo hi\n"));
    assert_eq!(messages[2], binary(b"\x03{\"metadata\":{},\"status\":\"Success\"}"));
    let Message::Close(Some(close)) = &messages[3] else { panic!("{messages:?}") };
    assert_eq!(u16::from(close.code), 1000);
    assert_eq!(messages.len(), 4);
}

#[tokio::test]
async fn the_oldest_protocol_tells_success_by_silence() {
    let (server, _runtime) = with_running_pod().await;
    let path = format!("{PODS}/p/exec?command=echo&command=hi&stdout=1&stderr=1");
    let messages = all(open_as(&server, &path, "channel.k8s.io").await).await;
    assert_eq!(messages[1], Message::Binary(Bytes::from_static(b"\x01echo hi\n")));
    assert!(messages[2].is_close() && messages.len() == 3, "{messages:?}");
}

#[tokio::test]
async fn a_log_is_read_over_a_websocket() {
    let (server, _runtime) = with_running_pod().await;
    write_log(&server, "2026-01-01T00:00:00Z stdout F one\n2026-01-01T00:00:01Z stdout F two\n").await;
    let messages = all(open_as(&server, &format!("{PODS}/p/log?container=main"), "binary.k8s.io").await).await;
    assert_eq!(messages[0], Message::Binary(Bytes::new()));
    let text: Vec<u8> =
        messages.iter().take_while(|message| message.is_binary()).flat_map(|m| m.clone().into_data()).collect();
    assert_eq!(text, b"one\ntwo\n");
    assert!(messages.last().unwrap().is_close(), "{messages:?}");
}

#[tokio::test]
async fn attach_lasts_as_long_as_the_container() {
    let (server, runtime) = with_running_pod().await;
    let socket = open(&server, &format!("{PODS}/p/attach?container=main&stdout=true")).await;
    assert!(runtime.exit("main", 7));
    let messages = all(socket).await;
    let Message::Binary(status) = &messages[messages.len() - 2] else { panic!("{messages:?}") };
    let status: Value = serde_json::from_slice(&status[1..]).unwrap();
    assert_eq!(status["details"]["causes"][0]["message"], "7");
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_told_before_the_upgrade() {
    let (server, _runtime) = with_running_pod().await;
    let table = [
        ("none/exec?command=sh&stdout=true", "v5.channel.k8s.io", 404, "pods \"none\" not found"),
        ("p/exec?command=sh&stdout=true&container=x", "v5.channel.k8s.io", 400, "container x is not valid for pod p"),
        ("p/exec?stdout=true", "v5.channel.k8s.io", 400, "you must specify at least 1 command for the container"),
        ("p/exec?command=sh", "v5.channel.k8s.io", 400, "you must specify at least 1 of stdin, stdout, stderr"),
        (
            "p/exec?command=sh&stdout=true",
            "v1.unknown",
            400,
            "none of the offered subprotocols is spoken here: v5.channel.k8s.io, v4.channel.k8s.io, channel.k8s.io",
        ),
        ("p/attach", "v5.channel.k8s.io", 400, "you must specify at least 1 of stdin, stdout, stderr"),
    ];
    for (path, protocols, code, message) in table {
        let answer = server.ask(upgrade(&format!("{PODS}/{path}"), protocols)).await;
        assert_eq!((answer.code.as_u16(), answer.message().as_str()), (code, message), "{path}");
    }
    let plain = server.get(&format!("{PODS}/p/exec?command=sh&stdout=true")).await;
    assert!(plain.message().starts_with("Upgrade request required"), "{}", plain.message());
}

#[tokio::test]
async fn a_process_that_cannot_start_is_told_on_the_status_channel() {
    let (server, runtime) = with_running_pod().await;
    let mut changes = server.context.store.watch("pods", None).unwrap();
    runtime.exit("main", 0);
    server
        .change(ObjectKey::namespaced("pods", "default", "p"), |pod| pod["status"]["phase"] = json!("Succeeded"))
        .await;
    changes.next().await.unwrap();
    let messages = all(open(&server, &format!("{PODS}/p/exec?command=sh&stdout=true")).await).await;
    let Message::Binary(status) = &messages[0] else { panic!("{messages:?}") };
    let status: Value = serde_json::from_slice(&status[1..]).unwrap();
    assert_eq!((&status["reason"], &status["code"]), (&json!("InternalError"), &json!(500)));
}

#[tokio::test]
async fn logs_are_plain_text() {
    let (server, _runtime) = with_running_pod().await;
    write_log(
        &server,
        "2026-01-01T00:00:00.000000001Z stdout F one\n2026-01-01T00:00:01Z stderr P tw\n2026-01-01T00:00:01Z stderr F o\n",
    )
    .await;
    let answer = server.get(&format!("{PODS}/p/log")).await;
    assert_eq!((answer.code, &answer.headers["content-type"]), (StatusCode::OK, &"text/plain".parse().unwrap()));
    assert_eq!(answer.body, "one\ntwo\n");
    let answer = server.get(&format!("{PODS}/p/log?container=main&tailLines=1&timestamps=true")).await;
    assert_eq!(answer.body, "2026-01-01T00:00:01Z two\n");
    let previous = server.get(&format!("{PODS}/p/log?previous=true")).await;
    assert_eq!(previous.message(), "previous terminated container \"main\" in pod \"p\" not found");
    assert_eq!(server.get(&format!("{PODS}/none/log")).await.message(), "pods \"none\" not found");
    assert_eq!(server.post(&format!("{PODS}/p/log"), &json!({})).await.code, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn a_followed_log_is_flushed_and_ends_with_the_daemon() {
    let (server, _runtime) = with_running_pod().await;
    write_log(&server, "2026-01-01T00:00:00Z stdout F one\n").await;
    let response = server.send(request(Method::GET, &format!("{PODS}/p/log?follow=true"), "", Bytes::new())).await;
    assert_eq!(response.status(), StatusCode::OK);
    let mut body = response.into_body();
    let first = tokio::time::timeout(PATIENCE, body.frame()).await.unwrap().unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), "one\n");
    server.context.shutdown.cancel();
    let rest = tokio::time::timeout(PATIENCE, body.collect()).await.unwrap();
    assert_eq!(rest.unwrap().to_bytes(), "", "a clean end");
}
