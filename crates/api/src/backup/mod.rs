//! A door beside Kubernetes' paths: all that a daemon on another machine would need to be this one.
//!
//! In it: the objects, the records of what runs, the certificate authority, the key that signs tokens. Not in it: images,
//! volumes, logs, events, and what containers have written. It holds every Secret and every key, so it is for
//! administrators alone, whatever roles say of paths.

mod archive;

use std::path::Path;
use std::sync::Arc;

use http::{Method, StatusCode};
use spec::Timestamp;
use store::Store;

use crate::access::{Identity, MASTERS};
use crate::context::Context;
use crate::http::reply::{Reply, whole};
use crate::http::status::ApiError;

pub use archive::{Backup, BackupError, Manifest, read_backup};

/// What is state beside the store, below the data directory; these files are private.
const FILES: [&str; 3] = ["authority/ca.key", "authority/ca.crt", "service-accounts.key"];

/// How far revisions go ahead with a restore at least: more than a store can have given out in days. etcd's own advice is
/// as much (etcdutl snapshot restore --bump-revision).
const LEAP: u64 = 1_000_000_000;

/// How many revisions a second a store might have given out since the backup: more than any disk takes.
const REVISIONS_PER_SECOND: u64 = 100_000;

/// Answers with the archive.
pub async fn answer(context: &Arc<Context>, identity: &Identity, method: &Method) -> Result<Reply, ApiError> {
    if *method != Method::GET {
        return Err(ApiError::method_not_allowed());
    }
    if !identity.is_in(MASTERS) {
        let why = format!("forbidden: User {:?} cannot take a backup: it needs the group {MASTERS:?}", identity.name);
        return Err(ApiError::plain(StatusCode::FORBIDDEN, "Forbidden", why));
    }
    let context = Arc::clone(context);
    let taken = tokio::task::spawn_blocking(move || {
        let manifest = Manifest::new(&context.version, &context.node_name, Context::now());
        take(&context.store, &context.data_dir, manifest)
    });
    let archive = taken.await.map_err(|panicked| ApiError::internal(&panicked))?;
    let archive = archive.map_err(|error| ApiError::internal(&error))?;
    Ok(whole(StatusCode::OK, "application/x-tar", archive))
}

/// The archive, whole in memory, so that a slow client holds up nothing of the store.
fn take(store: &Store, data_dir: &Path, mut manifest: Manifest) -> Result<Vec<u8>, BackupError> {
    let mut archive = archive::Writer::default();
    manifest.revision = archive.add_store(store)?;
    for name in FILES {
        let path = data_dir.join(name);
        let content = std::fs::read(&path).map_err(|cause| BackupError::ReadState { path, cause })?;
        archive.add_file(name, &content);
    }
    archive.finish(&manifest)
}

/// The revision above which a store begins that is restored at `now`: nobody has seen one above it, however long the
/// store has lived on after the backup, or another one that was restored from the same.
pub fn floor_after(manifest: &Manifest, now: Timestamp) -> u64 {
    let seconds = u64::try_from(now.duration_since(manifest.taken).as_secs()).unwrap_or(0);
    manifest.revision.saturating_add(LEAP).saturating_add(seconds.saturating_mul(REVISIONS_PER_SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_restore_begins_above_an_earlier_one() {
        let taken: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut manifest = Manifest::new("0.1.0", "n1", taken);
        manifest.revision = 500;
        let at = |text: &str| floor_after(&manifest, text.parse().unwrap());
        assert_eq!(at("2026-01-01T00:00:00Z"), 1_000_000_500);
        assert_eq!(at("2026-01-01T00:01:00Z"), 1_006_000_500);
        // A clock that was set back takes nothing away.
        assert_eq!(at("2025-01-01T00:00:00Z"), 1_000_000_500);
        // Clients take a revision as a signed number of 64 bits.
        assert!(at("2126-01-01T00:00:00Z") < i64::MAX.unsigned_abs());
    }
}
