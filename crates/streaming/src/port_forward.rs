//! portforward: TCP connections to ports of a Pod's `localhost`, over SPDY streams or the channels of a WebSocket.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{SinkExt as _, StreamExt as _, future};
use http::Response;
use hyper::Request;
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};
use tokio_util::sync::CancellationToken;

use crate::channels;
use crate::refusal::Refusal;
use crate::spdy::{Accepted, Connection};
use crate::spdy_upgrade::{self, Upgrade};
use crate::websocket::{self, Handshake, Socket};

/// What is spoken over a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    /// A SPDY connection in binary messages, whose boundaries mean nothing (KEP-4006).
    Tunnel,
    /// Two channels for each port.
    Channels,
}

const SPOKEN: &[(&str, Protocol)] =
    &[("SPDY/3.1+portforward.k8s.io", Protocol::Tunnel), ("v4.channel.k8s.io", Protocol::Channels)];

/// How long one half of a pair of streams waits for the other.
const PATIENCE: Duration = Duration::from_secs(30);

/// How much is read from the Pod at once.
pub const CHUNK: usize = 32 * 1024;

/// Whose ports are meant.
pub trait Target: Clone + Send + Sync + 'static {
    /// The Pod, as messages name it.
    fn pod(&self) -> String;

    /// Connects to a port of it, or says in one line why not.
    fn connect(&self, port: u16) -> impl Future<Output = Result<TcpStream, String>> + Send;
}

/// Answers 101 and forwards: with channels to these `ports`, with SPDY to those that the client names later.
pub fn port_forward(
    request: &mut Request<Incoming>,
    ports: Vec<u16>,
    target: impl Target,
    shutdown: CancellationToken,
) -> Result<Response<()>, Refusal> {
    let pod = target.pod();
    let report = move |outcome: io::Result<()>| {
        if let Err(error) = outcome {
            tracing::debug!(%pod, error = error.to_string(), "a port-forward lost its client");
        }
    };
    if spdy_upgrade::is_wanted(request.headers()) {
        let (reply, open) = match spdy_upgrade::accept(request, "portforward.k8s.io")? {
            Upgrade::Accepted(reply, open) => (reply, open),
            Upgrade::Refused(reply) => return Ok(reply),
        };
        let serve = async move {
            if let Ok(connection) = open.await {
                report(forward(connection, target).await);
            }
        };
        tokio::spawn(async move { shutdown.run_until_cancelled(serve).await });
        return Ok(reply);
    }
    if ports.len() > channels::PORTS {
        let message = format!("more than {} ports cannot be forwarded at once", channels::PORTS);
        return Err(Refusal::bad_request(message));
    }
    let Handshake { protocol, reply, open } = websocket::accept(request, SPOKEN)?;
    if protocol == Protocol::Channels && ports.is_empty() {
        return Err(Refusal::bad_request("query parameter \"ports\" is required"));
    }
    let serve = async move {
        let Ok(socket) = open.await else { return };
        report(match protocol {
            Protocol::Tunnel => tunnel(socket, target).await,
            Protocol::Channels => channels::forward(socket, &ports, &target).await,
        });
    };
    tokio::spawn(async move { shutdown.run_until_cancelled(serve).await });
    Ok(reply)
}

/// A SPDY connection in the messages of a WebSocket.
async fn tunnel(socket: Socket, target: impl Target) -> io::Result<()> {
    let (sink, stream) = socket.split();
    let data = stream.filter_map(|message| {
        future::ready(match message {
            Ok(Message::Binary(data)) => Some(Ok(data)),
            Ok(_) => None,
            Err(error) => Some(Err(io::Error::other(error))),
        })
    });
    let messages = sink
        .with(|data: Bytes| future::ok(Message::Binary(data)))
        .sink_map_err(io::Error::other::<tokio_tungstenite::tungstenite::Error>);
    forward(Connection::new(StreamReader::new(data), SinkWriter::new(CopyToBytes::new(messages))), target).await
}

/// Serves a connection: each pair of an error and a data stream is one TCP connection.
async fn forward<R, W>(connection: Connection<R, W>, target: impl Target) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (streams, accepted) = mpsc::channel(8);
    tokio::select! {
        ended = connection.run(streams) => ended,
        () = pair_up(accepted, target) => Ok(()),
    }
}

/// Brings error and data streams of the same request together.
async fn pair_up(mut accepted: mpsc::Receiver<Accepted>, target: impl Target) {
    let mut halves: HashMap<String, (Accepted, Instant)> = HashMap::new();
    // They end with the connection.
    let mut carried = JoinSet::new();
    while let Some(stream) = accepted.recv().await {
        while carried.try_join_next().is_some() {}
        halves.retain(|_, (_, since)| since.elapsed() < PATIENCE);
        let header = |stream: &Accepted, name: &str| stream.headers.get(name).cloned().unwrap_or_default();
        let request = format!("{} {}", header(&stream, "port"), header(&stream, "requestid"));
        let Some((other, _)) = halves.remove(&request) else {
            halves.insert(request, (stream, Instant::now()));
            continue;
        };
        let (error, data) = if header(&stream, "streamtype") == "data" { (other, stream) } else { (stream, other) };
        let port = header(&data, "port");
        let target = target.clone();
        carried.spawn(async move {
            // Nobody is left to be told.
            let _gone = carry(&target, &port, error, data).await.is_err();
        });
    }
}

/// One TCP connection. Any byte on the error stream ends the whole forward of kubectl, so it tells nothing else.
async fn carry(target: &impl Target, port: &str, error: Accepted, mut data: Accepted) -> io::Result<()> {
    let connected = match port.parse() {
        Ok(port) if port > 0 => target.connect(port).await,
        _ => Err(format!("{port:?} is not a port")),
    };
    let stream = match connected {
        Ok(stream) => stream,
        Err(why) => {
            error.writer.send(format!("error forwarding port {port} to pod {}: {why}", target.pod()).into()).await?;
            error.writer.finish().await?;
            return data.writer.finish().await;
        }
    };
    let (mut read, mut write) = stream.into_split();
    let up = async {
        while let Some(bytes) = data.incoming.recv().await {
            write.write_all(&bytes).await?;
        }
        write.shutdown().await
    };
    let writer = &data.writer;
    let down = async {
        let mut chunk = BytesMut::new();
        loop {
            chunk.reserve(CHUNK);
            match read.read_buf(&mut chunk).await {
                // A reset by the program ends the stream like its close.
                Ok(0) | Err(_) => return Ok(()),
                Ok(_) => writer.send(chunk.split().freeze()).await?,
            }
        }
    };
    // When the program has closed, the rest of what the client sends has no taker.
    let ended: io::Result<()> = tokio::select! {
        ended = down => ended,
        never = async { let _refused = up.await.is_err(); future::pending().await } => never,
    };
    ended?;
    data.writer.finish().await?;
    error.writer.finish().await
}
