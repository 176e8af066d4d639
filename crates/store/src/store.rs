//! What callers see: read from memory, write through one door.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;

use crate::batch::{Batch, Place};
use crate::copy::Entry;
use crate::database::DatabaseFile;
use crate::directory::Directory;
use crate::error::{Cause, Expired, OpenStoreError, StoreError, WriteError};
use crate::fake::{FakeDisk, FakeFile};
use crate::jobs::{Jobs, Order};
use crate::memory::Memory;
use crate::object::{Change, MAX_VALUE_BYTES, ObjectKey, ObjectList, StoredObject, Written};
use crate::open::open_store;
use crate::pending::Pending;
use crate::value::take_apart_old_trees;
use crate::watch::{ObjectWatch, ObjectWatches};
use crate::writer::{Answer, Job};

/// An open store. Cheap to clone; it closes when the last clone is dropped, and its watches end.
#[derive(Debug, Clone)]
pub struct Store(Arc<OpenStore>);

/// What all clones share.
#[derive(Debug)]
pub(crate) struct OpenStore {
    pub(crate) memory: Arc<Memory>,
    pub(crate) ground: Ground,
}

/// What makes writes durable.
#[derive(Debug)]
pub(crate) enum Ground {
    /// A directory, with a thread that writes.
    Disk(Disk),
    /// Nothing: a test's.
    Fake(FakeFile),
}

/// The threads share the directory: it is locked until the last of them is done.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) file: Arc<DatabaseFile>,
    pub(crate) pending: Arc<Pending>,
    pub(crate) commits: Arc<AtomicU64>,
    pub(crate) jobs: Arc<Jobs>,
    pub(crate) threads: Vec<JoinHandle<()>>,
    pub(crate) directory: Arc<Directory>,
}

impl Store {
    /// Opens the store in `directory`, or makes it; only one process can have it open. Blocks until every object is in
    /// memory.
    pub fn open(directory: &Path) -> Result<Self, OpenStoreError> {
        Ok(Self(Arc::new(open_store(directory)?)))
    }

    /// An empty store that nothing outlives, for tests: every write is done by its caller, at once, in the order in which
    /// they come, so that a program with one thread always does the same. `disk` may hold writes up and look at them.
    pub fn fake(disk: Arc<dyn FakeDisk>) -> Self {
        let (memory, ground) = (Arc::new(Memory::new(1, [])), Ground::Fake(FakeFile::new(disk)));
        Self(Arc::new(OpenStore { memory, ground }))
    }

    #[cfg(test)]
    pub(crate) fn from_open(open: OpenStore) -> Self {
        Self(Arc::new(open))
    }

    /// The newest revision: everything written up to here is visible.
    pub fn revision(&self) -> u64 {
        self.0.memory.revision()
    }

    /// How many durable commits there were since the store was opened.
    pub fn commits(&self) -> u64 {
        match &self.0.ground {
            Ground::Disk(disk) => disk.commits.load(Ordering::Relaxed),
            Ground::Fake(file) => file.commits(),
        }
    }

    /// One object, as last made durable.
    pub fn get(&self, key: &ObjectKey) -> Option<StoredObject> {
        self.0.memory.get(key)
    }

    /// The objects of a resource, of all namespaces or of one.
    pub fn list(&self, resource: &str, namespace: Option<&str>) -> ObjectList {
        self.0.memory.list(resource, namespace)
    }

    /// The objects of a resource as they were at a revision, as far back as [`Store::watch`] can go.
    pub fn list_at(&self, resource: &str, namespace: Option<&str>, revision: u64) -> Result<ObjectList, Expired> {
        self.0.memory.list_at(resource, namespace, revision)
    }

    /// The changes of a resource after a revision, or from now on.
    ///
    /// No revision is too old that [`Store::list`] has just given. One of before the store was opened is, and so is one
    /// that was never given out.
    pub fn watch(&self, resource: &str, after: Option<u64>) -> Result<ObjectWatch, Expired> {
        self.0.memory.watch(resource, after)
    }

