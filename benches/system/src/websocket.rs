//! A client of exec and port-forward over a WebSocket (RFC 6455), with a connection of its own for each, as kubectl has it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// What a client sends at once, as kubectl does.
pub const CHUNK: usize = 32 * 1024;

const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;
/// In place of a short length: it follows in two bytes, or in eight.
const IN_TWO: u8 = 126;
const IN_EIGHT: u8 = 127;

/// An open WebSocket whose messages begin with the number of a channel.
pub struct WebSocket {
    stream: BufReader<UnixStream>,
    payload: Vec<u8>,
    frame: Vec<u8>,
}

impl WebSocket {
    /// Connects to the daemon's socket and has the request for `path` upgraded to one of Kubernetes' protocols.
    pub fn open(socket: &Path, path: &str, protocol: &str) -> Self {
        let mut stream = UnixStream::connect(socket).unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: {protocol}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut stream = BufReader::with_capacity(2 * CHUNK, stream);
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        assert!(line.starts_with("HTTP/1.1 101 "), "{path}: {line}");
        while line.trim_end() != "" {
            line.clear();
            stream.read_line(&mut line).unwrap();
        }
        Self { stream, payload: Vec::new(), frame: Vec::new() }
    }

    /// The next message: its channel and its data. `None` when the daemon closes.
    pub fn message(&mut self) -> Option<(u8, &[u8])> {
        loop {
            let mut head = [0; 2];
            self.stream.read_exact(&mut head).ok()?;
            // What a server sends is not masked.
            let length = match head[1] {
                IN_TWO => self.number::<2>()?,
                IN_EIGHT => self.number::<8>()?,
                short => u64::from(short),
            };
            self.payload.resize(usize::try_from(length).unwrap(), 0);
            self.stream.read_exact(&mut self.payload).ok()?;
            match head[0] & 0x0f {
                BINARY => break,
                CLOSE => return None,
                _ping_or_pong => {}
            }
        }
        let (channel, data) = self.payload.split_first()?;
        Some((*channel, data))
    }

    /// Sends data on a channel. The mask that clients must have is zero, so that masking takes the processor from nobody.
    pub fn send(&mut self, channel: u8, data: &[u8]) {
        let length = data.len() + 1;
        self.frame.clear();
        self.frame.push(FINAL | BINARY);
        match (u8::try_from(length), u16::try_from(length)) {
            (Ok(short @ ..IN_TWO), _) => self.frame.push(MASKED | short),
            (_, Ok(length)) => {
                self.frame.push(MASKED | IN_TWO);
                self.frame.extend(length.to_be_bytes());
            }
            _ => {
                self.frame.push(MASKED | IN_EIGHT);
                self.frame.extend((length as u64).to_be_bytes());
            }
        }
        self.frame.extend([0; 4]);
        self.frame.push(channel);
        self.frame.extend_from_slice(data);
        self.stream.get_mut().write_all(&self.frame).unwrap();
    }

    fn number<const BYTES: usize>(&mut self) -> Option<u64> {
        let mut bytes = [0; BYTES];
        self.stream.read_exact(&mut bytes).ok()?;
        Some(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_go_out_masked_and_come_in_plain() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut socket = WebSocket { stream: BufReader::new(ours), payload: Vec::new(), frame: Vec::new() };
        socket.send(0, &[7; 300]);
        let mut sent = [0; 309];
        theirs.read_exact(&mut sent).unwrap();
        assert_eq!(sent[..10], [0x82, 0xfe, 1, 45, 0, 0, 0, 0, 0, 7]);
        theirs.write_all(&[0x8a, 0, 0x82, 126, 0, 3, 1, b'h', b'i', 0x88, 0]).unwrap();
        assert_eq!(socket.message(), Some((1, &b"hi"[..])));
        assert_eq!(socket.message(), None);
    }
}
