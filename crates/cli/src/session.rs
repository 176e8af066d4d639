//! A session with a program in a container: the channels of `v5.channel.k8s.io` over a WebSocket, and our own streams.
//!
//! Each message is one channel byte and data: 0 stdin, 1 stdout, 2 stderr, 3 the final Status, 4 the terminal's size;
//! 255 closes the channel that follows (version 5 only).

use std::io::Read as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use kube::client::Connection;
use kube::core::Status;
use serde_json::Value;
use tokio::io::{AsyncWriteExt as _, Stderr, Stdout};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::errors::{ExitStatus, Failure, Refusal, output_error};
use crate::fields::Fields as _;
use crate::terminal::{self, RawMode};

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// What the session is connected to on this side.
#[derive(Debug, Clone, Copy)]
pub struct Ends {
    /// Our standard input goes to the program.
    pub stdin: bool,
    /// The program has a terminal, and ours is its screen and keyboard.
    pub tty: bool,
    /// The program runs already: make it draw its screen anew.
    pub redraw: bool,
}

/// The server ends silent connections after a minute; kubectl pings as often.
const PING: Duration = Duration::from_secs(5);
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// Where the program's output goes.
enum Outlet {
    Stdout(Stdout),
    /// To somebody who may stop reading before the end.
    Pipe(mpsc::Sender<Vec<u8>>),
}

impl Outlet {
    /// Whether there will be a reader for more.
    async fn write(&mut self, data: &[u8]) -> Result<bool> {
        match self {
            Self::Stdout(stdout) => {
                stdout.write_all(data).await.map_err(output_error)?;
                stdout.flush().await.map_err(output_error)?;
                Ok(true)
            }
            Self::Pipe(sender) => Ok(sender.send(data.to_vec()).await.is_ok()),
        }
    }
}

/// Runs a session whose streams lead to other parts of this program; what it says on standard error goes to ours.
pub async fn pipe(
    connection: Connection,
    input: Option<mpsc::Receiver<Vec<u8>>>,
    output: mpsc::Sender<Vec<u8>>,
) -> Result<()> {
    let half_close = connection.supports_stream_close();
    let (sink, stream) = connection.into_stream().split();
    let ends = Ends { stdin: input.is_some(), tty: false, redraw: false };
    tokio::select! {
        result = receive(stream, Outlet::Pipe(output)) => result,
        error = send(sink, ends, input, half_close) => Err(error),
    }
}

/// Runs the session to its end. A program's own failure is an [`ExitStatus`].
pub async fn run(connection: Connection, ends: Ends) -> Result<()> {
    let half_close = connection.supports_stream_close();
    let (sink, stream) = connection.into_stream().split();
    let raw = ends.tty.then(RawMode::enter).transpose().context("cannot put the terminal into raw mode")?;
    let mut ending = EndingSignals::listen(ends.tty)?;
    let result = tokio::select! {
        result = receive(stream, Outlet::Stdout(tokio::io::stdout())) => result,
        error = send(sink, ends, ends.stdin.then(read_stdin), half_close) => Err(error),
        status = ending.next() => Err(ExitStatus(status).into()),
    };
    drop(raw);
    result
}

