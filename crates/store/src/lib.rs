//! The durable store: versioned objects with watches, and records of what exists on this node.
//!
//! Every object write goes through one door, [`Store::write`]: a closure sees the present object on the writer
//! thread and says what becomes of it. All writes that are waiting are committed together, and each is answered
//! when it is durable: in the journal, from where it goes to the objects file later. Objects live in memory as well, so that reading them never touches the disk.
//!
//! The store keeps objects and does not judge them: no rule of Kubernetes is in here, but one name: objects of the
//! resource [`EVENTS`] are kept in a file of their own, bounded and cheap.
//!
//! Start reading at `store.rs` (what callers see), then `writer.rs` (one batch from queue to answer).

#![forbid(unsafe_code)]

mod ballast;
mod batch;
mod copy;
mod database;
mod directory;
mod error;
mod events;
mod fake;
mod forthcoming;
mod jobs;
mod journal;
mod memory;
mod object;
mod open;
mod pending;
mod store;
mod value;
mod watch;
mod writer;

pub use ballast::{BALLAST_BYTES, is_full};
pub use copy::{Copy, Entry, Restoring};
pub use error::{Cause, Expired, OpenStoreError, RestoreError, StoreError, WriteError};
pub use events::{EVENTS, EVENTS_KEPT, EVENTS_KEPT_FOR};
pub use fake::FakeDisk;
pub use object::{Change, MAX_VALUE_BYTES, ObjectKey, ObjectList, StoredObject, WatchEvent, WatchKind, Written};
pub use store::Store;
pub use value::ObjectValue;
pub use watch::{HISTORY_BYTES, HISTORY_EVENTS, ObjectWatch, ObjectWatches};
