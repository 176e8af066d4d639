//! How far a pull has come.

use std::sync::{Arc, Mutex, PoisonError};

use spec::Digest;

/// How far a pull has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PullProgress {
    /// Lowest first; empty until the manifest is there.
    pub layers: Vec<LayerProgress>,
}

/// How far a layer has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerProgress {
    /// Of the blob, as the manifest names it.
    pub digest: Digest,
    /// Bytes of the blob.
    pub size: u64,
    /// Bytes that came.
    pub received: u64,
    /// What happens with it.
    pub stage: LayerStage,
}

/// What happens with a layer. Some move straight to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerStage {
    /// Others come first.
    Waiting,
    /// It comes, and is unpacked as it comes.
    Pulling,
    /// It was there already.
    Present,
    /// It is unpacked.
    Pulled,
}

/// Where a pull writes its progress down.
#[derive(Debug, Clone, Default)]
pub(super) struct Board(Arc<Mutex<PullProgress>>);

impl Board {
    pub(super) fn read(&self) -> PullProgress {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_layers(&self, layers: impl Iterator<Item = (Digest, u64)>) {
        let layers =
            layers.map(|(digest, size)| LayerProgress { digest, size, received: 0, stage: LayerStage::Waiting });
        self.0.lock().unwrap_or_else(PoisonError::into_inner).layers = layers.collect();
    }

    pub(super) fn change(&self, place: usize, change: impl FnOnce(&mut LayerProgress)) {
        let mut progress = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(layer) = progress.layers.get_mut(place) {
            change(layer);
        }
    }
}
