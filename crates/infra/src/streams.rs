//! The streams of a running container: its output into the log and to who is attached, and stdin from them.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;

use crate::container::Pipes;
use crate::failure::tolerate;
use crate::logs::{BATCH, Log, Lost, Stream};
use crate::poll::{Poll, Source, Watched};
use crate::protocol::Failure;

/// Read at once, at most.
const READ_LIMIT: usize = 512 * 1024;
/// So much output is read into memory of its own.
const LITTLE: usize = 4096;
/// How long buffers are kept for more output.
const BUFFERS_KEPT: Duration = Duration::from_secs(1);
/// An attached client that is this far behind is detached: it must not hold up the container or the log.
const BACKLOG_LIMIT: usize = 1024 * 1024;
/// Read from a client's stdin at once, and only when all before it is delivered.
const STDIN_CHUNK: usize = 64 * 1024;

/// Waiting for errors alone. With `ONESHOT` each report disarms, so that a hang-up that must wait does not spin.
const IDLE: EventFlags = EventFlags::ONESHOT;
const READABLE: EventFlags = EventFlags::IN.union(EventFlags::ONESHOT);
const WRITABLE: EventFlags = EventFlags::OUT.union(EventFlags::ONESHOT);

/// Room for reading output and for its lines: used by all streams in turns, and kept between them, since new memory costs
/// more than what is done in it.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    output: Vec<u8>,
    lines: Vec<u8>,
    used: Option<Instant>,
}

impl Buffers {
    /// How long they may still be waited for; none if they take no memory.
    pub(crate) fn release_in(&self) -> Option<Duration> {
        self.used.map(|used| BUFFERS_KEPT.saturating_sub(used.elapsed()))
    }

    /// Gives their memory back once nothing but single lines has come for a while.
    pub(crate) fn release_if_unused(&mut self) {
        if self.release_in() == Some(Duration::ZERO) {
            *self = Self::default();
        }
    }

    /// For so much output; a little gets memory for itself.
    fn take(&mut self, waiting: usize) -> (Vec<u8>, Vec<u8>) {
        if waiting <= LITTLE {
            return (Vec::with_capacity(LITTLE), Vec::new());
        }
        self.used = Some(Instant::now());
        let (mut output, mut lines) = (std::mem::take(&mut self.output), std::mem::take(&mut self.lines));
        // All at once, so that neither is ever moved; what is not used takes no memory.
        output.reserve_exact(READ_LIMIT);
        lines.reserve_exact(BATCH + 2 * READ_LIMIT);
        (output, lines)
    }

    fn put_back(&mut self, mut output: Vec<u8>, lines: Vec<u8>) {
        output.clear();
        if output.capacity() > LITTLE {
            (self.output, self.lines) = (output, lines);
        }
    }
}

/// Streams of one container.
#[derive(Debug)]
pub(crate) struct Streams {
    id: String,
    stdin_once: bool,
    log: Log,
    outputs: BTreeMap<Stream, Watched>,
    stdin: Option<Watched>,
    stdin_backlog: Vec<u8>,
    attached: BTreeMap<u64, Attached>,
    next_attached: u64,
}

/// A client's ends.
#[derive(Debug, Default)]
struct Attached {
    stdin: Option<Watched>,
    outputs: BTreeMap<Stream, Sink>,
}

#[derive(Debug)]
struct Sink {
    watched: Watched,
    backlog: Vec<u8>,
}

impl Streams {
    /// Begins to watch the pipes of a container, or its terminal.
    pub(crate) fn new(
        poll: &mut Poll,
        id: &str,
        stdin_once: bool,
        log: Log,
        pipes: Pipes,
        terminal: Option<OwnedFd>,
    ) -> rustix::io::Result<Self> {
        let mut streams = Self {
            id: id.to_owned(),
            stdin_once,
            log,
            outputs: BTreeMap::new(),
            stdin: None,
            stdin_backlog: Vec::new(),
            attached: BTreeMap::new(),
            next_attached: 0,
        };
        let mut stdin = pipes.stdin;
        let mut stdout = pipes.stdout;
        if let Some(master) = terminal {
            rustix::io::ioctl_fionbio(&master, true)?;
            // epoll(7) wants each direction to be its own descriptor.
            stdin = Some(rustix::io::fcntl_dupfd_cloexec(&master, 3)?);
            stdout = Some(master);
        }
        for (stream, pipe) in [(Stream::Stdout, stdout), (Stream::Stderr, pipes.stderr)] {
            if let Some(pipe) = pipe {
                let watched = poll.add(pipe, Source::Output(id.to_owned(), stream), EventFlags::IN)?;
                streams.outputs.insert(stream, watched);
            }
        }
        if let Some(stdin) = stdin {
            streams.stdin = Some(poll.add(stdin, Source::StdinTo(id.to_owned()), IDLE)?);
        }
        Ok(streams)
    }

