//! Commands that run to their end, and what they said.

use std::io::Write as _;
use std::process::{Command, Stdio};

/// A command that ended.
#[derive(Debug)]
pub struct Finished {
    /// What was run, for messages.
    pub command: String,
    /// Its exit code; 128+n when signal n killed it.
    pub code: i32,
    /// What it wrote.
    pub stdout: String,
    /// What it wrote.
    pub stderr: String,
}

impl Finished {
    /// Runs `command` to its end with `stdin`.
    #[track_caller]
    pub fn run(command: &mut Command, stdin: &[u8]) -> Self {
        let text = describe(command);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{text}: {error}"));
        let mut pipe = child.stdin.take().unwrap();
        let input = stdin.to_vec();
        // A command may end without reading all of its stdin; that is its business.
        let feeder = std::thread::spawn(move || pipe.write_all(&input).is_ok());
        let output = child.wait_with_output().unwrap();
        feeder.join().unwrap();
        Self {
            command: text,
            code: code_of(output.status),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Its stdout, when it ended well.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.code == 0, "{self}");
        self.stdout
    }

    /// Its stderr, when it ended with `code`.
    #[track_caller]
    pub fn fails_with(self, code: i32) -> String {
        assert!(self.code == code, "expected exit code {code}: {self}");
        self.stderr
    }

    /// Its stderr, when it failed.
    #[track_caller]
    pub fn fails(self) -> String {
        assert!(self.code != 0, "expected a failure: {self}");
        self.stderr
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` ended with {}\n{}{}", self.command, self.code, self.stdout, self.stderr)
    }
}

/// The command line of `command`.
pub fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// As shells count: 128+n when signal n killed it.
pub fn code_of(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}
