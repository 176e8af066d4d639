//! Reads the logs that infra writes: which run, from where, how shown, and followed while the container runs.

pub(crate) mod files;
mod follow;
mod format;
mod packed;
mod selection;

use std::io;
use std::pin::Pin;

use bytes::Bytes;
use futures::Stream;
use spec::{ContainerName, PodRef, Timestamp};

pub use format::StreamFilter;

pub(crate) use follow::{Followed, read_logs};
pub(crate) use format::Rendering;
pub(crate) use selection::select_run;

/// The last lines of a run's log as text, at most so many bytes from its end. Blocks.
pub(crate) fn tail_text(log: &files::RunLog, lines: u64, bytes: usize) -> io::Result<String> {
    let open = match log.open_all(None) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        result => result?,
    };
    let mut renderer = format::Renderer::new(Rendering::default());
    let mut shown = Vec::new();
    let mut raw = vec![0; 64 << 10];
    for mut file in files::keep_last_lines(open, lines, StreamFilter::All)? {
        loop {
            let count = file.read(&mut raw)?;
            if count == 0 {
                break;
            }
            renderer.push(raw.get(..count).unwrap_or_default(), &mut shown);
            let excess = shown.len().saturating_sub(bytes);
            shown.drain(..excess);
        }
    }
    Ok(String::from_utf8_lossy(&shown).into_owned())
}

/// The output of a container, in portions.
pub type LogStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// What of a container's logs is wanted (`PodLogOptions`).
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// Go on until the container ends.
    pub follow: bool,
    /// Of the run before.
    pub previous: bool,
    /// Only lines that are not older.
    pub since: Option<Since>,
    /// Put its time before each line.
    pub timestamps: bool,
    /// Only so many lines from the end.
    pub tail_lines: Option<u64>,
    /// No more bytes than this.
    pub limit_bytes: Option<u64>,
    /// Which output.
    pub stream: StreamFilter,
}

/// Where to start in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// So many seconds ago.
    SecondsAgo(u64),
    /// At this time.
    Time(Timestamp),
}

/// Why there are no logs; the messages are the kubelet's. All but the first two are bad requests.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The Pod is not in the store.
    #[error("pods {:?} not found", pod.name)]
    NoSuchPod {
        /// The Pod.
        pod: PodRef,
    },
    /// The logs cannot be opened.
    #[error("cannot open the logs of container {container:?} in pod {:?}", pod.name)]
    Open {
        /// The Pod.
        pod: PodRef,
        /// The container.
        container: ContainerName,
        /// The kernel's word.
        #[source]
        source: io::Error,
    },
    /// The Pod has no such container.
    #[error("container {container} is not valid for pod {}", pod.name)]
    NoSuchContainer {
        /// The Pod.
        pod: PodRef,
        /// The container.
        container: ContainerName,
    },
    /// There was no run before this one.
    #[error("previous terminated container {:?} in pod {:?} not found", container.as_str(), pod.name)]
    NoPreviousRun {
        /// The Pod.
        pod: PodRef,
        /// The container.
        container: ContainerName,
    },
    /// It has not run yet.
    #[error("container {:?} in pod {:?} is waiting to start: {why}", container.as_str(), pod.name)]
    Waiting {
        /// The Pod.
        pod: PodRef,
        /// The container.
        container: ContainerName,
        /// Such as `ContainerCreating`.
        why: String,
    },
    /// It ended and nothing of it is left.
    #[error("container {:?} in pod {:?} is terminated", container.as_str(), pod.name)]
    Terminated {
        /// The Pod.
        pod: PodRef,
        /// The container.
        container: ContainerName,
    },
}
