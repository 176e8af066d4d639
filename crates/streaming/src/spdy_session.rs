//! exec and attach over SPDY: a stream for each of stdin, stdout, stderr, error and resize, made to look like the messages
//! of a WebSocket, so that one session serves both.

use std::collections::HashMap;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::{Sink, Stream, StreamExt as _, sink, stream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::task::AbortOnDropHandle;

use crate::frame::{self, STATUS, STDERR, STDIN, STDOUT};
use crate::spdy::{Accepted, StreamWriter};
use crate::spdy_upgrade::Opened;

/// How long the client may take to open the streams it has announced.
const PATIENCE: Duration = Duration::from_secs(30);

/// Streams of a session as messages.
pub struct SpdySocket {
    incoming: Pin<Box<dyn Stream<Item = Result<Message, Error>> + Send>>,
    outgoing: Pin<Box<dyn Sink<Message, Error = Error> + Send>>,
}

/// Waits for the streams with these types; `None` if the client does not open them.
pub async fn open(connection: Opened, wanted: &[&'static str]) -> Option<SpdySocket> {
    let (streams, mut accepted) = mpsc::channel(8);
    let serving = AbortOnDropHandle::new(tokio::spawn(connection.run(streams)));
    let mut found = HashMap::new();
    let opening = async {
        while wanted.iter().any(|kind| !found.contains_key(*kind)) {
            let stream = accepted.recv().await?;
            found.insert(stream.headers.get("streamtype").cloned().unwrap_or_default(), stream);
        }
        Some(())
    };
    timeout(PATIENCE, opening).await.ok()??;
    Some(SpdySocket::new(found, accepted, serving))
}

impl SpdySocket {
    fn new(
        mut streams: HashMap<String, Accepted>,
        later: mpsc::Receiver<Accepted>,
        serving: AbortOnDropHandle<std::io::Result<()>>,
    ) -> Self {
        let (mut inputs, mut writers) = (Vec::new(), Vec::new());
        for (kind, channel) in [("stdin", STDIN), ("stdout", STDOUT), ("stderr", STDERR), ("error", STATUS)] {
            if let Some(stream) = streams.remove(kind) {
                if channel == STDIN {
                    inputs.push(stdin(stream.incoming).boxed());
                }
                writers.push((channel, stream.writer));
            }
        }
        if let Some(stream) = streams.remove("resize") {
            inputs.push(resizes(stream.incoming).boxed());
        }
        // The messages end when the connection does, not when stdin does. More streams than were announced have no use.
        let end = stream::once(async move {
            drop(later);
            serving.await
        });
        let incoming = stream::select_all(inputs).chain(end.filter_map(|_ended| async { None })).boxed();
        let outgoing = Box::pin(sink::unfold(writers, send));
        Self { incoming, outgoing }
    }
}

/// Its data, then the message by which v5 closes it.
fn stdin(data: mpsc::Receiver<Bytes>) -> impl Stream<Item = Result<Message, Error>> + Send {
    let data = receive(data).map(|data| frame::write(STDIN, &data));
    data.chain(stream::once(async { frame::end_of_stdin() })).map(|message| Ok(Message::Binary(message)))
}

/// One JSON object a line.
fn resizes(data: mpsc::Receiver<Bytes>) -> impl Stream<Item = Result<Message, Error>> + Send {
    receive(data).flat_map(|data| {
        let lines = data.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(frame::resize);
        stream::iter(lines.map(|message| Ok(Message::Binary(message))).collect::<Vec<_>>())
    })
}

fn receive(data: mpsc::Receiver<Bytes>) -> impl Stream<Item = Bytes> + Send {
    stream::unfold(data, |mut data| async move { data.recv().await.map(|item| (item, data)) })
}

/// Writes a message to its stream. The status comes last: outputs end before it, since clients read them to their end.
async fn send(writers: Vec<(u8, StreamWriter)>, message: Message) -> Result<Vec<(u8, StreamWriter)>, Error> {
    // Pongs and the close frame have no counterpart.
    let Message::Binary(message) = message else { return Ok(writers) };
    let Some(channel) = message.first().copied() else { return Ok(writers) };
    let data = message.slice(1..);
    if channel == STATUS && !data.is_empty() {
        for (_, writer) in writers.iter().filter(|(other, _)| matches!(*other, STDOUT | STDERR)) {
            writer.finish().await?;
        }
    }
    if let Some((_, writer)) = writers.iter().find(|(other, _)| *other == channel)
        && !data.is_empty()
    {
        writer.send(data).await?;
        if channel == STATUS {
            writer.finish().await?;
        }
    }
    Ok(writers)
}

impl Stream for SpdySocket {
    type Item = Result<Message, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.incoming.as_mut().poll_next(context)
    }
}

impl Sink<Message> for SpdySocket {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.outgoing.as_mut().poll_ready(context)
    }

    fn start_send(mut self: Pin<&mut Self>, message: Message) -> Result<(), Error> {
        self.outgoing.as_mut().start_send(message)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.outgoing.as_mut().poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.outgoing.as_mut().poll_close(context)
    }
}
