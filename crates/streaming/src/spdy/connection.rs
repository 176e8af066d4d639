//! A connection: its streams come in as they are opened, their data in bounded queues; one task writes.

use std::collections::HashMap;
use std::io;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

use crate::spdy::frame::{self, Frame};
use crate::spdy::headers::{HeaderReader, HeaderWriter};

/// Frames that may wait in one stream, and to be written.
const QUEUE: usize = 8;

/// Streams that may be open at once: a browser behind a port-forward opens some dozens.
const STREAMS: usize = 1024;

/// §2.6.3: a stream that is not accepted.
const REFUSED_STREAM: u32 = 3;

/// A stream that a client has opened.
pub struct Accepted {
    /// What it is for.
    pub headers: HashMap<String, String>,
    /// What the client sends on it; ends with its half of the stream.
    pub incoming: mpsc::Receiver<Bytes>,
    /// What is sent to the client.
    pub writer: StreamWriter,
}

/// Our half of a stream.
#[derive(Clone)]
pub struct StreamWriter {
    id: u32,
    frames: mpsc::Sender<Outgoing>,
}

/// A frame to be written.
enum Outgoing {
    Accept(u32),
    Refuse(u32),
    /// Data, and whether it is the last.
    Data(u32, Bytes, bool),
    Pong(u32),
}

impl StreamWriter {
    /// Sends data; an error means that the connection is gone.
    pub async fn send(&self, data: Bytes) -> io::Result<()> {
        self.queue(Outgoing::Data(self.id, data, false)).await
    }

    /// Ends our half.
    pub async fn finish(&self) -> io::Result<()> {
        self.queue(Outgoing::Data(self.id, Bytes::new(), true)).await
    }

    async fn queue(&self, frame: Outgoing) -> io::Result<()> {
        self.frames.send(frame).await.map_err(|_gone| io::ErrorKind::BrokenPipe.into())
    }
}

