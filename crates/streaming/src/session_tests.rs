//! A session over a WebSocket, message by message.

use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use runtime::{Session, SessionEnd, TerminalSize};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::session::{carry, refuse};
use crate::websocket::Protocol;

/// No test waits longer than this for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// The program's side of a session, and the client's side of its socket.
struct Rig {
    stdin: DuplexStream,
    stdout: DuplexStream,
    stderr: DuplexStream,
    sizes: mpsc::UnboundedReceiver<TerminalSize>,
    end: oneshot::Sender<SessionEnd>,
    client: WebSocketStream<DuplexStream>,
    carried: tokio::task::JoinHandle<bool>,
}

impl Rig {
    async fn new(protocol: Protocol) -> Self {
        let ((stdin, theirs_in), (stdout, theirs_out), (stderr, theirs_err)) =
            (duplex(4096), duplex(4096), duplex(4096));
        let (size, sizes) = mpsc::unbounded_channel();
        let (end, ended) = oneshot::channel();
        let session = Session {
            stdin: Some(Box::pin(theirs_in)),
            stdout: Some(Box::pin(theirs_out)),
            stderr: Some(Box::pin(theirs_err)),
            resize: Some(Box::new(move |wanted| size.send(wanted).map_err(std::io::Error::other))),
            end: Box::pin(async { ended.await.unwrap_or(SessionEnd::Lost) }),
        };
        let (ours, theirs) = duplex(64 * 1024);
        let client = WebSocketStream::from_raw_socket(ours, Role::Client, None).await;
        let server = WebSocketStream::from_raw_socket(theirs, Role::Server, None).await;
        let carried = tokio::spawn(async move { carry(server, protocol, session).await.is_ok() });
        Self { stdin, stdout, stderr, sizes, end, client, carried }
    }

    async fn say(&mut self, message: &[u8]) {
        self.client.send(Message::Binary(Bytes::copy_from_slice(message))).await.unwrap();
    }

    async fn hear(&mut self) -> Message {
        tokio::time::timeout(PATIENCE, self.client.next()).await.unwrap().unwrap().unwrap()
    }

    async fn expect(&mut self, want: &[u8]) {
        let found = self.hear().await;
        assert_eq!(found, Message::Binary(Bytes::copy_from_slice(want)));
    }
}

