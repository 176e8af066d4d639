//! The directories of unpacked layers: one for each diff id, shared by all images that have it.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use layer::limits::LayerLimits;
use layer::{LayerBlob, LayerError, Trash, UnpackedLayer, directory, unpack_blob};
use rustix::fs::{Mode, RenameFlags, fchmod, renameat_with, syncfs};
use rustix::io::Errno;
use spec::Digest;

/// Digits of the diff id in a directory's name: fsconfig(2) takes strings below 256 bytes, and 160 bits do not collide.
const NAME_DIGITS: usize = 40;
/// Lower layer of an image that has none: overlay wants at least one.
const EMPTY: &str = "empty";

/// All layers on this machine.
#[derive(Debug)]
pub(crate) struct Layers {
    path: PathBuf,
    /// Holds the unpacked layers.
    unpacked: OwnedFd,
    /// Holds what is being unpacked.
    staging: OwnedFd,
    staging_path: PathBuf,
    trash: Trash,
    limits: LayerLimits,
    next: AtomicU64,
    present: Mutex<HashMap<Digest, Presence>>,
    /// Told when a layer is unpacked, or given up.
    changed: Condvar,
}

#[derive(Debug)]
enum Presence {
    /// One thread unpacks it; others wait.
    Unpacking,
    /// It lies in its directory.
    Ready { size: u64, users: usize, durable: bool },
}

impl Layers {
    /// Opens the directories below `path`. What lies there without an image that needs it goes to the trash: a crash left
    /// it, and nobody knows whether it is whole. `images` are the layers of each image; the answer tells for each whether
    /// all of its layers are there.
    pub(crate) fn open(
        path: &Path,
        limits: LayerLimits,
        images: &[Vec<(Digest, u64)>],
    ) -> io::Result<(Arc<Self>, Vec<bool>)> {
        let trash = Trash::open(&path.join("trash"))?;
        let staging_path = path.join("tmp");
        let staging = directory::make_private(&staging_path)?;
        for (name, _) in directory::names(staging.as_fd())? {
            trash.take(staging.as_fd(), &name)?;
        }
        let unpacked = directory::make_private(&path.join("layers"))?;
        let mut unclaimed: HashSet<Vec<u8>> =
            directory::names(unpacked.as_fd())?.into_iter().map(|(name, _)| name).collect();
        unclaimed.remove(EMPTY.as_bytes());
        let empty = directory::make_private(&path.join("layers").join(EMPTY))?;
        fchmod(&empty, Mode::from_raw_mode(0o755))?;

        let mut present = HashMap::new();
        let whole: Vec<bool> = images
            .iter()
            .map(|layers| layers.iter().all(|(diff_id, _)| path.join("layers").join(name_of(diff_id)).is_dir()))
            .collect();
        for (diff_id, size) in images.iter().zip(&whole).filter(|(_, whole)| **whole).flat_map(|(layers, _)| layers) {
            unclaimed.remove(name_of(diff_id).as_bytes());
            let layer =
                present.entry(diff_id.clone()).or_insert(Presence::Ready { size: *size, users: 0, durable: true });
            if let Presence::Ready { users, .. } = layer {
                *users += 1;
            }
        }
        for name in &unclaimed {
            trash.take(unpacked.as_fd(), name)?;
        }
        trash.empty_in_background();
        let path = path.to_owned();
        let (next, present, changed) = (AtomicU64::new(0), Mutex::new(present), Condvar::new());
        Ok((Arc::new(Self { path, unpacked, staging, staging_path, trash, limits, next, present, changed }), whole))
    }

    /// Where large things may be put for a while: cleared at the next start.
    pub(crate) fn staging(&self) -> (&Path, &OwnedFd) {
        (&self.staging_path, &self.staging)
    }

    /// The directory of a layer.
    pub(crate) fn directory(&self, diff_id: &Digest) -> PathBuf {
        self.path.join("layers").join(name_of(diff_id))
    }

    /// The directory that has nothing in it.
    pub(crate) fn empty_directory(&self) -> PathBuf {
        self.path.join("layers").join(EMPTY)
    }

