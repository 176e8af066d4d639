//! A terminal with a person before it: types, reads, resizes.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use crate::command::{code_of, describe};
use crate::patience::{eventually, limit};

/// A command on a pseudo terminal of its own (pty(7)). It is killed when this is dropped.
#[derive(Debug)]
pub struct Terminal {
    command: String,
    child: Child,
    master: File,
    screen: Arc<Screen>,
    /// How much of the screen the test has read.
    read: usize,
}

#[derive(Debug, Default)]
struct Screen {
    text: Mutex<(String, bool)>,
    changed: Condvar,
}

impl Terminal {
    /// Starts `command` with the terminal as its stdin, stdout, stderr and controlling terminal.
    #[track_caller]
    pub fn start(command: &Command, columns: u16, rows: u16) -> Self {
        let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        rustix::pty::grantpt(&master).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        resize(&master, columns, rows);
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).unwrap();

        // setsid(1) makes the terminal the controlling one, so that Ctrl-C and SIGWINCH arrive. A shell cannot trap what was
        // ignored when it started, and whoever runs the tests in the background ignores SIGINT: env(1) undoes that.
        let mut session = Command::new("env");
        session
            .args(["--default-signal", "setsid", "--ctty", "--wait"])
            .arg(command.get_program())
            .args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => session.env(name, value),
                None => session.env_remove(name),
            };
        }
        session.env("TERM", "xterm");
        let child = session
            .stdin(Stdio::from(slave.try_clone().unwrap()))
            .stdout(Stdio::from(slave.try_clone().unwrap()))
            .stderr(Stdio::from(slave))
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", describe(command)));
        drop(session);

        let master = File::from(master);
        let screen = Arc::new(Screen::default());
        let (mut reader, writer) = (master.try_clone().unwrap(), Arc::clone(&screen));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // EIO is the end: no one holds the slave any more (pty(7)).
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                writer.text.lock().unwrap().0.push_str(&String::from_utf8_lossy(&buffer[..count]));
                writer.changed.notify_all();
            }
            writer.text.lock().unwrap().1 = true;
            writer.changed.notify_all();
        });
        Self { command: describe(command), child, master, screen, read: 0 }
    }

    /// Types `text`.
    pub fn send(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// Waits until `wanted` is printed after what was read before; gives all up to its end.
    #[track_caller]
    pub fn expect(&mut self, wanted: &str) -> String {
        let deadline = Instant::now() + limit(20);
        let mut text = self.screen.text.lock().unwrap();
        loop {
            if let Some(at) = text.0[self.read..].find(wanted) {
                let end = self.read + at + wanted.len();
                let seen = text.0[self.read..end].to_owned();
                self.read = end;
                return seen;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || text.1 {
                let (unread, gone) = (text.0[self.read..].to_owned(), text.1);
                drop(text);
                panic!("`{}`: {wanted:?} not printed (ended: {gone}); unread: {unread:?}", self.command);
            }
            text = self.screen.changed.wait_timeout(text, left).unwrap().0;
        }
    }

    /// Gives the terminal another size, as a window that is dragged does.
    pub fn resize(&self, columns: u16, rows: u16) {
        resize(&self.master, columns, rows);
    }

    /// Waits for the command's end and gives its exit code.
    #[track_caller]
    pub fn finish(mut self) -> i32 {
        let what = format!("`{}` ends", self.command);
        let status = eventually(limit(20), &what, || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err(format!("screen: {:?}", self.screen.text.lock().unwrap().0)),
            Err(error) => Err(error.to_string()),
        });
        code_of(status)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if self.child.kill().is_ok() && self.child.wait().is_err() {
            eprintln!("`{}` cannot be reaped", self.command);
        }
    }
}

fn resize(master: &impl std::os::fd::AsFd, columns: u16, rows: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(master, size).unwrap();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_echoes_interrupts_resizes_and_gives_the_exit_code() {
        let mut shell = Command::new("sh");
        shell.args(["-c", "trap 'echo caught; stty size; exit 3' INT; echo begun; while :; do sleep 0.01; done"]);
        let mut terminal = Terminal::start(&shell, 90, 20);
        terminal.expect("begun");
        terminal.resize(91, 21);
        terminal.send("\x03");
        terminal.expect("caught");
        terminal.expect("21 91");
        assert_eq!(terminal.finish(), 3);
    }
}
