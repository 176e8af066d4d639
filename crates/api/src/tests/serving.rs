//! The socket: who may use it, and what happens to one that is there already.

use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::server::{ServeError, listen};

#[tokio::test]
async fn the_socket_is_for_its_owner() {
    let server = TestServer::start().await;
    let mode = std::fs::metadata(&server.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_stranger_is_refused_whatever_the_mode_says() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root");
        return;
    }
    let server = TestServer::start().await;
    let set_mode = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    set_mode(server.socket.parent().unwrap(), 0o755);
    set_mode(&server.socket, 0o666);
    let socket = server.socket.clone();
    let ask = |user: u32| {
        use std::io::{Read as _, Write as _};
        let socket = socket.clone();
        // Of this thread alone (setresuid(2), "C library/kernel differences"), which ends after.
        let asking = std::thread::spawn(move || {
            let uid = rustix::process::Uid::from_raw(user);
            rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
            let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            // The server may have closed it already.
            let _closed = stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").is_err();
            let mut answer = Vec::new();
            let _reset = stream.read_to_end(&mut answer).is_err();
            answer
        });
        tokio::task::spawn_blocking(move || asking.join().unwrap())
    };
    assert_eq!(ask(65_534).await.unwrap(), b"", "nobody gets no answer");
    assert!(ask(0).await.unwrap().starts_with(b"HTTP/1.1 200 OK"), "root does");
}

#[tokio::test]
async fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert!(socket.exists(), "a dead daemon leaves its socket");
    let alive = listen(&socket).await.unwrap();
    assert!(matches!(listen(&socket).await, Err(ServeError::InUse { .. })));
    drop(alive);
    assert!(listen(&socket).await.is_ok());
    let file = directory.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    assert!(matches!(listen(&file).await, Err(ServeError::NotASocket { .. })));
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
}

#[tokio::test]
async fn shutdown_ends_the_server_and_removes_the_socket() {
    let server = TestServer::start().await;
    let stream = UnixStream::connect(&server.socket).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(request(Method::GET, "/healthz", "", Bytes::new())).await.unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "ok");
    server.context.shutdown.cancel();
    tokio::time::timeout(PATIENCE, connection).await.unwrap().unwrap().unwrap();
    let mut looks = tokio::time::interval(Duration::from_millis(5));
    tokio::time::timeout(PATIENCE, async {
        while server.socket.exists() {
            looks.tick().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_refused_upgrade_ends_the_connection() {
    let server = TestServer::start().await;
    let mut wanted = request(Method::GET, &format!("{PODS}/none/exec?command=sh&stdout=true"), "", Bytes::new());
    wanted.headers_mut().insert("connection", "Upgrade".parse().unwrap());
    wanted.headers_mut().insert("upgrade", "websocket".parse().unwrap());
    let answer = server.ask(wanted).await;
    assert_eq!(answer.code, StatusCode::NOT_FOUND);
    assert_eq!(answer.headers["connection"], "close");
}

/// What the server says to these bytes until it closes; once it has come to `sign`, the clock runs while everybody waits.
async fn said_to(server: &TestServer, bytes: &[u8], sign: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = UnixStream::connect(&server.socket).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    while !String::from_utf8_lossy(&answer).contains(sign) {
        assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "{}", String::from_utf8_lossy(&answer));
    }
    tokio::time::pause();
    stream.read_to_end(&mut answer).await.unwrap();
    tokio::time::resume();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_client_that_sends_its_head_slowly_is_given_up() {
    let server = TestServer::start().await;
    let bytes = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\nGET /healthz HTTP/1.1\r\nhost:";
    let answer = said_to(&server, bytes, "\r\n\r\nok").await;
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 1, "{answer}");
}

#[tokio::test]
async fn a_client_that_sends_its_body_slowly_is_given_up() {
    let server = TestServer::start().await;
    // The server says that it goes on when it begins to read the body.
    let head = format!(
        "POST {MAPS} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nexpect: 100-continue\r\ncontent-length: 1000\r\n\r\n{{"
    );
    let answer = said_to(&server, head.as_bytes(), "100 Continue").await;
    assert!(answer.contains("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains(r#""reason":"Timeout""#), "{answer}");
}

#[tokio::test]
async fn a_head_is_bounded() {
    let server = TestServer::start().await;
    let mut large = request(Method::GET, "/version", "", Bytes::new());
    large.headers_mut().insert("x-large", "a".repeat(1024 * 1024).parse().unwrap());
    assert_eq!(server.ask(large).await.code, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    let mut many = request(Method::GET, "/version", "", Bytes::new());
    for number in 0..200 {
        many.headers_mut().append("x-many", number.to_string().parse().unwrap());
    }
    assert_eq!(server.ask(many).await.code, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
}
