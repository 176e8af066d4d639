//! Unary gRPC over HTTP/2 as far as the benchmark needs it: the few fields written by hand
//! (https://protobuf.dev/programming-guides/encoding, and "gRPC over HTTP2" for the frames).

use std::path::Path;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixStream;

/// A connection that is kept open.
pub type Connection = SendRequest<Full<Bytes>>;

/// A protobuf message under construction.
#[derive(Debug, Default, Clone)]
pub struct Message(Vec<u8>);

impl Message {
    pub fn bytes(mut self, field: u8, content: &[u8]) -> Self {
        self.0.push(field << 3 | 2);
        self.varint(content.len());
        self.0.extend_from_slice(content);
        self
    }

    pub fn text(self, field: u8, text: &str) -> Self {
        self.bytes(field, text.as_bytes())
    }

    pub fn message(self, field: u8, message: &Self) -> Self {
        self.bytes(field, &message.0)
    }

    fn varint(&mut self, mut value: usize) {
        while value > 0x7f {
            self.0.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
            value >>= 7;
        }
        self.0.push(u8::try_from(value).unwrap());
    }
}

/// Connects to a socket; to be called where tasks can be spawned.
pub async fn connect(socket: &Path) -> Connection {
    let stream = UnixStream::connect(socket).await.unwrap();
    let (connection, driver) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(driver);
    connection
}

/// Calls a method, such as `/etcdserverpb.KV/Put`, which must answer well.
pub async fn call(connection: &Connection, method: &str, request: &Message) -> Bytes {
    let mut frame = vec![0];
    frame.extend(u32::try_from(request.0.len()).unwrap().to_be_bytes());
    frame.extend_from_slice(&request.0);
    let request = Request::post(format!("http://localhost{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(Bytes::from(frame)))
        .unwrap();
    let response = connection.clone().send_request(request).await.unwrap();
    let refused = response.headers().get("grpc-message").cloned();
    assert!(refused.is_none(), "{method}: {refused:?}");
    let response = response.into_body().collect().await.unwrap();
    let trailers = response.trailers().cloned().unwrap_or_default();
    let status = trailers.get("grpc-status").and_then(|status| status.to_str().ok()).unwrap_or("none");
    assert_eq!(status, "0", "{method}: {:?}", trailers.get("grpc-message"));
    response.to_bytes().slice(5..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_beyond_a_byte_take_two() {
        let long = "x".repeat(300);
        let message = Message::default().text(1, &long);
        assert_eq!(&message.0[..3], [0x0a, 0xac, 0x02]);
        assert_eq!(message.0.len(), 303);
    }
}