    /// The changes of several resources from now on.
    pub fn watch_all<'a>(&self, resources: impl IntoIterator<Item = &'a str>) -> Result<ObjectWatches, Expired> {
        let watches = resources.into_iter().map(|resource| self.watch(resource, None));
        watches.collect::<Result<_, _>>().map(ObjectWatches::new)
    }

    /// New objects of a resource, each as soon as it has its place among the writes: before it is durable, and before it can be read.
    ///
    /// What is written after such an object is not durable before it. Should the machine or the daemon die now, or the disk fail,
    /// it has never been there: whoever begins with it must do nothing that cannot be undone without it. [`Store::flush`]
    /// waits until it can be read. One listener for each resource: the last one.
    pub fn forthcoming(&self, resource: &str) -> UnboundedReceiver<StoredObject> {
        self.0.memory.forthcoming.of(resource)
    }

    /// Changes one object, the only way to do so: `decide` sees the present one and says what becomes of it. No other
    /// write comes between. Answers when the change is durable and visible.
    ///
    /// `decide` runs on the writer thread, where every write waits for it: it must not block. Its panic is raised here.
    /// A caller that goes away while it waits does not take the write back.
    pub async fn write<T, E>(
        &self,
        key: impl Into<Arc<ObjectKey>>,
        decide: impl FnOnce(Option<&StoredObject>) -> Result<(Change, T), E> + Send + 'static,
    ) -> Result<Written<T>, WriteError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
    {
        self.change(key.into(), decide, Place::Disk).await
    }

    /// The same for what nobody needs after a restart, such as the sign of life of a node: the disk is left in peace, and
    /// a restart finds the object as [`Store::write`] left it last, or not at all.
    pub async fn write_in_memory<T, E>(
        &self,
        key: impl Into<Arc<ObjectKey>>,
        decide: impl FnOnce(Option<&StoredObject>) -> Result<(Change, T), E> + Send + 'static,
    ) -> Result<Written<T>, WriteError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
    {
        self.change(key.into(), decide, Place::Memory).await
    }

    /// The same for several objects, one after the other and made durable together, with a decision each. None of them keeps the others
    /// from being written. All other writes wait for them: they should be few, and small.
    pub async fn write_each<T, E, D>(&self, writes: Vec<(ObjectKey, D)>) -> Vec<Result<Written<T>, WriteError<E>>>
    where
        T: Send + 'static,
        E: Send + 'static,
        D: FnOnce(Option<&StoredObject>) -> Result<(Change, T), E> + Send + 'static,
    {
        take_apart_old_trees();
        let count = writes.len();
        let decided = self.run(move |batch| {
            let decided = writes.into_iter().map(|(key, decide)| decide_on(batch, &Arc::new(key), decide, Place::Disk));
            Ok(decided.collect::<Vec<_>>())
        });
        match decided.await {
            Ok(decided) => decided.into_iter().map(told).collect(),
            Err(error) => (0..count).map(|_| Err(error.clone().into())).collect(),
        }
    }

    async fn change<T, E>(
        &self,
        key: Arc<ObjectKey>,
        decide: impl FnOnce(Option<&StoredObject>) -> Result<(Change, T), E> + Send + 'static,
        place: Place,
    ) -> Result<Written<T>, WriteError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
    {
        take_apart_old_trees();
        told(self.run(move |batch| decide_on(batch, &key, decide, place)).await)
    }

    /// Writes a record of what exists on this node, durably. `table` names its kind, such as `sandboxes`.
    ///
    /// It has its place among the writes when this returns: what is written after that is not durable before it. Whoever
    /// wants to may wait for it later.
    pub fn put_record<T: Serialize>(
        &self,
        table: &'static str,
        key: &str,
        value: &T,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + use<T> {
        self.queue_record(Order::Now, table, key, value)
    }

    /// The same for one that others follow at once: it is taken along by the next write that somebody waits for, or written after a
    /// second. The order of writes stays.
    pub fn put_record_with_next<T: Serialize>(
        &self,
        table: &'static str,
        key: &str,
        value: &T,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + use<T> {
        self.queue_record(Order::Soon, table, key, value)
    }

    fn queue_record<T: Serialize>(
        &self,
        order: Order,
        table: &'static str,
        key: &str,
        value: &T,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + use<T> {
        let queued = encode_record(table, key, value).map(|encoded| {
            let key = key.to_owned();
            self.queue(order, move |batch| batch.put_record(table, key, encoded))
        });
        async move { queued?.await }
    }

    /// The same for what is found out again after a crash that takes the write back, and nobody waits for.
    pub fn put_record_soon<T: Serialize>(&self, table: &'static str, key: &str, value: &T) -> Result<(), StoreError> {
        let (encoded, key) = (encode_record(table, key, value)?, key.to_owned());
        self.put_off(move |batch| batch.put_record(table, key, encoded));
        Ok(())
    }

    /// Removes a record durably; one that is not there is removed already.
    pub async fn delete_record(&self, table: &'static str, key: &str) -> Result<(), StoreError> {
        self.queue(Order::Now, deletion(table, key)).await
    }

    /// The same as [`Store::put_record_soon`] does it: for a record of what is gone.
    pub fn delete_record_soon(&self, table: &'static str, key: &str) {
        self.put_off(deletion(table, key));
    }

    /// Waits until all that was asked for before is durable, also what was put off.
    pub async fn flush(&self) -> Result<(), StoreError> {
        self.run(|_batch| Ok(())).await
    }

    /// All records of a table, sorted by key: those that are durable.
    pub fn records<T: DeserializeOwned>(&self, table: &'static str) -> Result<Vec<(String, T)>, StoreError> {
        let records = match &self.0.ground {
            Ground::Disk(disk) => disk.pending.records(table).map_err(|error| disk.unreadable(error))?,
            Ground::Fake(file) => file.records(table),
        };
        let decoded = records.into_iter().map(|(key, json)| {
            let value = decode(table, &key, &json)?;
            Ok((key, value))
        });
        decoded.collect()
    }

    /// One record.
    pub fn record<T: DeserializeOwned>(&self, table: &'static str, key: &str) -> Result<Option<T>, StoreError> {
        let json = match &self.0.ground {
            Ground::Disk(disk) => disk.pending.record(table, key).map_err(|error| disk.unreadable(error))?,
            Ground::Fake(file) => file.record(table, key),
        };
        json.map(|json| decode(table, key, &json)).transpose()
    }

    /// Hands out all that is on the disk at one moment, and answers with a revision that none given out until then
    /// exceeds. Blocks; writes go on meanwhile.
    pub fn copy(&self, take: &mut dyn FnMut(Entry)) -> Result<u64, StoreError> {
        match &self.0.ground {
            Ground::Disk(disk) => {
                disk.pending.settle()?;
                disk.file.copy(take).map_err(|error| disk.unreadable(error))
            }
            Ground::Fake(file) => Ok(file.copy(&self.0.memory, take)),
        }
    }

    /// Runs `stage` on the writer thread and waits until the batch that it became part of is durable.
    async fn run<R: Send + 'static>(
        &self,
        stage: impl FnOnce(&mut Batch<'_>) -> Result<R, StoreError> + Send + 'static,
    ) -> Result<R, StoreError> {
        self.queue(Order::Now, stage).await
    }

    /// Has `stage` run on the writer thread; what this returns waits until the batch that it became part of is durable.
    fn queue<R, F>(&self, order: Order, stage: F) -> impl Future<Output = Result<R, StoreError>> + Send + use<R, F>
    where
        R: Send + 'static,
        F: FnOnce(&mut Batch<'_>) -> Result<R, StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |batch| {
            let staged = batch.and_then(stage);
            let answer: Answer = Box::new(move |committed| {
                // Nobody to tell if the caller has gone away; the write stands.
                drop(reply.send(committed.and(staged)));
            });
            answer
        });
        let (directory, on_fake) = match &self.0.ground {
            Ground::Disk(disk) => {
                // The answer tells of a writer that is gone.
                disk.jobs.add(order, job);
                (Some(Arc::clone(&disk.directory)), None)
            }
            Ground::Fake(_) => (None, Some((self.clone(), job))),
        };
        async move {
            if let Some((store, job)) = on_fake
                && let Ground::Fake(file) = &store.0.ground
            {
                file.write(&store.0.memory, job).await;
            }
            answer.await.unwrap_or_else(|_gone| {
                let directory = directory.map_or_else(|| "memory".into(), |directory| directory.path.clone());
                Err(StoreError::Closed { directory })
            })
        }
    }

    /// Has a change of records made with the next write, or a second from now.
    fn put_off(&self, stage: impl FnOnce(&mut Batch<'_>) -> Result<(), StoreError> + Send + 'static) {
        let job: Job = Box::new(move |batch| {
            let staged = batch.and_then(stage);
            Box::new(move |committed| {
                if let Err(error) = committed.and(staged) {
                    tracing::warn!(error = &error as &dyn std::error::Error, "a record stays as it was");
                }
            })
        });
        match &self.0.ground {
            Ground::Disk(disk) => disk.jobs.add(Order::Soon, job),
            Ground::Fake(file) => file.write_now(&self.0.memory, job),
        }
    }
}

impl Disk {
    fn unreadable(&self, error: redb::Error) -> StoreError {
        StoreError::Read { path: self.file.path.clone(), cause: Arc::new(error) }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.jobs.close();
        // The last clone may have been inside a write's closure; the writer cannot wait for itself.
        if self.threads.iter().any(|thread| thread.thread().id() == thread::current().id()) {
            return;
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!(directory = %self.directory.path.display(), "a thread of the store panicked");
            }
        }
    }
}

