//! A copy of what the store holds at one moment, and a store made from such a copy.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use crate::ballast::Ballast;
use crate::batch::Encoder;
use crate::database::Changes;
use crate::directory::Directory;
use crate::error::{OpenStoreError, RestoreError, StoreError};
use crate::object::{ObjectKey, StoredObject, WatchKind};
use crate::open::{fill_objects, remove_unfinished};

/// One thing that the store holds, as it is on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// An object; events are none of them.
    Object {
        /// Its name.
        key: ObjectKey,
        /// When it was written.
        revision: u64,
        /// The object.
        json: Bytes,
    },
    /// A record of what exists on this node.
    Record {
        /// Its kind.
        table: String,
        /// Its name.
        key: String,
        /// The record.
        json: Bytes,
    },
}

/// What a new store is made from.
#[derive(Debug, Default)]
pub struct Copy {
    /// Objects in the order in which they were written.
    pub objects: Vec<(ObjectKey, Value)>,
    /// Table, key and JSON.
    pub records: Vec<(String, String, Bytes)>,
}

/// A directory in which a store is about to be made from a copy; no daemon can use it meanwhile.
#[derive(Debug)]
pub struct Restoring(Directory);

impl Restoring {
    /// Locks `directory`, which must not have a store; what else lies there stays.
    pub fn begin(directory: &Path) -> Result<Self, RestoreError> {
        let directory = Directory::lock(directory)?;
        let path = directory.objects();
        if path.symlink_metadata().is_ok() {
            return Err(RestoreError::Exists { path });
        }
        Ok(Self(directory))
    }

    /// Makes the store. Every object gets a revision of its own above `floor`, so that whoever knew it in another life sees
    /// that it may be another. Answers with the newest one. A crash leaves either no store or all of it.
    pub fn finish(mut self, floor: u64, copy: Copy) -> Result<u64, RestoreError> {
        let mut revision = floor;
        let mut encoder = Encoder::default();
        let mut objects: Vec<StoredObject> = Vec::with_capacity(copy.objects.len());
        for (key, value) in copy.objects {
            revision += 1;
            objects.push(encoder.encode(&Arc::new(key), value, revision, WatchKind::Added)?.finish().0);
        }
        let changes = Changes {
            objects: objects.iter().map(|object| (&*object.key, Some(object))).collect(),
            records: copy
                .records
                .iter()
                .map(|(table, key, json)| (table.as_str(), key.as_str(), Some(&**json)))
                .collect(),
            reserved_revision: Some(revision),
        };
        let access = |path: PathBuf| |cause| OpenStoreError::Access { path, cause };
        let ballast = Ballast::open(&self.0.ballast()).map_err(access(self.0.ballast()))?;
        if let Err(error) = fill_objects(&self.0, &Arc::new(ballast), &changes) {
            remove_unfinished(&self.0);
            return Err(error);
        }
        self.0.mark_in_use().map_err(access(self.0.objects()))?;
        Ok(revision)
    }
}

impl From<StoreError> for RestoreError {
    fn from(error: StoreError) -> Self {
        Self::Content(error)
    }
}