/// A connection with a client.
pub struct Connection<R, W> {
    read: R,
    write: W,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Connection<R, W> {
    /// Over an upgraded connection.
    pub fn new(read: R, write: W) -> Self {
        Self { read, write }
    }

    /// Serves the connection until the client ends it. New streams go to `streams`.
    pub async fn run(self, streams: mpsc::Sender<Accepted>) -> io::Result<()> {
        let Self { mut read, write } = self;
        let (frames, queue) = mpsc::channel(QUEUE);
        tokio::select! {
            // Nobody reads what would still be written.
            read = read_frames(&mut read, &frames, streams) => read,
            written = write_frames(write, queue) => written,
        }
    }
}

async fn read_frames(
    read: &mut (impl AsyncRead + Unpin),
    frames: &mpsc::Sender<Outgoing>,
    streams: mpsc::Sender<Accepted>,
) -> io::Result<()> {
    let mut headers = HeaderReader::new();
    let mut open: HashMap<u32, mpsc::Sender<Bytes>> = HashMap::new();
    let gone = |_closed| io::Error::from(io::ErrorKind::BrokenPipe);
    while let Some(frame) = frame::read(read).await? {
        match frame {
            Frame::Open { id, block, fin } => {
                let headers = headers.read(&block)?;
                open.retain(|_, stream| !stream.is_closed());
                if open.len() >= STREAMS || open.contains_key(&id) {
                    frames.send(Outgoing::Refuse(id)).await.map_err(gone)?;
                    continue;
                }
                let (sender, incoming) = mpsc::channel(QUEUE);
                if !fin {
                    open.insert(id, sender);
                }
                frames.send(Outgoing::Accept(id)).await.map_err(gone)?;
                let writer = StreamWriter { id, frames: frames.clone() };
                if streams.send(Accepted { headers, incoming, writer }).await.is_err() {
                    frames.send(Outgoing::Refuse(id)).await.map_err(gone)?;
                }
            }
            Frame::Data { id, data, fin } => {
                // What nobody takes any more is dropped.
                if let Some(stream) = open.get(&id)
                    && !data.is_empty()
                    && stream.send(data).await.is_err()
                {
                    open.remove(&id);
                }
                if fin {
                    open.remove(&id);
                }
            }
            Frame::Reset { id } => drop(open.remove(&id)),
            Frame::Ping { id } => frames.send(Outgoing::Pong(id)).await.map_err(gone)?,
            Frame::Other => {}
        }
    }
    Ok(())
}

async fn write_frames(mut write: impl AsyncWrite + Unpin, mut queue: mpsc::Receiver<Outgoing>) -> io::Result<()> {
    let mut headers = HeaderWriter::new()?;
    while let Some(frame) = queue.recv().await {
        match frame {
            Outgoing::Accept(id) => write.write_all(&frame::reply(id, &headers.empty()?)?).await?,
            Outgoing::Refuse(id) => write.write_all(&frame::reset(id, REFUSED_STREAM)?).await?,
            Outgoing::Data(id, data, fin) => {
                write.write_all(&frame::data_head(id, fin, data.len())?).await?;
                write.write_all(&data).await?;
            }
            Outgoing::Pong(id) => write.write_all(&frame::pong(id)?).await?,
        }
        write.flush().await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spdy::headers::client_block;
    use tokio::io::{AsyncReadExt as _, DuplexStream, split};

    struct Client {
        io: DuplexStream,
        headers: HeaderWriter,
    }

    fn connect() -> (Client, mpsc::Receiver<Accepted>) {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let (read, write) = split(theirs);
        let (streams, accepted) = mpsc::channel(8);
        tokio::spawn(Connection::new(read, write).run(streams));
        (Client { io: ours, headers: HeaderWriter::new().unwrap() }, accepted)
    }

    impl Client {
        async fn open(&mut self, id: u32, kind: &str) {
            let block = client_block(&mut self.headers, &[("streamtype", kind)]);
            self.io.write_all(&frame::open(id, &block)).await.unwrap();
            let mut head = [0; 8];
            self.io.read_exact(&mut head).await.unwrap();
            assert_eq!(&head[..4], [0x80, 3, 0, 2], "accepted at once");
            let mut body = vec![0; usize::from(head[7])];
            self.io.read_exact(&mut body).await.unwrap();
            assert_eq!(body[..4], id.to_be_bytes());
        }

        async fn send(&mut self, id: u32, data: &[u8], fin: bool) {
            self.io.write_all(&frame::data_head(id, fin, data.len()).unwrap()).await.unwrap();
            self.io.write_all(data).await.unwrap();
        }
    }

    #[tokio::test]
    async fn streams_carry_data_both_ways_and_close_by_halves() {
        let (mut client, mut accepted) = connect();
        client.open(1, "data").await;
        let mut stream = accepted.recv().await.unwrap();
        assert_eq!(stream.headers["streamtype"], "data");
        client.send(1, b"ping", false).await;
        client.send(1, b"", true).await;
        assert_eq!(stream.incoming.recv().await.unwrap(), "ping");
        assert_eq!(stream.incoming.recv().await, None, "the client's half is closed, ours is not");
        stream.writer.send(Bytes::from_static(b"pong")).await.unwrap();
        stream.writer.finish().await.unwrap();
        let mut answer = [0; 20];
        client.io.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer[..12], [&[0, 0, 0, 1, 0, 0, 0, 4][..], b"pong"].concat());
        assert_eq!(answer[12..], [0, 0, 0, 1, 1, 0, 0, 0]);
    }

    #[tokio::test]
    async fn pings_come_back_and_strange_data_is_dropped() {
        let (mut client, _accepted) = connect();
        client.send(99, b"nobody", false).await;
        client.io.write_all(&frame::pong(41).unwrap()).await.unwrap();
        let mut answer = [0; 12];
        client.io.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer.as_slice(), frame::pong(41).unwrap());
    }

    #[tokio::test]
    async fn a_stream_that_is_not_read_holds_the_client_up() {
        let (mut client, mut accepted) = connect();
        client.open(1, "data").await;
        let mut stream = accepted.recv().await.unwrap();
        let flood = async {
            for _ in 0..200 {
                client.send(1, &vec![7; 32 * 1024], false).await;
            }
        };
        let mut flood = std::pin::pin!(flood);
        let short = std::time::Duration::from_millis(200);
        assert!(tokio::time::timeout(short, flood.as_mut()).await.is_err(), "6 MiB do not fit into the queues");
        let read = async {
            let mut count = 0;
            while count < 200 * 32 * 1024 {
                count += stream.incoming.recv().await.unwrap().len();
            }
        };
        tokio::join!(flood, read);
    }
}
