//! The API as a client without any library sees it: HTTP/1.1 over the daemon's unix socket.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;

/// Where the API is.
#[derive(Debug, Clone)]
pub struct Api {
    socket: PathBuf,
}

/// An answer that was read to its end.
#[derive(Debug)]
pub struct Answer {
    /// HTTP's status code.
    pub code: u16,
    /// The body, when it is JSON; else a string.
    pub body: Value,
}

impl Api {
    /// The API on `socket`.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Sends a request and reads the whole answer.
    pub fn try_request(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Answer> {
        let (code, mut reader) = self.open(method, path, body, crate::limit(30))?;
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).with_context(|| format!("{method} {path}"))?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Ok(Answer { code, body })
    }

    /// The same, and no answer fails the test.
    #[track_caller]
    pub fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        self.try_request(method, path, body).unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// The object at `path`; anything but 200 fails the test.
    #[track_caller]
    pub fn get(&self, path: &str) -> Value {
        let answer = self.request("GET", path, None);
        assert_eq!(answer.code, 200, "GET {path}: {}", answer.body);
        answer.body
    }

    /// Merges `change` into the object at `path` (RFC 7386); anything but 200 fails the test.
    #[track_caller]
    pub fn patch(&self, path: &str, change: &Value) -> Value {
        let answer = self.request("PATCH", path, Some(change));
        assert_eq!(answer.code, 200, "PATCH {path}: {}", answer.body);
        answer.body
    }

    /// Applies operations to the object at `path` (RFC 6902); anything but 200 fails the test.
    #[track_caller]
    pub fn json_patch(&self, path: &str, operations: &Value) -> Value {
        let answer = self.request("PATCH", path, Some(operations));
        assert_eq!(answer.code, 200, "PATCH {path}: {}", answer.body);
        answer.body
    }

    /// The names in a list, such as that of `/api/v1/pods`, as `namespace/name`.
    #[track_caller]
    pub fn names(&self, path: &str) -> Vec<String> {
        let list = self.get(path);
        let items = list["items"].as_array().unwrap_or_else(|| panic!("GET {path}: no items: {list}"));
        items
            .iter()
            .map(|item| {
                let metadata = &item["metadata"];
                let namespace = metadata["namespace"].as_str().unwrap_or("");
                format!("{namespace}/{}", metadata["name"].as_str().unwrap_or(""))
            })
            .collect()
    }

    /// Watches `path` (which holds the query) until nothing comes for `patience`.
    pub fn watch(&self, path: &str, patience: Duration) -> anyhow::Result<Watch> {
        let (code, reader) = self.open("GET", path, None, patience)?;
        anyhow::ensure!(code == 200, "watch {path}: status {code}");
        Ok(Watch { lines: BufReader::new(reader) })
    }

    fn open(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        patience: Duration,
    ) -> anyhow::Result<(u16, Box<dyn Read>)> {
        let text = || format!("{method} {path} on {}", self.socket.display());
        let mut stream = UnixStream::connect(&self.socket).with_context(text)?;
        stream.set_read_timeout(Some(patience.max(Duration::from_millis(1))))?;
        let kind = match (method, body) {
            ("PATCH", Some(Value::Array(_))) => "json-patch+json",
            ("PATCH", _) => "merge-patch+json",
            _ => "json",
        };
        let body = body.map(Value::to_string).unwrap_or_default();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: monopod\r\nAccept: application/json\r\nConnection: close\r\n\
             Content-Type: application/{kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).with_context(text)?;
        stream.write_all(body.as_bytes()).with_context(text)?;
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).with_context(text)?;
        let code = line.split(' ').nth(1).and_then(|word| word.parse().ok());
        let code: u16 = code.with_context(|| format!("{}: not HTTP: {line:?}", text()))?;
        let (mut chunked, mut length) = (false, None);
        loop {
            line.clear();
            reader.read_line(&mut line).with_context(text)?;
            let lower = line.trim_end().to_ascii_lowercase();
            if lower.is_empty() {
                break;
            }
            chunked |= lower == "transfer-encoding: chunked";
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = Some(value.trim().parse::<u64>()?);
            }
        }
        let body: Box<dyn Read> = match (chunked, length) {
            (true, _) => Box::new(Chunks { inner: reader, left: 0, ended: false }),
            (false, Some(length)) => Box::new(reader.take(length)),
            (false, None) => Box::new(reader),
        };
        Ok((code, body))
    }
}

/// Events of a watch, in order.
pub struct Watch {
    lines: BufReader<Box<dyn Read>>,
}

impl Iterator for Watch {
    type Item = (String, Value);

    /// `None` when the watch ended or nothing came in time.
    fn next(&mut self) -> Option<Self::Item> {
        let mut line = String::new();
        match self.lines.read_line(&mut line) {
            Ok(1..) => {
                let mut event: Value = serde_json::from_str(&line).ok()?;
                let kind = event["type"].as_str()?.to_owned();
                Some((kind, event["object"].take()))
            }
            _ => None,
        }
    }
}

/// The body of a chunked answer (RFC 9112, section 7.1).
struct Chunks<R> {
    inner: R,
    left: usize,
    ended: bool,
}

impl<R: std::io::BufRead> Read for Chunks<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.left == 0 && !self.ended {
            let mut line = String::new();
            // The line end after the last chunk comes first.
            while line.trim().is_empty() {
                line.clear();
                if self.inner.read_line(&mut line)? == 0 {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
            }
            let size = line.trim().split(';').next().unwrap_or("");
            self.left = usize::from_str_radix(size, 16)
                .map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error))?;
            self.ended = self.left == 0;
        }
        if self.ended {
            return Ok(0);
        }
        let wanted = buffer.len().min(self.left);
        let count = self.inner.read(&mut buffer[..wanted])?;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_joined() {
        let body: &[u8] = b"4\r\nWiki\r\nb;note=1\r\npedia in\r\nc\r\n0\r\n\r\n";
        let mut text = String::new();
        Chunks { inner: body, left: 0, ended: false }.read_to_string(&mut text).unwrap();
        assert_eq!(text, "Wikipedia in\r\nc");
        let cut: &[u8] = b"9\r\nWiki";
        assert!(Chunks { inner: cut, left: 0, ended: false }.read_to_string(&mut text).is_err());
    }
}
