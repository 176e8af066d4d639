//! A session over a WebSocket, or over SPDY streams: input, output, the terminal's size, and how it ended.

use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{Sink, SinkExt as _, Stream, StreamExt as _};
use runtime::{Session, SessionEnd, TerminalSize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::frame::{self, Incoming};
use crate::websocket::Protocol;

/// How much output one message carries at most.
const CHUNK: usize = 32 * 1024;

/// Messages that may wait for the program to read its input, and for the client to read its output.
const QUEUE: usize = 8;

/// kubectl gives a connection up after 61 s without a pong; while its pings lie unread behind input that the program
/// does not take, pongs that nobody asked for (RFC 6455 §5.5.3) keep it.
const PONG_PERIOD: Duration = Duration::from_secs(5);

/// How long output may stay silent after the program has ended, when something else still holds it open.
const DRAIN: Duration = Duration::from_secs(1);

/// How long the client may take to answer our close frame.
const CLOSE: Duration = Duration::from_secs(2);

/// A connection that carries the messages of `frame`: a WebSocket, or what looks like one.
pub trait Messages: Stream<Item = Result<Message, Error>> + Sink<Message, Error = Error> + Unpin {}

impl<M: Stream<Item = Result<Message, Error>> + Sink<Message, Error = Error> + Unpin> Messages for M {}

/// Something to read or write that a session owns.
type Output = Pin<Box<dyn AsyncRead + Send>>;
type Input = Pin<Box<dyn AsyncWrite + Send>>;
type Resize = Box<dyn Fn(TerminalSize) -> io::Result<()> + Send + Sync>;

/// Says on the socket why there is no session, and closes it.
pub async fn refuse(mut socket: impl Messages, protocol: Protocol, why: &str) -> Result<(), Error> {
    socket.send(Message::Binary(frame::failure(protocol, why))).await?;
    socket.send(Message::Close(Some(farewell()))).await?;
    let (_sink, stream) = socket.split();
    drain(stream).await;
    Ok(())
}

/// Carries the session to its end: that of the program, or that of the connection, which drops the session.
pub async fn carry(socket: impl Messages, protocol: Protocol, session: Session) -> Result<(), Error> {
    let Session { stdin, stdout, stderr, resize, end } = session;
    let (sink, mut stream) = socket.split();
    let (frames, queue) = mpsc::channel(QUEUE);
    // Some clients wait for a first message on the lowest channel that carries output.
    let lowest = if stdout.is_some() {
        frame::STDOUT
    } else if stderr.is_some() {
        frame::STDERR
    } else {
        frame::STATUS
    };
    let first = Message::Binary(frame::write(lowest, b""));
    let written = {
        let write = write_frames(sink, first, queue);
        let input = read_frames(&mut stream, protocol, frames.clone(), stdin, resize);
        let produce = async {
            produce(protocol, frames, stdout, stderr, end).await;
            std::future::pending().await
        };
        tokio::select! {
            // What is produced is written at the same look: in any other order it would wait for the next one, which tokio leaves to
            // another thread.
            biased;
            never = produce => never,
            written = write => written,
            gone = input => return gone,
        }
    };
    written?;
    drain(stream).await;
    Ok(())
}

/// Sends what the queue holds, and the close frame after the Status.
async fn write_frames<M: Messages>(
    mut sink: SplitSink<M, Message>,
    first: Message,
    mut queue: mpsc::Receiver<Message>,
) -> Result<(), Error> {
    sink.send(first).await?;
    while let Some(message) = queue.recv().await {
        let last = message.is_close();
        sink.send(message).await?;
        if last {
            break;
        }
    }
    Ok(())
}

/// Both outputs to their end, then the Status, then the close frame.
async fn produce(
    protocol: Protocol,
    frames: mpsc::Sender<Message>,
    stdout: Option<Output>,
    stderr: Option<Output>,
    end: Pin<Box<dyn Future<Output = SessionEnd> + Send>>,
) {
    let (ended, is_ended) = watch::channel(false);
    let end = async {
        let end = end.await;
        ended.send_replace(true);
        end
    };
    let out = pump(&frames, frame::STDOUT, stdout, is_ended.clone());
    let err = pump(&frames, frame::STDERR, stderr, is_ended);
    let ((), (), end) = tokio::join!(out, err, end);
    let status = frame::end(protocol, &end).map(Message::Binary);
    for message in status.into_iter().chain([Message::Close(Some(farewell()))]) {
        if frames.send(message).await.is_err() {
            return;
        }
    }
}

/// Copies one output until it ends, or until it is silent after the program's end.
async fn pump(frames: &mpsc::Sender<Message>, channel: u8, output: Option<Output>, mut ended: watch::Receiver<bool>) {
    let Some(mut output) = output else { return };
    let mut chunk = BytesMut::with_capacity(CHUNK);
    loop {
        chunk.clear();
        chunk.reserve(CHUNK);
        let read = tokio::select! {
            biased;
            read = output.read_buf(&mut chunk) => read,
            () = silence(&mut ended) => return,
        };
        // EIO is how a terminal says that its last user is gone.
        if !matches!(read, Ok(count) if count > 0) {
            return;
        }
        if frames.send(Message::Binary(frame::write(channel, &chunk))).await.is_err() {
            return;
        }
    }
}

async fn silence(ended: &mut watch::Receiver<bool>) {
    if ended.wait_for(|ended| *ended).await.is_ok() {
        tokio::time::sleep(DRAIN).await;
    }
}

/// Takes what the client says until it goes away.
async fn read_frames<M: Messages>(
    stream: &mut SplitStream<M>,
    protocol: Protocol,
    frames: mpsc::Sender<Message>,
    stdin: Option<Input>,
    resize: Option<Resize>,
) -> Result<(), Error> {
    let (input, queue) = mpsc::channel::<Bytes>(QUEUE);
    let mut input = stdin.is_some().then_some(input);
    let read = async {
        while let Some(message) = stream.next().await {
            let data = match message? {
                Message::Binary(data) => data,
                // The Python client sends input as text.
                Message::Text(text) => text.into(),
                Message::Close(_) => return Ok(()),
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
            };
            match frame::read(protocol, &data) {
                Incoming::Stdin(data) => {
                    if let Some(sender) = &input
                        && !deliver(sender, data, &frames).await
                    {
                        input = None;
                    }
                }
                Incoming::EndOfStdin => input = None,
                Incoming::Resize(size) => {
                    // A terminal that is gone needs no size.
                    let _gone = resize.as_ref().map(|resize| resize(size).is_err());
                }
                Incoming::Nothing => {}
            }
        }
        Ok(())
    };
    let feed = async {
        feed(queue, stdin).await;
        std::future::pending().await
    };
    tokio::select! {
        outcome = read => outcome,
        never = feed => never,
    }
}

/// Queues input; `false` if nobody takes any. Keeps the client's patience while the queue is full.
async fn deliver(input: &mpsc::Sender<Bytes>, data: Bytes, frames: &mpsc::Sender<Message>) -> bool {
    let mut pongs = interval(PONG_PERIOD);
    pongs.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pongs.reset();
    loop {
        tokio::select! {
            permit = input.reserve() => {
                let Ok(permit) = permit else { return false };
                permit.send(data);
                return true;
            }
            _ = pongs.tick() => {
                // A full queue means that the client is being written to, or has stopped reading.
                let _full = frames.try_send(Message::Pong(Bytes::new())).is_err();
            }
        }
    }
}

/// Writes input to the program and ends it when the queue ends. What the program does not take is dropped.
async fn feed(mut queue: mpsc::Receiver<Bytes>, stdin: Option<Input>) {
    let Some(mut stdin) = stdin else { return };
    while let Some(data) = queue.recv().await {
        if stdin.write_all(&data).await.is_err() || stdin.flush().await.is_err() {
            return;
        }
    }
    // Closing is all that is wanted; a pipe without a reader is closed already.
    let _closed = stdin.shutdown().await.is_err();
}

/// Reads until the client has closed too: a socket closed with unread data is reset, and the end could be lost.
pub async fn drain<M: Messages>(mut stream: SplitStream<M>) {
    let _late = timeout(CLOSE, async { while let Some(Ok(_)) = stream.next().await {} }).await.is_err();
}

/// The close frame of an orderly end.
pub fn farewell() -> CloseFrame {
    CloseFrame { code: CloseCode::Normal, reason: "".into() }
}