    /// Goes on with the log in a new file.
    pub(crate) fn reopen_log(&mut self) -> Result<(), Failure> {
        self.log.reopen()
    }

    /// Reads what a stream holds, once; `Some` when log lines were lost.
    pub(crate) fn read_output(&mut self, poll: &mut Poll, buffers: &mut Buffers, stream: Stream) -> Option<Lost> {
        let waiting = rustix::io::ioctl_fionread(self.outputs.get(&stream)?).unwrap_or(0);
        let (mut data, mut lines) = buffers.take(usize::try_from(waiting).unwrap_or(READ_LIMIT));
        let lost = self.read_into(poll, stream, &mut data, &mut lines);
        buffers.put_back(data, lines);
        lost
    }

    fn read_into(&mut self, poll: &mut Poll, stream: Stream, data: &mut Vec<u8>, lines: &mut Vec<u8>) -> Option<Lost> {
        match rustix::io::read(self.outputs.get(&stream)?, rustix::buffer::spare_capacity(data)) {
            Err(Errno::AGAIN | Errno::INTR) => None,
            // EIO on a terminal's master: nobody has its other side open. That is its end, not an error.
            Ok(0) | Err(_) => {
                if let Some(watched) = self.outputs.remove(&stream) {
                    drop(poll.remove(watched));
                }
                None
            }
            Ok(_) => {
                for attached in self.attached.values_mut() {
                    attached.deliver(poll, stream, data);
                }
                self.log.write(stream, data, Timestamp::now(), lines)
            }
        }
    }

    /// Reads all that is left and closes the container's side; who is attached gets what is still on its way.
    pub(crate) fn finish(&mut self, poll: &mut Poll, buffers: &mut Buffers) -> Option<Lost> {
        let mut lost = None;
        for stream in [Stream::Stdout, Stream::Stderr] {
            // A process outside the container may hold the pipe open and go on writing: what is in it now is enough.
            let mut rounds = 64;
            while rounds > 0 && self.has_output(stream) {
                rounds -= 1;
                lost = self.read_output(poll, buffers, stream).or(lost);
            }
            if let Some(watched) = self.outputs.remove(&stream) {
                drop(poll.remove(watched));
            }
        }
        if let Some(stdin) = self.stdin.take() {
            drop(poll.remove(stdin));
        }
        for attached in self.attached.values_mut() {
            attached.close_stdin(poll);
            attached.close_delivered(poll);
        }
        self.attached.retain(|_, attached| !attached.outputs.is_empty());
        self.log.finish(Timestamp::now()).or(lost)
    }

    /// Whether the log was rotated since this was asked last.
    pub(crate) fn take_rotated(&mut self) -> bool {
        self.log.take_rotated()
    }

    fn has_output(&self, stream: Stream) -> bool {
        self.outputs.get(&stream).is_some_and(|watched| {
            let mut fds = [rustix::event::PollFd::new(watched, rustix::event::PollFlags::IN)];
            let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
            rustix::event::poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
        })
    }

    /// Connects a client.
    pub(crate) fn attach(&mut self, poll: &mut Poll, pipes: Pipes) -> rustix::io::Result<()> {
        let number = self.next_attached;
        self.next_attached += 1;
        let mut attached = Attached::default();
        let source = Source::StdinFrom(self.id.clone(), number);
        if let Some(stdin) = pipes.stdin
            && self.stdin.is_some()
        {
            rustix::io::ioctl_fionbio(&stdin, true)?;
            attached.stdin = Some(poll.add(stdin, source, READABLE)?);
        }
        for (stream, pipe) in [(Stream::Stdout, pipes.stdout), (Stream::Stderr, pipes.stderr)] {
            if let Some(pipe) = pipe {
                rustix::io::ioctl_fionbio(&pipe, true)?;
                let source = Source::AttachTo(self.id.clone(), number, stream);
                let watched = poll.add(pipe, source, IDLE)?;
                attached.outputs.insert(stream, Sink { watched, backlog: Vec::new() });
            }
        }
        self.attached.insert(number, attached);
        Ok(())
    }

    /// Takes what a client has typed.
    pub(crate) fn read_stdin(&mut self, poll: &mut Poll, number: u64) {
        if !self.stdin_backlog.is_empty() {
            return;
        }
        let Some(attached) = self.attached.get_mut(&number) else { return };
        let Some(source) = &attached.stdin else { return };
        let mut data = Vec::with_capacity(STDIN_CHUNK);
        match rustix::io::read(source, rustix::buffer::spare_capacity(&mut data)) {
            // Nothing after all: armed again.
            Err(Errno::AGAIN | Errno::INTR) => drop(poll.set(source, READABLE)),
            Ok(0) | Err(_) => {
                attached.close_stdin(poll);
                if self.stdin_once
                    && let Some(stdin) = self.stdin.take()
                {
                    drop(poll.remove(stdin));
                }
            }
            Ok(_) => {
                self.stdin_backlog = data;
                self.write_stdin(poll);
            }
        }
    }

