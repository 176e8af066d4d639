//! Directories of pods made ahead: a pod that starts gives one its name, and finds the files in it that every pod has.
//!
//! To make a file is the dearest thing that a start asks of a disk: a few hundredths of a millisecond each at best, and some
//! tenths on an ext4 without a journal on which others have just been deleted. Nothing records what is made ahead: a daemon
//! that starts removes what the last one left.

use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags};
use spec::ContainerName;

use crate::directories::{make_path, open_directory, remove_tree};
use crate::on_disk::on_disk;
use crate::pod_files::{make_empty_files, make_termination_log};

/// How many there are; a burst of pods makes its own.
const COUNT: usize = 4;
/// The next ones are made so long after a pod has taken one: its start is over by then.
const AFTER_A_START: Duration = Duration::from_millis(25);
/// Stands for the container that starts first. No container has such a name.
const FIRST: &str = "..first";

/// The directories that are no pod's yet.
#[derive(Debug)]
pub(crate) struct DirectoriesAhead {
    root: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// None is made, or no more.
    idle: bool,
    ready: Vec<PathBuf>,
    /// Numbers their names.
    made: u64,
    filling: bool,
}

impl DirectoriesAhead {
    /// None yet: see [`Self::keep`].
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self { root: data_dir.join("pods-ahead"), state: Mutex::new(State { idle: true, ..State::default() }) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes what an earlier daemon has left. Blocks.
    pub(crate) fn clear(&self) -> io::Result<()> {
        remove_tree(&self.root)
    }

    /// Makes some from now on, and anew where they are taken.
    pub(crate) fn keep(self: &Arc<Self>) {
        self.lock().idle = false;
        self.fill_later();
    }

    /// Makes none any more, and removes those that nobody has taken.
    pub(crate) async fn end(self: &Arc<Self>) {
        *self.lock() = State { idle: true, ..State::default() };
        let ahead = Arc::clone(self);
        if let Ok(Err(error)) = on_disk(move || ahead.clear()).await {
            tracing::warn!(%error, "directories of pods that were made ahead stay until the next start");
        }
    }

    /// Makes one of them the directory of a pod that has none, with the empty termination log of its first container's first
    /// run; whether there was one. Blocks.
    pub(crate) fn take(self: &Arc<Self>, directory: &Path, first: &ContainerName) -> bool {
        let Some(ready) = self.lock().ready.pop() else { return false };
        self.fill_later();
        let named = rustix::fs::renameat_with(CWD, &ready, CWD, directory, RenameFlags::NOREPLACE);
        let containers = directory.join("containers");
        let taken = named.map_err(io::Error::from).and_then(|()| {
            let containers = open_directory(&containers)?;
            Ok(rustix::fs::renameat(containers.as_fd(), FIRST, containers.as_fd(), first.as_str())?)
        });
        if let Err(error) = &taken {
            // It is made as if none had been there.
            tracing::debug!(%error, "a directory that was made ahead does not serve");
            if let Err(error) = remove_tree(&ready) {
                tracing::debug!(%error, "it stays until the next start");
            }
        }
        taken.is_ok()
    }

    fn fill_later(self: &Arc<Self>) {
        {
            let mut state = self.lock();
            if state.idle || std::mem::replace(&mut state.filling, true) {
                return;
            }
        }
        let ahead = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(AFTER_A_START).await;
            let filled = on_disk(move || {
                ahead.lock().filling = false;
                ahead.fill()
            });
            if let Ok(Err(error)) = filled.await {
                // The next pod makes its own and says what is wrong.
                tracing::debug!(%error, "no directory could be made ahead");
            }
        });
    }

    fn fill(&self) -> io::Result<()> {
        if !self.root.exists() {
            make_path(&self.root, 0o700)?;
            runtime::keep_apart(&self.root);
        }
        loop {
            let path = {
                let mut state = self.lock();
                if state.idle || state.ready.len() >= COUNT {
                    break;
                }
                state.made += 1;
                self.root.join(state.made.to_string())
            };
            make(&path).inspect_err(|_| drop(remove_tree(&path)))?;
            self.lock().ready.push(path);
        }
        // The daemon ends, and others may have removed the directories while these were made.
        if self.lock().idle { self.clear() } else { Ok(()) }
    }
}

fn make(path: &Path) -> io::Result<()> {
    make_empty_files(path).map_err(io::Error::other)?;
    make_termination_log(path, &ContainerName::new(FIRST), 0).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    async fn wait_for(ahead: &DirectoriesAhead, count: usize) {
        while ahead.lock().ready.len() != count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn a_pod_takes_one_and_the_next_is_made() {
        let base = tempfile::tempdir().unwrap();
        let ahead = Arc::new(DirectoriesAhead::new(base.path()));
        let (pod, app) = (base.path().join("pod"), ContainerName::new("app"));
        assert!(!ahead.take(&pod, &app), "nobody has asked for any");
        ahead.keep();
        wait_for(&ahead, COUNT).await;
        assert!(ahead.take(&pod, &app));
        let mut names = crate::directories::entries(&pod).unwrap();
        names.sort();
        assert_eq!(names, ["containers", "etc-hosts", "hostname", "resolv.conf"]);
        assert_eq!(fs::read_to_string(pod.join("containers/app/0")).unwrap(), "");
        wait_for(&ahead, COUNT).await;
        fs::write(pod.join("etc-hosts"), "mine").unwrap();
        assert!(!ahead.take(&pod, &app), "a pod keeps the directory that it has");
        assert_eq!(fs::read_to_string(pod.join("etc-hosts")).unwrap(), "mine");
        ahead.end().await;
        assert!(!base.path().join("pods-ahead").exists());
        assert!(!ahead.take(&base.path().join("other"), &app));
    }
}