#[tokio::test]
async fn a_session_carries_streams_and_its_end() {
    let mut rig = Rig::new(Protocol::V5).await;
    rig.expect(b"\x01").await;
    rig.say(b"\x00hello").await;
    let mut input = [0; 5];
    rig.stdin.read_exact(&mut input).await.unwrap();
    assert_eq!(&input, b"hello");
    rig.client.send(Message::Text("\0text".into())).await.unwrap();
    rig.stdin.read_exact(&mut input[..4]).await.unwrap();
    assert_eq!(&input[..4], b"text");
    rig.say(b"\x04{\"Width\":100,\"Height\":30}\n").await;
    assert_eq!(rig.sizes.recv().await, Some(TerminalSize { width: 100, height: 30 }));
    rig.stdout.write_all(b"out").await.unwrap();
    rig.expect(b"\x01out").await;
    rig.stderr.write_all(b"err").await.unwrap();
    rig.expect(b"\x02err").await;
    rig.say(b"\xff\x00").await;
    assert_eq!(rig.stdin.read(&mut input).await.unwrap(), 0, "half closed");
    rig.stdout.write_all(b"last").await.unwrap();
    rig.end.send(SessionEnd::Exited(3)).unwrap();
    rig.stdout.shutdown().await.unwrap();
    rig.stderr.shutdown().await.unwrap();
    // Whatever comes first: all output before the status, and the close frame after it.
    let found = tokio::time::timeout(PATIENCE, rig.client.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(found, Message::Binary(Bytes::from_static(b"\x01last")));
    let Message::Binary(status) = tokio::time::timeout(PATIENCE, rig.client.next()).await.unwrap().unwrap().unwrap()
    else {
        panic!("no status")
    };
    assert_eq!(status[0], 3);
    let status: Value = serde_json::from_slice(&status[1..]).unwrap();
    assert_eq!(status["details"]["causes"][0]["message"], "3");
    let Message::Close(Some(close)) =
        tokio::time::timeout(PATIENCE, rig.client.next()).await.unwrap().unwrap().unwrap()
    else {
        panic!("no close frame")
    };
    assert_eq!(u16::from(close.code), 1000);
    while let Some(Ok(_)) = rig.client.next().await {}
    assert!(rig.carried.await.unwrap());
}

#[tokio::test]
async fn an_end_of_stdin_in_v4_is_the_end_of_the_connection() {
    let mut rig = Rig::new(Protocol::V4).await;
    rig.expect(b"\x01").await;
    rig.say(b"\xff\x00").await;
    rig.say(b"\x00more").await;
    let mut input = [0; 4];
    rig.stdin.read_exact(&mut input).await.unwrap();
    assert_eq!(&input, b"more");
    rig.client.close(None).await.unwrap();
    assert!(tokio::time::timeout(PATIENCE, rig.carried).await.unwrap().unwrap());
    assert_eq!(rig.stdin.read(&mut input).await.unwrap(), 0, "the session is dropped");
    assert!(rig.stdout.write_all(b"x").await.is_err());
}

#[tokio::test]
async fn a_client_that_vanishes_takes_the_session_with_it() {
    let mut rig = Rig::new(Protocol::V5).await;
    rig.expect(b"\x01").await;
    drop(rig.client);
    assert!(!tokio::time::timeout(PATIENCE, rig.carried).await.unwrap().unwrap(), "not a clean end");
    assert_eq!(rig.stdin.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test]
async fn pings_are_answered_while_nobody_takes_the_input() {
    let mut rig = Rig::new(Protocol::V5).await;
    rig.expect(b"\x01").await;
    // More than the pipe holds, less than the queue does.
    for _ in 0..4 {
        rig.say(&[&[0][..], &[b'x'; 4096][..]].concat()).await;
    }
    rig.client.send(Message::Ping(Bytes::from_static(b"there?"))).await.unwrap();
    assert_eq!(rig.hear().await, Message::Pong(Bytes::from_static(b"there?")));
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_is_bridged_by_pongs() {
    let mut rig = Rig::new(Protocol::V5).await;
    rig.expect(b"\x01").await;
    for _ in 0..14 {
        rig.say(&[&[0][..], &[b'x'; 4096][..]].concat()).await;
    }
    assert_eq!(rig.hear().await, Message::Pong(Bytes::new()));
    let mut taken = vec![0; 14 * 4096];
    rig.stdin.read_exact(&mut taken).await.unwrap();
    assert!(taken.iter().all(|byte| *byte == b'x'), "nothing is lost");
}

#[tokio::test(start_paused = true)]
async fn output_that_something_else_holds_open_does_not_hold_the_end() {
    let mut rig = Rig::new(Protocol::V5).await;
    rig.expect(b"\x01").await;
    rig.end.send(SessionEnd::Exited(0)).unwrap();
    rig.stdout.write_all(b"late").await.unwrap();
    let found = rig.client.next().await.unwrap().unwrap();
    assert_eq!(found, Message::Binary(Bytes::from_static(b"\x01late")));
    let Message::Binary(status) = rig.client.next().await.unwrap().unwrap() else { panic!("no status") };
    assert_eq!(status.as_ref(), b"\x03{\"metadata\":{},\"status\":\"Success\"}");
}

#[tokio::test]
async fn a_session_that_cannot_be_had_is_told_on_the_status_channel() {
    let (ours, theirs) = duplex(4096);
    let mut client = WebSocketStream::from_raw_socket(ours, Role::Client, None).await;
    let server = WebSocketStream::from_raw_socket(theirs, Role::Server, None).await;
    tokio::spawn(async move { refuse(server, Protocol::V5, "error attaching to container: no such file").await });
    let Message::Binary(status) = client.next().await.unwrap().unwrap() else { panic!("no status") };
    let status: Value = serde_json::from_slice(&status[1..]).unwrap();
    assert_eq!(status["reason"], "InternalError");
    assert_eq!(status["message"], "Internal error occurred: error attaching to container: no such file");
    assert!(matches!(client.next().await, Some(Ok(Message::Close(Some(_))))));
}