    /// The container has closed its stdin.
    pub(crate) fn close_stdin(&mut self, poll: &mut Poll) {
        self.stdin_backlog = Vec::new();
        if let Some(stdin) = self.stdin.take() {
            drop(poll.remove(stdin));
        }
        for attached in self.attached.values_mut() {
            attached.close_stdin(poll);
        }
    }

    /// Gives the container what was typed, as far as it takes it.
    pub(crate) fn write_stdin(&mut self, poll: &mut Poll) {
        let Some(stdin) = &self.stdin else {
            self.stdin_backlog = Vec::new();
            return;
        };
        match rustix::io::write(stdin, &self.stdin_backlog) {
            Ok(written) => drop(self.stdin_backlog.drain(..written)),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => return self.close_stdin(poll),
        }
        let waiting = !self.stdin_backlog.is_empty();
        if !waiting {
            self.stdin_backlog = Vec::new();
        }
        if let Some(stdin) = &self.stdin {
            // A descriptor that is registered takes new events; should it not, the client's next byte tries again.
            tolerate(poll.set(stdin, if waiting { WRITABLE } else { IDLE }));
        }
        for source in self.attached.values().filter_map(|attached| attached.stdin.as_ref()) {
            tolerate(poll.set(source, if waiting { IDLE } else { READABLE }));
        }
    }

    /// Goes on with a client that was slow, or drops one that is gone.
    pub(crate) fn write_attached(&mut self, poll: &mut Poll, number: u64, stream: Stream, gone: bool) {
        if let Some(attached) = self.attached.get_mut(&number) {
            if gone {
                attached.drop_output(poll, stream);
            } else {
                attached.deliver(poll, stream, &[]);
            }
            if self.outputs.is_empty() {
                attached.close_delivered(poll);
            }
            if attached.outputs.is_empty() && attached.stdin.is_none() {
                self.attached.remove(&number);
            }
        }
    }

    /// Whether someone attached still waits for output.
    pub(crate) fn delivering(&self) -> bool {
        !self.attached.is_empty()
    }
}

impl Attached {
    fn deliver(&mut self, poll: &mut Poll, stream: Stream, data: &[u8]) {
        let Some(sink) = self.outputs.get_mut(&stream) else { return };
        sink.backlog.extend_from_slice(data);
        let gone = match rustix::io::write(&sink.watched, &sink.backlog) {
            Ok(written) => {
                drop(sink.backlog.drain(..written));
                false
            }
            Err(Errno::AGAIN | Errno::INTR) => false,
            Err(_) => true,
        };
        if gone || sink.backlog.len() > BACKLOG_LIMIT {
            self.drop_output(poll, stream);
            return;
        }
        let events = if sink.backlog.is_empty() { IDLE } else { WRITABLE };
        if sink.backlog.is_empty() {
            sink.backlog = Vec::new();
        }
        tolerate(poll.set(&sink.watched, events));
    }

    fn drop_output(&mut self, poll: &mut Poll, stream: Stream) {
        if let Some(sink) = self.outputs.remove(&stream) {
            drop(poll.remove(sink.watched));
        }
    }

    fn close_stdin(&mut self, poll: &mut Poll) {
        if let Some(stdin) = self.stdin.take() {
            drop(poll.remove(stdin));
        }
    }

    fn close_delivered(&mut self, poll: &mut Poll) {
        let delivered: Vec<Stream> =
            self.outputs.iter().filter(|(_, sink)| sink.backlog.is_empty()).map(|(stream, _)| *stream).collect();
        for stream in delivered {
            self.drop_output(poll, stream);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_stay_after_much_output_and_go_when_no_more_comes() {
        let mut buffers = Buffers::default();
        let (output, lines) = buffers.take(LITTLE);
        assert_eq!((output.capacity(), lines.capacity()), (LITTLE, 0));
        buffers.put_back(output, lines);
        assert_eq!((buffers.release_in(), buffers.output.capacity()), (None, 0));
        let (mut output, lines) = buffers.take(LITTLE + 1);
        assert!(output.capacity() >= READ_LIMIT && lines.capacity() > BATCH);
        output.push(1);
        let memory = output.as_ptr();
        buffers.put_back(output, lines);
        assert!(buffers.release_in().is_some());
        let (output, lines) = buffers.take(READ_LIMIT);
        assert!(output.as_ptr() == memory && output.is_empty());
        buffers.put_back(output, lines);
        // A little output does not keep them.
        buffers.used = Instant::now().checked_sub(BUFFERS_KEPT);
        let (output, lines) = buffers.take(1);
        buffers.put_back(output, lines);
        buffers.release_if_unused();
        assert_eq!((buffers.release_in(), buffers.output.capacity(), buffers.lines.capacity()), (None, 0, 0));
    }
}
