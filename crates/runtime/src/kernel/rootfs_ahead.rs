//! Root file systems mounted ahead: a container of an image that was started lately gets its writable layer and its overlay
//! without waiting for a disk.
//!
//! Each is a directory that becomes the container's when it is taken, and a mount that is attached nowhere. Nothing records them: a
//! daemon that starts anew removes the directories.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use spec::ContainerId;

use super::rootfs::mount_overlay;
use super::sandbox::remove_directory;
use super::{make_private_directory, remove_error};
use crate::error::RuntimeError;

/// For so many images; those that were started last.
const IMAGES: usize = 4;

/// The root file systems of a runtime that nobody has yet.
#[derive(Debug)]
pub(super) struct RootfsAhead {
    /// Where the directories are until then.
    root: PathBuf,
    slots: Mutex<VecDeque<Slot>>,
}

/// Layers that a container was started on.
#[derive(Debug)]
struct Slot {
    /// Lowest first.
    layers: Vec<PathBuf>,
    ready: Option<Ready>,
}

#[derive(Debug)]
struct Ready {
    directory: PathBuf,
    tree: OwnedFd,
    /// Of its layers: one that was removed and made again is another one.
    layers: Vec<Identity>,
}

/// Which directory it is, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: (u32, u32),
    inode: u64,
    born: (i64, u32),
}

impl RootfsAhead {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root, slots: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The overlay of a new container on these layers, whose directory is made by this; `None` if there is none ready. Blocks.
    pub(super) fn take(&self, layers: &[PathBuf], directory: &Path) -> Option<OwnedFd> {
        let (ready, oldest) = {
            let mut slots = self.lock();
            let present = slots.iter().position(|slot| slot.layers == layers).and_then(|at| slots.remove(at));
            let mut slot = present.unwrap_or_else(|| Slot { layers: layers.to_vec(), ready: None });
            let ready = slot.ready.take();
            slots.push_back(slot);
            let oldest = if slots.len() > IMAGES { slots.pop_front() } else { None };
            (ready, oldest)
        };
        oldest.and_then(|slot| slot.ready).into_iter().for_each(Ready::remove);
        let ready = ready?;
        if identities(layers).is_none_or(|present| present != ready.layers)
            || fs::rename(&ready.directory, directory).is_err()
        {
            ready.remove();
            return None;
        }
        Some(ready.tree)
    }

    /// Mounts what is missing, one for each of the images. Blocks.
    pub(super) fn fill(&self) -> io::Result<()> {
        let wanted: Vec<Vec<PathBuf>> =
            self.lock().iter().filter(|slot| slot.ready.is_none()).map(|slot| slot.layers.clone()).collect();
        for layers in wanted {
            // Without a time of birth nobody knows whether a layer is still the same.
            let Some(identities) = identities(&layers) else { continue };
            let directory = self.root.join(ContainerId::random().as_str());
            make_private_directory(&directory)?;
            let tree = mount_overlay(&layers, &directory.join("rootfs"), None).inspect_err(|_| clear(&directory))?;
            let ready = Ready { directory, tree, layers: identities };
            let mut slots = self.lock();
            let slot = slots.iter_mut().find(|slot| slot.layers == layers && slot.ready.is_none());
            let surplus = match slot {
                Some(slot) => slot.ready.replace(ready),
                // Forgotten meanwhile.
                None => Some(ready),
            };
            drop(slots);
            surplus.into_iter().for_each(Ready::remove);
        }
        Ok(())
    }

    /// Whether [`Self::fill`] has anything to do.
    pub(super) fn is_short(&self) -> bool {
        self.lock().iter().any(|slot| slot.ready.is_none())
    }

    /// Removes all of them. Blocks.
    pub(super) fn clear(&self) -> Result<(), RuntimeError> {
        let slots = std::mem::take(&mut *self.lock());
        for Ready { directory, tree, .. } in slots.into_iter().filter_map(|slot| slot.ready) {
            drop(tree);
            let removed = remove_directory(&directory);
            removed.map_err(|e| remove_error("remove a root file system that was mounted ahead", e))?;
        }
        Ok(())
    }
}

impl Ready {
    fn remove(self) {
        drop(self.tree);
        clear(&self.directory);
    }
}

fn clear(directory: &Path) {
    if let Err(error) = remove_directory(directory) {
        tracing::warn!(path = %directory.display(), %error, "a root file system that was mounted ahead stays until the next start");
    }
}

/// `None` where a layer is gone, or the file system does not say when a directory was made.
fn identities(layers: &[PathBuf]) -> Option<Vec<Identity>> {
    let wanted = StatxFlags::INO | StatxFlags::BTIME;
    let identity = |layer: &PathBuf| {
        let found = statx(CWD, layer, AtFlags::SYMLINK_NOFOLLOW, wanted).ok()?;
        let says = StatxFlags::from_bits_retain(found.stx_mask).contains(wanted);
        says.then_some(Identity {
            device: (found.stx_dev_major, found.stx_dev_minor),
            inode: found.stx_ino,
            born: (found.stx_btime.tv_sec, found.stx_btime.tv_nsec),
        })
    };
    layers.iter().map(identity).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_layer_that_was_made_again_is_another_one() {
        let base = tempfile::tempdir().unwrap();
        let layers = ["a", "b"].map(|name| base.path().join(name)).to_vec();
        assert_eq!(identities(&layers), None, "they are not there");
        for layer in &layers {
            fs::create_dir(layer).unwrap();
        }
        let before = identities(&layers).unwrap();
        fs::write(layers[0].join("file"), "x").unwrap();
        assert_eq!(identities(&layers).unwrap(), before, "what is in it does not matter");
        fs::remove_dir(&layers[1]).unwrap();
        // The clock of file systems is a coarse one.
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::create_dir(&layers[1]).unwrap();
        assert_ne!(identities(&layers).unwrap(), before);
    }
}
