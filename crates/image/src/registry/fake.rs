//! A registry without a network, for tests: it takes its time, and fails, as it is told to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use spec::image_ref::ImageReference;

use super::error::PullCause;
use crate::catalog::Image;
use crate::image_store::ImageStore;

/// How pulls of an image go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FakePull {
    /// It comes after a while. The store has it: what is pulled is that it is still the newest.
    Succeeds(Duration),
    /// Nothing comes of it, after a while.
    Fails(Duration),
}

/// The registry. A clone is the same.
#[derive(Debug, Clone, Default)]
pub struct FakeRegistry(Arc<Mutex<BTreeMap<String, FakePull>>>);

impl FakeRegistry {
    /// How pulls of that image go from now on. Without this they are over at once.
    pub fn answer(&self, reference: &str, how: FakePull) {
        self.lock().insert(reference.to_owned(), how);
    }

    /// All pulls are over at once.
    pub fn heal(&self) {
        self.lock().clear();
    }

    pub(super) async fn pull(&self, images: &ImageStore, reference: &ImageReference) -> Result<Image, PullCause> {
        let name = reference.canonical();
        let script = self.lock().iter().find(|(known, _)| name.ends_with(known.as_str())).map(|(_, how)| *how);
        let (takes, fails) = match script {
            None => (Duration::ZERO, false),
            Some(FakePull::Succeeds(takes)) => (takes, false),
            Some(FakePull::Fails(takes)) => (takes, true),
        };
        if !takes.is_zero() {
            tokio::time::sleep(takes).await;
        }
        let present = images.resolve(&name).ok().flatten().filter(|_| !fails);
        present.ok_or_else(|| PullCause::NotFound {
            what: format!("manifest of {name}"),
            registry: "the fake registry".to_owned(),
            detail: "it was told so".to_owned(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, FakePull>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
