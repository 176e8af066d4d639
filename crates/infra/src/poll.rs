//! What infra waits for: descriptors in one epoll(7) instance, each with its meaning.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use rustix::time::Timespec;

use crate::failure::tolerate;
use crate::logs::Stream;

/// Why a descriptor is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// The socket that daemons connect to.
    Listener,
    /// A daemon, by its number.
    Client(u64),
    /// PID 1 of the containers that share their processes.
    PodInit,
    /// The report channel of a starting container or exec.
    Report(String),
    /// The first process of a container, or an exec.
    Process(String),
    /// Output of a container.
    Output(String, Stream),
    /// stdin of a container has room again.
    StdinTo(String),
    /// stdin of an attached client, by its number.
    StdinFrom(String, u64),
    /// An output of an attached client has room again.
    AttachTo(String, u64, Stream),
}

/// A watched descriptor; give it back with [`Poll::remove`].
#[derive(Debug)]
pub(crate) struct Watched {
    fd: OwnedFd,
    token: u64,
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The epoll instance.
#[derive(Debug)]
pub(crate) struct Poll {
    epoll: OwnedFd,
    sources: BTreeMap<u64, Source>,
    next: u64,
}

impl Poll {
    pub(crate) fn new() -> rustix::io::Result<Self> {
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)?, sources: BTreeMap::new(), next: 0 })
    }

    pub(crate) fn add(&mut self, fd: OwnedFd, source: Source, events: EventFlags) -> rustix::io::Result<Watched> {
        let token = self.next;
        self.next += 1;
        epoll::add(&self.epoll, &fd, EventData::new_u64(token), events)?;
        self.sources.insert(token, source);
        Ok(Watched { fd, token })
    }

    /// Waits for other events on it, or for none but errors.
    pub(crate) fn set(&self, watched: &Watched, events: EventFlags) -> rustix::io::Result<()> {
        epoll::modify(&self.epoll, &watched.fd, EventData::new_u64(watched.token), events)
    }

    /// Stops watching. Closing alone would not do: a child that has not yet executed holds a copy.
    pub(crate) fn remove(&mut self, watched: Watched) -> OwnedFd {
        self.sources.remove(&watched.token);
        // It is registered; an error could only say that it is not.
        tolerate(epoll::delete(&self.epoll, &watched.fd));
        watched.fd
    }

    /// Waits until something happens, or for a time.
    pub(crate) fn wait(&mut self, limit: Option<Duration>) -> rustix::io::Result<Vec<(u64, EventFlags)>> {
        let mut events = Vec::with_capacity(16);
        let limit = limit.map(|limit| Timespec {
            tv_sec: limit.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: limit.subsec_nanos().into(),
        });
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), limit.as_ref()) {
            Ok(_) => Ok(events.iter().map(|event| (event.data.u64(), event.flags)).collect()),
            Err(rustix::io::Errno::INTR) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// What a token means; `None` if an earlier event of the same round has ended it.
    pub(crate) fn source(&self, token: u64) -> Option<Source> {
        self.sources.get(&token).cloned()
    }
}