/// Writes what the program prints, until its status comes and the server closes.
async fn receive(mut stream: SplitStream<Socket>, mut outlet: Outlet) -> Result<()> {
    let mut stderr = tokio::io::stderr();
    let mut status = None;
    let mut closed = false;
    while let Some(message) = stream.next().await {
        match message {
            Ok(Message::Binary(data)) if !receive_data(&data, &mut outlet, &mut stderr, &mut status).await? => {
                return Ok(());
            }
            Ok(Message::Text(text)) => {
                receive_data(text.as_bytes(), &mut outlet, &mut stderr, &mut status).await?;
            }
            Ok(Message::Close(_)) => closed = true,
            Ok(Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
            // After the status nothing is missing, however the socket ends.
            Err(_) if status.is_some() => break,
            Err(error) => return Err(Failure::new("the connection to the container broke off").because(error).into()),
        }
    }
    match status {
        Some(status) => outcome(&status),
        // A server that closes in order without a status reports success (kubectl reads it so).
        None if closed => Ok(()),
        None => Err(Failure::new("the connection to the container broke off")
            .hint("the program may still run; see `monopod describe pod`")
            .into()),
    }
}

/// Whether there will be a reader for more.
async fn receive_data(
    message: &[u8],
    outlet: &mut Outlet,
    stderr: &mut Stderr,
    status: &mut Option<Value>,
) -> Result<bool> {
    let Some((channel, data)) = message.split_first() else { return Ok(true) };
    if data.is_empty() {
        return Ok(true);
    }
    match *channel {
        STDOUT => return outlet.write(data).await,
        STDERR => {
            // Without anybody to read standard error, the session goes on.
            drop(stderr.write_all(data).await);
            drop(stderr.flush().await);
        }
        STATUS => *status = Some(serde_json::from_slice(data).context("the session's status is not JSON")?),
        _ => {}
    }
    Ok(true)
}

/// How the program ended, by the Status on channel 3.
pub fn outcome(status: &Value) -> Result<()> {
    if status.text("/status") == "Success" {
        return Ok(());
    }
    let code = status.items("/details/causes").iter().find(|cause| cause.text("/reason") == "ExitCode");
    if let Some(code) = code.and_then(|cause| cause.text("/message").parse::<u8>().ok()) {
        return Err(ExitStatus(code).into());
    }
    let status: Status = serde_json::from_value(status.clone()).context("the session's status is not a Status")?;
    Err(Refusal { status }.into())
}

/// Sends input, sizes and pings; returns only when that fails for good.
async fn send(
    mut sink: SplitSink<Socket, Message>,
    ends: Ends,
    input: Option<mpsc::Receiver<Vec<u8>>>,
    half_close: bool,
) -> anyhow::Error {
    match send_all(&mut sink, ends, input, half_close).await {
        // Once the server closes, sending fails; what it has said until then is still to be read by `receive`.
        Err(error) if error.downcast_ref::<tokio_tungstenite::tungstenite::Error>().is_some() => {
            std::future::pending().await
        }
        Err(error) => error,
        Ok(never) => match never {},
    }
}

async fn send_all(
    sink: &mut SplitSink<Socket, Message>,
    ends: Ends,
    mut input: Option<mpsc::Receiver<Vec<u8>>>,
    half_close: bool,
) -> Result<std::convert::Infallible> {
    let mut resized = ends
        .tty
        .then(|| signal(SignalKind::window_change()))
        .transpose()
        .context("cannot watch the terminal's size")?;
    let mut ping = tokio::time::interval_at(tokio::time::Instant::now() + PING, PING);
    if let Some((columns, rows)) = terminal::size().filter(|_| ends.tty) {
        if ends.redraw {
            sink.send(size_message(columns, rows.saturating_add(1))).await?;
        }
        sink.send(size_message(columns, rows)).await?;
    }
    loop {
        tokio::select! {
            chunk = next_chunk(&mut input) => if let Some(chunk) = chunk { sink.send(data_message(STDIN, &chunk)).await? } else {
                input = None;
                if half_close {
                    sink.send(Message::Binary(Bytes::from_static(&[CLOSE, STDIN]))).await?;
                }
            },
            () = changed(&mut resized) => {
                if let Some((columns, rows)) = terminal::size() {
                    sink.send(size_message(columns, rows)).await?;
                }
            }
            _ = ping.tick() => sink.send(Message::Ping(Bytes::new())).await?,
        }
    }
}

/// Input as it comes; waits for ever once it has ended.
async fn next_chunk(input: &mut Option<mpsc::Receiver<Vec<u8>>>) -> Option<Vec<u8>> {
    match input {
        Some(input) => input.recv().await,
        None => std::future::pending().await,
    }
}

async fn changed(resized: &mut Option<Signal>) {
    match resized {
        Some(resized) => drop(resized.recv().await),
        None => std::future::pending().await,
    }
}

/// Reads standard input on a thread of its own: a read can't be cancelled, so the process ends without it.
fn read_stdin() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(4);
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut buffer = vec![0; 32 * 1024];
        while let Ok(length) = stdin.read(&mut buffer) {
            let chunk = buffer.get(..length).unwrap_or_default().to_vec();
            if chunk.is_empty() || sender.blocking_send(chunk).is_err() {
                break;
            }
        }
    });
    receiver
}

fn data_message(channel: u8, data: &[u8]) -> Message {
    let mut message = Vec::with_capacity(data.len() + 1);
    message.push(channel);
    message.extend_from_slice(data);
    Message::Binary(message.into())
}

fn size_message(columns: u16, rows: u16) -> Message {
    data_message(RESIZE, format!("{{\"Width\":{columns},\"Height\":{rows}}}\n").as_bytes())
}

/// Signals that end this program. With a raw terminal they are caught, so that it is restored first.
struct EndingSignals(Option<[(Signal, u8); 4]>);

impl EndingSignals {
    fn listen(catch: bool) -> Result<Self> {
        if !catch {
            return Ok(Self(None));
        }
        let listen = |kind: SignalKind, number: u8| {
            signal(kind).map(|signal| (signal, 128 + number)).context("cannot listen for signals")
        };
        Ok(Self(Some([
            listen(SignalKind::hangup(), 1)?,
            listen(SignalKind::interrupt(), 2)?,
            listen(SignalKind::quit(), 3)?,
            listen(SignalKind::terminate(), 15)?,
        ])))
    }

    /// The exit status that shells give such an end.
    async fn next(&mut self) -> u8 {
        let Some([hangup, interrupt, quit, terminate]) = &mut self.0 else { return std::future::pending().await };
        tokio::select! {
            _ = hangup.0.recv() => hangup.1,
            _ = interrupt.0.recv() => interrupt.1,
            _ = quit.0.recv() => quit.1,
            _ = terminate.0.recv() => terminate.1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_status_tells_how_the_program_ended() {
        let exited = |code: &str| {
            json!({"status": "Failure", "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": code}]}})
        };
        let shown = |status: &Value| outcome(status).map_err(|error| error.to_string());
        assert_eq!(shown(&json!({"metadata": {}, "status": "Success"})), Ok(()));
        assert_eq!(shown(&exited("3")), Err("exit status 3".into()));
        assert_eq!(shown(&exited("255")), Err("exit status 255".into()));
        let failed =
            json!({"status": "Failure", "code": 500, "message": "error executing command in container: no such file"});
        assert_eq!(shown(&failed), Err("error executing command in container: no such file".into()));
        assert!(shown(&exited("many")).is_err());
    }
}