    /// The layer that `blob` holds, unpacked now unless it is there. It stays while the answer lives.
    ///
    /// This blocks; it is for threads that may. `blob.reader` is not read if the layer is there already.
    pub(crate) fn ingest(self: &Arc<Self>, blob: LayerBlob<'_>) -> Result<PinnedLayer, LayerError> {
        let Some(diff_id) = blob.diff_id.clone() else { return self.ingest_unknown(blob) };
        if let Some(pinned) = self.pin_or_claim(&diff_id) {
            return Ok(pinned);
        }
        let claim = Claim { layers: self, diff_id: &diff_id, size: None };
        let (staged, unpacked) = self.unpack(blob)?;
        self.publish(claim, &staged, unpacked.size)
    }

    /// A layer that is there. It stays while the answer lives.
    pub(crate) fn pin(self: &Arc<Self>, diff_id: &Digest) -> Option<PinnedLayer> {
        let mut present = self.lock();
        let Some(Presence::Ready { size, users, .. }) = present.get_mut(diff_id) else { return None };
        *users += 1;
        Some(PinnedLayer { layers: Arc::clone(self), diff_id: diff_id.clone(), size: *size, is_kept: false })
    }

    /// Makes all that was unpacked so far durable, if a layer of these is not: once for each image.
    pub(crate) fn make_durable(&self, layers: &[PinnedLayer]) -> io::Result<()> {
        let is_durable = |layer: &PinnedLayer| {
            matches!(self.lock().get(&layer.diff_id), Some(Presence::Ready { durable: true, .. }))
        };
        if layers.iter().all(is_durable) {
            return Ok(());
        }
        syncfs(&self.unpacked)?;
        let mut present = self.lock();
        for layer in layers {
            if let Some(Presence::Ready { durable, .. }) = present.get_mut(&layer.diff_id) {
                *durable = true;
            }
        }
        Ok(())
    }

    /// Gives back what [`PinnedLayer::keep`] took. A layer that nobody uses any more goes to the trash.
    pub(crate) fn release(&self, diff_id: &Digest) {
        let mut present = self.lock();
        let Some(Presence::Ready { users, .. }) = present.get_mut(diff_id) else { return };
        *users = users.saturating_sub(1);
        if *users > 0 {
            return;
        }
        present.remove(diff_id);
        // Under the lock: an ingest of the same layer must find either the whole directory or none.
        let moved = self.trash.take(self.unpacked.as_fd(), name_of(diff_id).as_bytes());
        drop(present);
        match moved {
            Ok(()) => self.trash.empty_in_background(),
            Err(error) => {
                tracing::warn!(layer = %diff_id, %error, "cannot remove a layer; the next start will try again");
            }
        }
    }

    /// The digest of a rootfs is known only when all of it is read.
    fn ingest_unknown(self: &Arc<Self>, blob: LayerBlob<'_>) -> Result<PinnedLayer, LayerError> {
        let (staged, unpacked) = self.unpack(blob)?;
        if let Some(pinned) = self.pin_or_claim(&unpacked.diff_id) {
            return Ok(pinned);
        }
        let claim = Claim { layers: self, diff_id: &unpacked.diff_id, size: None };
        self.publish(claim, &staged, unpacked.size)
    }

    /// Takes the layer if it is there, waits for another thread that unpacks it, or claims it for this thread.
    fn pin_or_claim(self: &Arc<Self>, diff_id: &Digest) -> Option<PinnedLayer> {
        let mut present = self.lock();
        loop {
            match present.get_mut(diff_id) {
                Some(Presence::Ready { size, users, .. }) => {
                    *users += 1;
                    return Some(PinnedLayer {
                        layers: Arc::clone(self),
                        diff_id: diff_id.clone(),
                        size: *size,
                        is_kept: false,
                    });
                }
                Some(Presence::Unpacking) => {
                    present = self.changed.wait(present).unwrap_or_else(PoisonError::into_inner);
                }
                None => {
                    present.insert(diff_id.clone(), Presence::Unpacking);
                    return None;
                }
            }
        }
    }

