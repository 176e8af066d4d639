//! Gives back what nobody needs: images that no container uses, when their file system is full, and Pods that have ended,
//! when there are many.

mod images;
mod pods;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use image::{Image, RemoveImageError};
use rustix::fs::statvfs;
use spec::Digest;

use crate::agent::Shared;
use crate::events::EventSubject;

pub(crate) use images::ImageUse;
pub(crate) use pods::collect_pods;

/// How often images are looked at (kubelet, `ImageGCPeriod`).
const PERIOD: Duration = Duration::from_mins(5);

/// When images are removed, as the kubelet's flags say it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ImageGcConfig {
    /// Percent of the file system from which on images go; 100 is never.
    pub high_percent: u8,
    /// Percent down to which they go.
    pub low_percent: u8,
    /// An image that came or was used more lately stays.
    pub min_age: Duration,
}

impl Default for ImageGcConfig {
    fn default() -> Self {
        Self { high_percent: 85, low_percent: 80, min_age: Duration::from_mins(2) }
    }
}

/// Looks at images from time to time.
pub(crate) async fn collect_images(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(PERIOD.min(shared.config.housekeeping_interval.saturating_mul(30))).await;
        let (used, wanted) = match above_threshold(&shared) {
            Ok(Some(found)) => found,
            Ok(None) => {
                note_use(&shared);
                continue;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot tell how full the file system of the images is");
                continue;
            }
        };
        let freed = free(&shared, wanted).await;
        if freed < wanted {
            let node = EventSubject::node(&shared.config.node_name);
            let message = format!(
                "Failed to garbage collect required amount of images. Attempted to free {wanted} bytes, but only found \
                 {freed} bytes eligible to free. The file system is {used} % full."
            );
            shared.events.warning(node, "FreeDiskSpaceFailed", message);
        }
    }
}

/// All that may go, whatever the thresholds: the disk is short. Answers with the bytes.
pub(crate) async fn remove_unused_images(shared: &Shared) -> u64 {
    free(shared, u64::MAX).await
}

/// How full the file system is, in percent, and how many bytes must go; nothing below the threshold.
fn above_threshold(shared: &Shared) -> std::io::Result<Option<(u64, u64)>> {
    let system = statvfs(shared.config.data_dir.join("images"))?;
    let (blocks, free) = (system.f_blocks.max(1), system.f_bavail);
    let used = 100_u64.saturating_sub(free.saturating_mul(100) / blocks);
    let config = shared.config.image_gc;
    if used < u64::from(config.high_percent) || config.high_percent >= 100 {
        return Ok(None);
    }
    let least = blocks.saturating_mul(100_u64.saturating_sub(u64::from(config.low_percent))) / 100;
    Ok(Some((used, least.saturating_sub(free).saturating_mul(system.f_frsize))))
}

fn note_use(shared: &Shared) -> HashSet<Digest> {
    let images = shared.images.list();
    let used: HashSet<Digest> =
        images.iter().map(|image| &image.id).filter(|id| shared.images.is_held(id)).cloned().collect();
    shared.image_use.note(images.iter().map(|image| &image.id), &used, shared.clock.boot());
    used
}

/// Removes images until so many bytes are free: those that were not used for longest first.
///
/// Only what was pulled goes: what somebody has loaded from a file cannot be brought back by anybody else.
async fn free(shared: &Shared, wanted: u64) -> u64 {
    let used = note_use(shared);
    let may_go = |image: &Image| image.pulled && !used.contains(&image.id);
    let candidates: Vec<(Digest, u64)> =
        shared.images.list().into_iter().filter(may_go).map(|image| (image.id, image.size)).collect();
    let mut freed = 0_u64;
    for (id, size) in shared.image_use.oldest(candidates, shared.config.image_gc.min_age, shared.clock.boot()) {
        if freed >= wanted {
            break;
        }
        match shared.images.remove(id.as_str()).await {
            Ok(_) => {
                tracing::info!(image = %id, bytes = size, "removed an unused image");
                freed = freed.saturating_add(size);
            }
            // Somebody began to use it in this moment, or removed it.
            Err(RemoveImageError::Held { .. } | RemoveImageError::NotFound { .. }) => {}
            Err(error) => tracing::warn!(%error, image = %id, "cannot remove an unused image"),
        }
    }
    freed
}
