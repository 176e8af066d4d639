//! The daemon's side of an infra socket: requests with their replies, and events.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use infra::protocol::{Event, Failure, Reply, Request};
use infra::wire::{self, Frame};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::watch_descriptor;

pub(super) type Answer = (Reply, Vec<OwnedFd>);

/// A connection to one infra process.
#[derive(Debug)]
pub(super) struct Connection {
    socket: AsyncFd<OwnedFd>,
    next_id: AtomicU64,
    /// `None` once the other side has closed.
    waiting: Mutex<Option<HashMap<u64, oneshot::Sender<Answer>>>>,
}

/// A request on its way.
#[derive(Debug)]
pub(super) struct Asked {
    id: u64,
    receiver: oneshot::Receiver<Answer>,
    limit: Duration,
    until: Instant,
}

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    /// infra is gone.
    #[error("the pod's infra process is gone")]
    Gone(#[source] io::Error),
    /// infra did not answer in time.
    #[error("the pod's infra process did not answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// infra is older than this request.
    #[error("the pod's infra process was started by an older monopod that cannot do this")]
    Unknown,
    /// infra tried, and the kernel refused.
    #[error("cannot {}{}", .0.step, .0.path.as_ref().map(|path| format!(" {path}")).unwrap_or_default())]
    Failed(Failure, #[source] io::Error),
}

impl Connection {
    /// Connects to the socket of an infra process.
    pub(super) fn open(path: &Path) -> io::Result<(Arc<Self>, mpsc::UnboundedReceiver<Box<Event>>)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        Self::over(socket)
    }

    /// Speaks over a connected socket. The events end when the other side closes. They are boxed: the channel has room for 32 at once,
    /// and there is one for each Pod.
    pub(super) fn over(socket: OwnedFd) -> io::Result<(Arc<Self>, mpsc::UnboundedReceiver<Box<Event>>)> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        let connection = Arc::new(Self {
            socket: watch_descriptor(socket, Interest::READABLE)?,
            next_id: AtomicU64::new(1),
            waiting: Mutex::new(Some(HashMap::new())),
        });
        let (events, receiver) = mpsc::unbounded_channel();
        let reader = Arc::clone(&connection);
        tokio::spawn(async move { reader.read(&events).await });
        Ok((connection, receiver))
    }

    /// A pidfd of the process at the other end: the one that has listened on the socket (unix(7), `SO_PEERCRED`). It is
    /// that process and no later one of its number as long as the connection is open.
    pub(super) fn peer(&self) -> io::Result<OwnedFd> {
        let peer = rustix::net::sockopt::socket_peercred(self.socket.get_ref())?;
        Ok(rustix::process::pidfd_open(peer.pid, rustix::process::PidfdFlags::empty())?)
    }

    /// Whether the other side has closed.
    pub(super) fn is_closed(&self) -> bool {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Asks and waits for the reply; a failed reply is an error.
    pub(super) async fn request(
        &self,
        request: &Request,
        descriptors: &[BorrowedFd<'_>],
        limit: Duration,
    ) -> Result<Answer, RequestError> {
        let asked = self.ask(request, descriptors, limit).await?;
        self.answer(asked).await
    }

    /// Asks only, for [`Self::answer`].
    pub(super) async fn ask(
        &self,
        request: &Request,
        descriptors: &[BorrowedFd<'_>],
        limit: Duration,
    ) -> Result<Asked, RequestError> {
        let until = Instant::now() + limit;
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        match &mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(waiting) => drop(waiting.insert(id, sender)),
            None => return Err(RequestError::Gone(io::ErrorKind::NotConnected.into())),
        }
        let message = wire::encode(id, request);
        match tokio::time::timeout_at(until, self.send(&message, descriptors)).await {
            Err(_elapsed) => {
                self.forget(id);
                Err(RequestError::TimedOut(limit))
            }
            Ok(Err(error)) => Err(RequestError::Gone(error)),
            Ok(Ok(())) => Ok(Asked { id, receiver, limit, until }),
        }
    }

    /// Waits for the reply; a failed one is an error.
    pub(super) async fn answer(&self, asked: Asked) -> Result<Answer, RequestError> {
        match tokio::time::timeout_at(asked.until, asked.receiver).await {
            Err(_elapsed) => {
                self.forget(asked.id);
                Err(RequestError::TimedOut(asked.limit))
            }
            Ok(Err(_closed)) => Err(RequestError::Gone(io::ErrorKind::UnexpectedEof.into())),
            Ok(Ok((Reply::Unknown, _))) => Err(RequestError::Unknown),
            Ok(Ok((Reply::Failed(failure), _))) => {
                let source = io::Error::from_raw_os_error(failure.errno);
                Err(RequestError::Failed(failure, source))
            }
            Ok(Ok(answer)) => Ok(answer),
        }
    }

    /// Asks what infra holds.
    pub(super) async fn hello(&self, limit: Duration) -> Result<Answer, RequestError> {
        self.request(&Request::Hello { version: infra::protocol::VERSION }, &[], limit).await
    }

    /// Says something that has no reply.
    pub(super) async fn tell(&self, request: &Request) -> io::Result<()> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let message = wire::encode(id, request);
        self.send(&message, &[]).await
    }

    /// There is room but for an infra process that hangs. So the socket is watched for what comes in alone: else each message that infra
    /// takes would wake a thread of ours, on a processor that infra could have.
    async fn send(&self, message: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        match wire::send(self.socket.get_ref(), message, descriptors) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let socket = rustix::io::fcntl_dupfd_cloexec(self.socket.get_ref(), 3)?;
                let watched = watch_descriptor(socket, Interest::WRITABLE)?;
                watched.async_io(Interest::WRITABLE, |socket| wire::send(socket, message, descriptors)).await
            }
            sent => sent,
        }
    }

    fn forget(&self, id: u64) {
        if let Some(waiting) = &mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) {
            drop(waiting.remove(&id));
        }
    }

    async fn read(&self, events: &mpsc::UnboundedSender<Box<Event>>) {
        while let Ok(Some(frame)) =
            self.socket.async_io(Interest::READABLE, |socket| wire::receive(socket.as_fd())).await
        {
            self.take(frame, events);
        }
        // Dropping the senders tells each that waits; the events end with this task.
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn take(&self, mut frame: Frame, events: &mpsc::UnboundedSender<Box<Event>>) {
        if frame.id == 0 {
            let Some(event) = frame.body::<Event>() else {
                tracing::debug!("an infra process of a later version said something unknown");
                return;
            };
            // Nobody listens any more when the sandbox is being removed.
            drop(events.send(Box::new(event)));
            return;
        }
        let reply = frame.body::<Reply>().unwrap_or(Reply::Unknown);
        let descriptors = std::mem::take(&mut frame.descriptors);
        if let Some(waiting) = &mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
            && let Some(sender) = waiting.remove(&frame.id)
        {
            // Whoever asked may have given up.
            drop(sender.send((reply, descriptors)));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use rustix::net::socketpair;

    use super::*;

    #[tokio::test]
    async fn who_finds_no_room_waits_until_the_other_side_has_read() {
        let (ours, infra) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let (connection, _events) = Connection::over(ours).unwrap();
        let mut sent: u64 = 0;
        let late = loop {
            let teller = Arc::clone(&connection);
            let mut telling = tokio::spawn(async move { teller.tell(&Request::MarkReady).await });
            match tokio::time::timeout(Duration::from_millis(100), &mut telling).await {
                Ok(told) => told.unwrap().unwrap(),
                Err(_elapsed) => break telling,
            }
            sent += 1;
        };
        for number in 1..=sent {
            assert_eq!(wire::receive(&infra).unwrap().unwrap().id, number);
        }
        late.await.unwrap().unwrap();
        assert_eq!(wire::receive(&infra).unwrap().unwrap().id, sent + 1);
    }
}
