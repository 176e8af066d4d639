//! Messages of `channel.k8s.io`, `v4.channel.k8s.io` and `v5.channel.k8s.io`: a byte that names the channel, then data.

use bytes::Bytes;
use runtime::{SessionEnd, TerminalSize};
use serde::Deserialize;
use serde_json::json;

use crate::websocket::Protocol;

/// The client's input.
pub const STDIN: u8 = 0;
/// The program's output.
pub const STDOUT: u8 = 1;
/// The program's other output.
pub const STDERR: u8 = 2;
/// The Status at the end.
pub const STATUS: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// What a client says.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming {
    /// Input for the program.
    Stdin(Bytes),
    /// There will be no more input.
    EndOfStdin,
    /// Its terminal has this size now.
    Resize(TerminalSize),
    /// Nothing that matters here.
    Nothing,
}

/// As Go's `remotecommand.TerminalSize` is written.
#[derive(Deserialize)]
struct WireSize {
    #[serde(rename = "Width")]
    width: u16,
    #[serde(rename = "Height")]
    height: u16,
}

/// Understands a message. An empty one on stdin is not its end.
pub fn read(protocol: Protocol, message: &Bytes) -> Incoming {
    let Some(channel) = message.first().copied() else { return Incoming::Nothing };
    let data = message.slice(1..);
    match channel {
        STDIN if data.is_empty() => Incoming::Nothing,
        STDIN => Incoming::Stdin(data),
        CLOSE if protocol == Protocol::V5 && data.as_ref() == [STDIN] => Incoming::EndOfStdin,
        RESIZE => match serde_json::from_slice(&data) {
            // kubectl sends 0x0 when it does not know.
            Ok(WireSize { width, height }) if width > 0 && height > 0 => {
                Incoming::Resize(TerminalSize { width, height })
            }
            _ => Incoming::Nothing,
        },
        _ => Incoming::Nothing,
    }
}

/// How v5 says that there will be no more input.
pub fn end_of_stdin() -> Bytes {
    Bytes::from_static(&[CLOSE, STDIN])
}

/// A change of the terminal's size, as JSON.
pub fn resize(size: &[u8]) -> Bytes {
    write(RESIZE, size)
}

/// A message on a channel.
pub fn write(channel: u8, data: &[u8]) -> Bytes {
    let mut message = Vec::with_capacity(data.len() + 1);
    message.push(channel);
    message.extend_from_slice(data);
    message.into()
}

/// What ends a session: a Status, or before v4 the words of a failure.
pub fn end(protocol: Protocol, end: &SessionEnd) -> Option<Bytes> {
    let status = match end {
        SessionEnd::Exited(0) => json!({"metadata": {}, "status": "Success"}),
        SessionEnd::Exited(code) => json!({
            "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
            "message": format!("command terminated with non-zero exit code: exit status {code}"),
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        SessionEnd::Lost => {
            return Some(failure(protocol, "the container's sandbox ended, so nobody knows how the command did"));
        }
    };
    match (protocol, end) {
        (Protocol::V1, SessionEnd::Exited(0)) => None,
        (Protocol::V1, _) => Some(write(STATUS, status.get("message")?.as_str()?.as_bytes())),
        (Protocol::V4 | Protocol::V5, _) => Some(write(STATUS, status.to_string().as_bytes())),
    }
}

/// The Status of a session that could not be had.
pub fn failure(protocol: Protocol, why: &str) -> Bytes {
    let message = format!("Internal error occurred: {why}");
    if protocol == Protocol::V1 {
        return write(STATUS, message.as_bytes());
    }
    let status = json!({
        "metadata": {}, "status": "Failure", "reason": "InternalError", "message": message, "code": 500,
        "details": {"causes": [{"message": why}]},
    });
    write(STATUS, status.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_understood() {
        let size = TerminalSize { width: 80, height: 24 };
        let table: [(Protocol, &[u8], Incoming); 10] = [
            (Protocol::V5, b"\x00abc", Incoming::Stdin(Bytes::from_static(b"abc"))),
            (Protocol::V5, b"\x00", Incoming::Nothing),
            (Protocol::V5, b"", Incoming::Nothing),
            (Protocol::V5, b"\xff\x00", Incoming::EndOfStdin),
            (Protocol::V5, b"\xff\x01", Incoming::Nothing),
            (Protocol::V4, b"\xff\x00", Incoming::Nothing),
            (Protocol::V4, b"\x04{\"Width\":80,\"Height\":24}\n", Incoming::Resize(size)),
            (Protocol::V5, b"\x04{\"Width\":0,\"Height\":0}", Incoming::Nothing),
            (Protocol::V5, b"\x04nonsense", Incoming::Nothing),
            (Protocol::V5, b"\x01output", Incoming::Nothing),
        ];
        for (protocol, message, want) in table {
            assert_eq!(read(protocol, &Bytes::from_static(message)), want, "{message:?}");
        }
    }

    #[test]
    fn the_exit_code_is_told_as_kubectl_reads_it() {
        let status = |end_of: SessionEnd| -> serde_json::Value {
            let message = end(Protocol::V5, &end_of).unwrap();
            assert_eq!(message[0], STATUS);
            serde_json::from_slice(&message[1..]).unwrap()
        };
        assert_eq!(status(SessionEnd::Exited(0)), json!({"metadata": {}, "status": "Success"}));
        let failed = status(SessionEnd::Exited(3));
        assert_eq!(failed["reason"], "NonZeroExitCode");
        assert_eq!(failed["details"]["causes"][0], json!({"reason": "ExitCode", "message": "3"}));
        assert_eq!(status(SessionEnd::Lost)["reason"], "InternalError");
    }

    #[test]
    fn before_v4_a_failure_is_text() {
        assert_eq!(end(Protocol::V1, &SessionEnd::Exited(0)), None);
        let failed = b"\x03command terminated with non-zero exit code: exit status 3";
        assert_eq!(end(Protocol::V1, &SessionEnd::Exited(3)), Some(Bytes::from_static(failed)));
        assert_eq!(failure(Protocol::V1, "gone"), "\x03Internal error occurred: gone");
    }
}
