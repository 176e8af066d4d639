//! portforward by the channels of a WebSocket, as kube-rs and the Python client do it: channel 2i carries the data of
//! port i, channel 2i+1 its error; one TCP connection for each port. The protocol has no half-close; a message `[255, 2i]`,
//! which our own command line sends, ends the client's half of port i.

use std::io;

use bytes::{Bytes, BytesMut};
use futures::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

use crate::frame;
use crate::port_forward::{CHUNK, Target};
use crate::websocket::Socket;

/// Channels are numbered by a byte.
pub const PORTS: usize = 127;

/// The channel that no port has.
const CLOSE: u8 = 255;

/// Connects all ports, and ends when the client does, or when the Pod has closed every connection.
pub async fn forward(socket: Socket, ports: &[u16], target: &impl Target) -> io::Result<()> {
    let (mut sink, mut stream) = socket.split();
    let (frames, mut queue) = mpsc::channel::<Bytes>(8);
    let (mut readers, mut writers) = (JoinSet::new(), Vec::new());
    for (channel, port) in (0..=u8::MAX).step_by(2).zip(ports) {
        for channel in [channel, channel + 1] {
            sink.send(Message::Binary(frame::write(channel, &port.to_le_bytes()))).await.map_err(io::Error::other)?;
        }
        match target.connect(*port).await {
            Ok(connected) => {
                let (read, write) = connected.into_split();
                readers.spawn(copy(read, channel, frames.clone()));
                writers.push(Some(write));
            }
            Err(error) => {
                let why = format!("error forwarding port {port} to pod {}: {error}", target.pod());
                let told = sink.send(Message::Binary(frame::write(channel + 1, why.as_bytes()))).await;
                told.map_err(io::Error::other)?;
                writers.push(None);
            }
        }
    }
    drop(frames);
    let down = async {
        while let Some(message) = queue.recv().await {
            sink.send(Message::Binary(message)).await.map_err(io::Error::other)?;
        }
        sink.close().await.map_err(io::Error::other)
    };
    let up = async {
        while let Some(message) = stream.next().await {
            let data = match message.map_err(io::Error::other)? {
                Message::Binary(data) => data,
                Message::Text(text) => text.into(),
                Message::Close(_) => break,
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
            };
            let Some((channel, data)) = data.split_first() else { continue };
            if *channel == CLOSE {
                if let Some(writer) = data.first().and_then(|port| writers.get_mut(usize::from(port / 2))) {
                    // Dropped, it tells the program that nothing more comes.
                    writer.take();
                }
                continue;
            }
            // A port whose program has gone takes nothing more.
            if channel % 2 == 0
                && let Some(slot) = writers.get_mut(usize::from(channel / 2))
                && let Some(writer) = slot
                && writer.write_all(data).await.is_err()
            {
                *slot = None;
            }
        }
        Ok(())
    };
    tokio::select! {
        ended = down => ended,
        ended = up => ended,
    }
}

async fn copy(mut read: OwnedReadHalf, channel: u8, frames: mpsc::Sender<Bytes>) {
    let mut chunk = BytesMut::with_capacity(CHUNK);
    while let Ok(1..) = read.read_buf(&mut chunk).await {
        if frames.send(frame::write(channel, &chunk)).await.is_err() {
            return;
        }
        chunk.clear();
    }
}
