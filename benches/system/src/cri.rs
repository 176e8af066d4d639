//! A client of CRI v1 as far as the benchmark needs it.

use std::path::Path;

use bytes::Bytes;

use crate::grpc::{Connection, Message, call, connect};

/// A connection, kept open as a kubelet's is.
#[derive(Debug)]
pub struct Cri {
    event_loop: tokio::runtime::Runtime,
    connection: Connection,
}

impl Cri {
    pub fn new(socket: &Path) -> Self {
        let event_loop = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let connection = event_loop.block_on(connect(socket));
        Self { event_loop, connection }
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
        let config = config.text(11, "main.log");
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
        let method = format!("/runtime.v1.RuntimeService/{method}");
        self.event_loop.block_on(call(&self.connection, &method, request))
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
    fn the_first_text_is_what_stands_behind_its_length() {
        assert_eq!(first_text(&[0x0a, 2, b'i', b'd', 0x12, 1, b'x']), "id");
    }
}
