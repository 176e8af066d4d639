//! Commands that run beside the test: `logs -f`, `get -w`, `attach`.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;

use crate::command::{code_of, describe};
use crate::patience::{eventually, limit};

/// A running command whose lines can be waited for. It is killed when this is dropped.
#[derive(Debug)]
pub struct Background {
    command: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Background {
    /// Starts `command`; stdout and stderr come as one stream of lines.
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        let text = describe(command);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{text}: {error}"));
        let (sender, lines) = channel();
        let streams: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for stream in streams {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                    if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                        return;
                    }
                }
            });
        }
        let stdin = child.stdin.take();
        Self { command: text, child, stdin, lines, seen: Vec::new() }
    }

    /// Waits for a line that contains `wanted` and gives it.
    #[track_caller]
    pub fn expect(&mut self, wanted: &str) -> String {
        let deadline = Instant::now() + limit(20);
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(wanted) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("no line with {wanted:?} in time from {self}"),
                Err(RecvTimeoutError::Disconnected) => panic!("ended without a line with {wanted:?}: {self}"),
            }
        }
    }

    /// The lines that were read so far.
    pub fn seen(&self) -> &[String] {
        &self.seen
    }

    /// Writes to its stdin.
    #[track_caller]
    pub fn send(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().expect("its stdin is closed");
        stdin.write_all(text.as_bytes()).unwrap();
        stdin.flush().unwrap();
    }

    /// Gives it end-of-file.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Process id of the command itself.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end; gives the exit code and all lines.
    #[track_caller]
    pub fn finish(mut self) -> (i32, Vec<String>) {
        self.stdin = None;
        let what = format!("`{}` ends", self.command);
        let status = eventually(limit(30), &what, || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err("it runs on".to_owned()),
            Err(error) => Err(error.to_string()),
        });
        // The readers end with the pipes, so this ends too.
        while let Ok(line) = self.lines.recv_timeout(limit(5)) {
            self.seen.push(line);
        }
        (code_of(status), std::mem::take(&mut self.seen))
    }
}

impl std::fmt::Display for Background {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}`, which said:\n{}", self.command, self.seen.join("\n"))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // It may have ended already.
        if self.child.kill().is_ok() && self.child.wait().is_err() {
            eprintln!("`{}` cannot be reaped", self.command);
        }
    }
}
