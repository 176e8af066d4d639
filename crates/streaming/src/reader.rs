//! A stream of bytes as the messages of a WebSocket, for clients that cannot read a chunked answer: logs.

use std::io;

use bytes::Bytes;
use futures::{SinkExt as _, Stream, StreamExt as _, future};
use http::Response;
use hyper::Request;
use hyper::body::Incoming;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::refusal::Refusal;
use crate::session::{Messages, drain, farewell};
use crate::websocket::{self, Handshake};

pub use crate::websocket::is_wanted as is_websocket_wanted;

/// What is spoken (apimachinery, `wsstream.NewDefaultReaderProtocols`, of which the base64 form is left out).
const SPOKEN: &[(&str, ())] = &[("binary.k8s.io", ()), ("", ())];

/// Answers 101 and sends all of `bytes`, until they end or the client goes.
pub fn send_all(
    request: &mut Request<Incoming>,
    bytes: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
) -> Result<Response<()>, Refusal> {
    let Handshake { protocol: (), reply, open } = websocket::accept(request, SPOKEN)?;
    tokio::spawn(async move {
        let Ok(socket) = open.await else { return };
        if let Err(error) = send(socket, bytes).await {
            tracing::debug!(error = error.to_string(), "a reader lost its client");
        }
    });
    Ok(reply)
}

/// The first message is empty: by it the client knows that it is connected.
async fn send(socket: impl Messages, bytes: impl Stream<Item = io::Result<Bytes>>) -> Result<(), Error> {
    let (mut sink, mut said) = socket.split();
    let write = async {
        sink.send(Message::Binary(Bytes::new())).await?;
        let mut bytes = std::pin::pin!(bytes);
        while let Some(chunk) = bytes.next().await {
            sink.send(Message::Binary(chunk?)).await?;
        }
        sink.send(Message::Close(Some(farewell()))).await
    };
    let gone = async { while let Some(Ok(_)) = said.next().await {} };
    match future::select(std::pin::pin!(write), std::pin::pin!(gone)).await {
        future::Either::Left((written, _)) => written?,
        future::Either::Right(((), _)) => return Ok(()),
    }
    drain(said).await;
    Ok(())
}
