//! The person's terminal: raw while a program in a container has it, and always put back.

use std::io;
use std::os::fd::AsFd as _;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// Raw mode of standard input; dropped, it restores what was before.
#[derive(Debug)]
pub struct RawMode {
    before: Termios,
}

impl RawMode {
    /// Passes every key on as it is, also Ctrl-C (termios(3), "Raw mode").
    pub fn enter() -> io::Result<Self> {
        let stdin = io::stdin();
        let before = tcgetattr(stdin.as_fd())?;
        let mut raw = before.clone();
        raw.make_raw();
        // Not `Flush`: what was typed ahead belongs to the program.
        tcsetattr(stdin.as_fd(), OptionalActions::Now, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // Nothing can be done if the terminal is gone.
        let _gone = tcsetattr(io::stdin().as_fd(), OptionalActions::Drain, &self.before);
    }
}

/// Columns and rows of the terminal, if there is one with a size.
pub fn size() -> Option<(u16, u16)> {
    let of_stdout = tcgetwinsize(io::stdout().as_fd());
    let size = of_stdout.or_else(|_not_a_terminal| tcgetwinsize(io::stdin().as_fd())).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
}