    fn unpack(&self, blob: LayerBlob<'_>) -> Result<(Staged<'_>, UnpackedLayer), LayerError> {
        let name = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        let path = self.staging_path.join(&name);
        let failed = |source: io::Error| LayerError::Directory { step: "make", path: path.clone(), source };
        let root = directory::make_private(&path).map_err(failed)?;
        let staged = Staged { layers: self, name };
        // A layer may say nothing of its root; it is within a private directory.
        fchmod(&root, Mode::from_raw_mode(0o755)).map_err(|error| failed(error.into()))?;
        let unpacked = unpack_blob(blob, root, &self.limits, &self.trash)?;
        let counts = unpacked.counts;
        if counts.dropped_devices > 0 || counts.dropped_xattrs > 0 {
            let (devices, xattrs) = (counts.dropped_devices, counts.dropped_xattrs);
            tracing::warn!(layer = %unpacked.diff_id, devices, xattrs, "left device nodes or extended attributes of a layer out");
        }
        Ok((staged, unpacked))
    }

    fn publish(
        self: &Arc<Self>,
        mut claim: Claim<'_>,
        staged: &Staged<'_>,
        size: u64,
    ) -> Result<PinnedLayer, LayerError> {
        let diff_id = claim.diff_id.clone();
        let name = name_of(&diff_id);
        let rename =
            || renameat_with(&self.staging, staged.name.as_str(), &self.unpacked, name, RenameFlags::NOREPLACE);
        let renamed = match rename() {
            // It is claimed, so nobody uses what is there: a layer that could not be moved to the trash.
            Err(Errno::EXIST) => self.trash.take(self.unpacked.as_fd(), name.as_bytes()).and_then(|()| rename()),
            renamed => renamed,
        };
        renamed.map_err(|error| LayerError::Directory {
            step: "make",
            path: self.directory(&diff_id),
            source: error.into(),
        })?;
        claim.size = Some(size);
        drop(claim);
        Ok(PinnedLayer { layers: Arc::clone(self), diff_id, size, is_kept: false })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Presence>> {
        // The map is whole at every point where a thread could panic.
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A layer that stays on disk while this lives.
#[derive(Debug)]
pub(crate) struct PinnedLayer {
    layers: Arc<Layers>,
    diff_id: Digest,
    size: u64,
    is_kept: bool,
}

impl PinnedLayer {
    pub(crate) fn diff_id(&self) -> &Digest {
        &self.diff_id
    }

    /// Where it lies.
    pub(crate) fn directory(&self) -> PathBuf {
        self.layers.directory(&self.diff_id)
    }

    /// Bytes of its archive.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Leaves it on disk until [`Layers::release`]: an image has it now.
    pub(crate) fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for PinnedLayer {
    fn drop(&mut self) {
        if !self.is_kept {
            self.layers.release(&self.diff_id);
        }
    }
}

/// The right to unpack one layer. Dropped, it tells all that wait what became of it.
struct Claim<'a> {
    layers: &'a Layers,
    diff_id: &'a Digest,
    /// Set when the layer is in its place.
    size: Option<u64>,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut present = self.layers.lock();
        match self.size {
            Some(size) => present.insert(self.diff_id.clone(), Presence::Ready { size, users: 1, durable: false }),
            None => present.remove(self.diff_id),
        };
        self.layers.changed.notify_all();
    }
}

/// A directory in which a layer is being unpacked. Dropped, what is left of it goes to the trash.
struct Staged<'a> {
    layers: &'a Layers,
    name: String,
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        // It is gone when it became a layer.
        if self.layers.trash.take(self.layers.staging.as_fd(), self.name.as_bytes()).is_ok() {
            self.layers.trash.empty_in_background();
        }
    }
}

fn name_of(diff_id: &Digest) -> &str {
    diff_id.hex().get(..NAME_DIGITS).unwrap_or_else(|| diff_id.hex())
}
