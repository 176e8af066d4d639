//! Streams the logs of one run: to the present end, or on until the container has ended.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream;
use runtime::{ContainerState, Runtime, RuntimeEvent};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use spec::{ContainerId, PodUid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{broadcast, mpsc};

use super::LogStream;
use super::files::{OpenLog, RunLog, keep_last_lines};
use super::format::{Renderer, Rendering};

/// Bytes read at once.
const PORTION: usize = 256 << 10;
/// Portions that may wait for a slow client.
const PORTIONS_AHEAD: usize = 2;

/// The container that is followed.
pub(crate) struct Followed {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) pod_uid: PodUid,
    pub(crate) id: ContainerId,
}

/// Shows the last `tail_lines` of `files`, which are in order; then what is written later, if `followed`.
pub(crate) fn read_logs(
    log: RunLog,
    files: Vec<OpenLog>,
    tail_lines: Option<u64>,
    rendering: Rendering,
    followed: Option<Followed>,
) -> LogStream {
    let (portions, received) = mpsc::channel(PORTIONS_AHEAD);
    let stream = rendering.stream;
    let mut reader = LogReader { log, files: VecDeque::new(), renderer: Renderer::new(rendering) };
    tokio::spawn(async move {
        let sent = async {
            // Finding the last lines may read a lot.
            let tail = move || match tail_lines {
                Some(lines) => keep_last_lines(files, lines, stream),
                None => Ok(files),
            };
            reader.files = blocking(tail).await??.into();
            send_logs(reader, followed, &portions).await
        };
        if let Err(error) = sent.await {
            // Nobody listens any more if this fails, and then nobody misses it.
            let _gone = portions.send(Err(error)).await;
        }
    });
    stream::unfold(received, |mut received| async move { received.recv().await.map(|portion| (portion, received)) })
        .boxed()
}

async fn send_logs(
    mut reader: LogReader,
    followed: Option<Followed>,
    portions: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<()> {
    let mut changes = followed.map(|followed| Follower::new(followed, &reader.log)).transpose()?;
    let mut ended = changes.is_none();
    loop {
        // Asked before the read: an end that is seen here has all of its output in the file.
        if let Some(changes) = &mut changes {
            ended = changes.has_ended().await;
        }
        loop {
            let (returned, portion) = blocking(move || {
                let portion = reader.next_portion();
                (reader, portion)
            })
            .await?;
            reader = returned;
            let Some(portion) = portion? else { break };
            if !portion.is_empty() && portions.send(Ok(portion.into())).await.is_err() {
                return Ok(());
            }
        }
        if ended || reader.renderer.is_full() {
            return Ok(());
        }
        let Some(changes) = &mut changes else { return Ok(()) };
        tokio::select! {
            woken = changes.changed() => woken?,
            () = portions.closed() => return Ok(()),
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}

struct LogReader {
    log: RunLog,
    /// The first one is being read.
    files: VecDeque<OpenLog>,
    renderer: Renderer,
}

impl LogReader {
    /// What comes next; `None` at the present end.
    fn next_portion(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.renderer.is_full() {
            return Ok(None);
        }
        let mut raw = vec![0; PORTION];
        loop {
            let Some(file) = self.files.front_mut() else {
                match self.present()? {
                    Some(present) => self.files.push_back(present),
                    None => return Ok(None),
                }
                continue;
            };
            let count = file.read(&mut raw)?;
            if count > 0 {
                let mut shown = Vec::new();
                self.renderer.push(raw.get(..count).unwrap_or_default(), &mut shown);
                return Ok(Some(shown));
            }
            if self.files.len() == 1 {
                match self.present()? {
                    Some(present) if self.files.front().is_some_and(|file| !file.is(&present)) => {
                        self.push_newer(present)?;
                        // What was written between our last read and the rotation is in the old file: once more.
                        if let Some(portion) = self.drain_front(&mut raw)? {
                            return Ok(Some(portion));
                        }
                    }
                    Some(_) | None => return Ok(None),
                }
            }
            self.files.pop_front();
        }
    }

    /// The log was rotated, perhaps more than once since we looked: all files after ours, which may have been packed or
    /// removed meanwhile.
    fn push_newer(&mut self, present: OpenLog) -> io::Result<()> {
        let mut all = self.log.open_all(None)?;
        let Some(front) = self.files.front() else { return Ok(()) };
        if let Some(ours) = all.iter().position(|file| file.is(front)) {
            self.files.extend(all.split_off(ours + 1));
        } else {
            let mut newer = Vec::new();
            for file in all {
                if front.is_before(&file)? {
                    newer.push(file);
                }
            }
            self.files.extend(newer);
        }
        if self.files.len() == 1 {
            self.files.push_back(present);
        }
        Ok(())
    }

    fn drain_front(&mut self, raw: &mut [u8]) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = self.files.front_mut() else { return Ok(None) };
        let count = file.read(raw)?;
        if count == 0 {
            return Ok(None);
        }
        let mut shown = Vec::new();
        self.renderer.push(raw.get(..count).unwrap_or_default(), &mut shown);
        Ok(Some(shown))
    }

    fn present(&self) -> io::Result<Option<OpenLog>> {
        match self.log.open_present() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            result => result,
        }
    }
}

/// Wakes when the log grew or was rotated, or when the container changed.
struct Follower {
    followed: Followed,
    events: broadcast::Receiver<RuntimeEvent>,
    directory: AsyncFd<OwnedFd>,
    /// Whether the container may have ended since it was looked at.
    stale: bool,
}

impl Follower {
    fn new(followed: Followed, log: &RunLog) -> io::Result<Self> {
        let events = followed.runtime.events();
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let flags = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
        inotify::add_watch(&inotify, log.directory_path(), flags)?;
        #[expect(deprecated, reason = "the descriptor is owned, so what the deprecation warns of cannot happen")]
        let directory = AsyncFd::with_interest(inotify, Interest::READABLE)?;
        Ok(Self { followed, events, directory, stale: true })
    }

    async fn has_ended(&mut self) -> bool {
        if !std::mem::take(&mut self.stale) {
            return false;
        }
        let containers = self.followed.runtime.list_containers().await;
        containers.iter().find(|container| container.id == self.followed.id).is_none_or(|container| {
            match container.state {
                ContainerState::Running { .. } | ContainerState::Created => false,
                ContainerState::Exited(_) => true,
            }
        })
    }

    async fn changed(&mut self) -> io::Result<()> {
        loop {
            tokio::select! {
                ready = self.directory.readable() => {
                    let mut ready = ready?;
                    let mut events = [0_u8; 4096];
                    // Only that something happened counts: the files tell what.
                    while matches!(ready.try_io(|fd| Ok(rustix::io::read(fd, &mut events)?)), Ok(Ok(1..))) {}
                    return Ok(());
                }
                event = self.events.recv() => match event {
                    Ok(event) if event.pod_uid != self.followed.pod_uid => {}
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_) | broadcast::error::RecvError::Closed) => {
                        self.stale = true;
                        return Ok(());
                    }
                },
            }
        }
    }
}