/// What became of a decision: the change that it has led to, its refusal, or its panic.
type Decided<T, E> = thread::Result<Result<Written<T>, E>>;

/// Shows a decision the present object, and stages the change that it asks for.
fn decide_on<T, E>(
    batch: &mut Batch<'_>,
    key: &Arc<ObjectKey>,
    decide: impl FnOnce(Option<&StoredObject>) -> Result<(Change, T), E>,
    place: Place,
) -> Result<Decided<T, E>, StoreError> {
    let present = batch.get(key);
    let decided = catch_unwind(AssertUnwindSafe(|| decide(present.as_ref())));
    Ok(match decided {
        Ok(Ok((change, outcome))) => {
            if change != Change::Keep {
                batch.place(key, place);
            }
            apply(batch, key, change, present).map(|object| Ok(Ok(Written { object, outcome })))?
        }
        Ok(Err(refused)) => Ok(Err(refused)),
        Err(panic) => Err(panic),
    })
}

fn told<T, E>(decided: Result<Decided<T, E>, StoreError>) -> Result<Written<T>, WriteError<E>> {
    match decided? {
        Ok(Ok(written)) => Ok(written),
        Ok(Err(refused)) => Err(WriteError::Refused(refused)),
        Err(panic) => resume_unwind(panic),
    }
}

