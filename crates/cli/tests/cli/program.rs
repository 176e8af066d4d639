//! Runs the binary.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// What a run of the binary has left.
#[derive(Debug)]
pub struct Finished {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// The binary with these arguments, set to talk to the socket.
pub fn command(socket: &Path, arguments: &[&str]) -> Command {
    #[expect(clippy::disallowed_methods, reason = "a test of the program starts the program")]
    let mut command = Command::new(env!("CARGO_BIN_EXE_monopod"));
    command.args(arguments).env("MONOPOD_SOCKET", socket).env_remove("COLUMNS").stdin(Stdio::null());
    command
}

/// Runs it to its end.
pub fn monopod(socket: &Path, arguments: &[&str]) -> Finished {
    finished(&command(socket, arguments).output().unwrap())
}

/// Runs it to its end with this input.
pub fn monopod_with_input(socket: &Path, arguments: &[&str], input: &[u8]) -> Finished {
    let mut command = command(socket, arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // The program may end without reading all.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    finished(&output)
}

fn finished(output: &Output) -> Finished {
    Finished {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
