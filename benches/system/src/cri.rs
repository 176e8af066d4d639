//! A client of CRI v1 as far as the benchmark needs it: unary gRPC over HTTP/2, the few fields written by hand
//! (https://protobuf.dev/programming-guides/encoding, and "gRPC over HTTP2" for the frames).

use std::path::PathBuf;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixStream;

/// A connection, kept open as a kubelet's is.
#[derive(Debug)]
pub struct Cri {
    event_loop: tokio::runtime::Runtime,
    sender: SendRequest<Full<Bytes>>,
}

/// A protobuf message under construction.
#[derive(Debug, Default, Clone)]
struct Message(Vec<u8>);

impl Message {
    fn bytes(mut self, field: u8, content: &[u8]) -> Self {
        self.0.push(field << 3 | 2);
        self.varint(content.len());
        self.0.extend_from_slice(content);
        self
    }

    fn text(self, field: u8, text: &str) -> Self {
        self.bytes(field, text.as_bytes())
    }

    fn message(self, field: u8, message: &Self) -> Self {
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

impl Cri {
    pub fn new(socket: PathBuf) -> Self {
        let event_loop = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let sender = event_loop.block_on(async {
            let stream = UnixStream::connect(socket).await.unwrap();
            let (sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            sender
        });
        Self { event_loop, sender }
    }

    pub fn run_pod_sandbox(&self) -> String {
        first_text(&self.call("RunPodSandbox", &Message::default().message(1, &sandbox_config())))
    }

    pub fn create_container(&self, sandbox: &str, image: &str, command: &[&str]) -> String {
        let metadata = Message::default().text(1, "main");
        let image = Message::default().text(1, image);
        let mut config = Message::default().message(1, &metadata).message(2, &image);
        for word in command {
            config = config.text(3, word);
        }
        let config = config.text(10, "main.log");
        let request = Message::default().text(1, sandbox).message(2, &config).message(3, &sandbox_config());
        first_text(&self.call("CreateContainer", &request))
    }

    pub fn start_container(&self, container: &str) {
        self.call("StartContainer", &Message::default().text(1, container));
    }

    pub fn exec_sync(&self, container: &str, command: &[&str]) {
        let request = Message::default().text(1, container);
        let request = command.iter().fold(request, |request, word| request.text(2, word));
        self.call("ExecSync", &request);
    }

    /// As the kubelet does it: stop, then remove.
    pub fn remove_pod_sandbox(&self, sandbox: &str) {
        self.call("StopPodSandbox", &Message::default().text(1, sandbox));
        self.call("RemovePodSandbox", &Message::default().text(1, sandbox));
    }

    fn call(&self, method: &str, request: &Message) -> Bytes {
        let mut frame = vec![0];
        frame.extend(u32::try_from(request.0.len()).unwrap().to_be_bytes());
        frame.extend_from_slice(&request.0);
        let request = Request::post(format!("http://localhost/runtime.v1.RuntimeService/{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(Bytes::from(frame)))
            .unwrap();
        let mut sender = self.sender.clone();
        let response = self.event_loop.block_on(async move {
            let response = sender.send_request(request).await.unwrap();
            let refused = response.headers().get("grpc-message").cloned();
            assert!(refused.is_none(), "{method}: {refused:?}");
            response.into_body().collect().await.unwrap()
        });
        let trailers = response.trailers().cloned().unwrap_or_default();
        let status = trailers.get("grpc-status").and_then(|status| status.to_str().ok()).unwrap_or("none");
        assert_eq!(status, "0", "{method}: {:?}", trailers.get("grpc-message"));
        response.to_bytes().slice(5..)
    }
}

fn sandbox_config() -> Message {
    let metadata = Message::default().text(1, "idle").text(2, "bench").text(3, "default");
    Message::default().message(1, &metadata).text(2, "idle").text(3, "/run/bench-logs").message(8, &Message::default())
}

/// Field 1 of an answer, short text.
fn first_text(message: &[u8]) -> String {
    assert_eq!(message.first(), Some(&(1 << 3 | 2)), "{message:?}");
    String::from_utf8(message[2..2 + usize::from(message[1])].to_vec()).unwrap()
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
        assert_eq!(first_text(&Message::default().text(1, "id").0), "id");
    }
}