/// Stages a change; gives the object as [`Written`] tells it.
fn apply(
    batch: &mut Batch<'_>,
    key: &Arc<ObjectKey>,
    change: Change,
    present: Option<StoredObject>,
) -> Result<Option<StoredObject>, StoreError> {
    match (change, present) {
        (Change::Keep, present) => Ok(present),
        (Change::Put(value), present) => batch.put(key, value, present).map(Some),
        (Change::Delete, Some(present)) => batch.delete(present).map(Some),
        (Change::Delete, None) => Ok(None),
    }
}

fn encode_record<T: Serialize>(table: &'static str, key: &str, value: &T) -> Result<Vec<u8>, StoreError> {
    let encoded = serde_json::to_vec(value).map_err(|error| {
        let cause: Cause = Arc::new(error);
        StoreError::Encode { table, key: key.to_owned(), cause }
    })?;
    if encoded.len() > MAX_VALUE_BYTES {
        let what = format!("record {key:?} of {table:?}");
        return Err(StoreError::TooLarge { what, bytes: encoded.len(), limit: MAX_VALUE_BYTES });
    }
    Ok(encoded)
}

fn deletion(table: &'static str, key: &str) -> impl FnOnce(&mut Batch<'_>) -> Result<(), StoreError> + Send + 'static {
    let key = key.to_owned();
    move |batch| {
        batch.delete_record(table, key);
        Ok(())
    }
}

fn decode<T: DeserializeOwned>(table: &'static str, key: &str, json: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(json).map_err(|error| {
        let cause: Cause = Arc::new(error);
        StoreError::Decode { table, key: key.to_owned(), cause }
    })
}
