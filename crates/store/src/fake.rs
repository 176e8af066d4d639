//! A store without a disk and without a thread, for tests that must do the same every time.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::ballast::Room;
use crate::batch::{Batch, Encoder};
use crate::copy::Entry;
use crate::events::EVENTS;
use crate::memory::Memory;
use crate::object::{ObjectKey, WatchEvent};
use crate::writer::Job;

/// What stands in for the disk of a store in memory.
pub trait FakeDisk: Debug + Send + Sync + 'static {
    /// Before a write, and again after it: may hold up whoever writes.
    fn turn(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;

    /// Whether it is full now: only deletes are possible then.
    fn is_full(&self) -> bool;

    /// These changes have become durable, and visible.
    fn written(&self, changes: &[WatchEvent]);
}

/// The records, which the objects file holds otherwise.
#[derive(Debug)]
pub(crate) struct FakeFile {
    records: Mutex<BTreeMap<(&'static str, String), Vec<u8>>>,
    commits: AtomicU64,
    disk: Arc<dyn FakeDisk>,
}

impl FakeFile {
    pub(crate) fn new(disk: Arc<dyn FakeDisk>) -> Self {
        Self { records: Mutex::default(), commits: AtomicU64::new(0), disk }
    }

    pub(crate) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    pub(crate) fn records(&self, table: &str) -> Vec<(String, Vec<u8>)> {
        let of_table = |(key, value): (&(&str, String), &Vec<u8>)| {
            let (of, key) = key;
            (*of == table).then(|| (key.clone(), value.clone()))
        };
        self.lock().iter().filter_map(of_table).collect()
    }

    pub(crate) fn record(&self, table: &str, key: &str) -> Option<Vec<u8>> {
        let records = self.lock();
        records.iter().find(|((of, own), _)| *of == table && own == key).map(|(_, value)| value.clone())
    }

    /// All objects but events, then all records; gives the newest revision.
    pub(crate) fn copy(&self, memory: &Memory, take: &mut dyn FnMut(Entry)) -> u64 {
        let list = memory.all();
        for object in list.objects.into_iter().filter(|object| object.key.resource != EVENTS) {
            take(Entry::Object { key: ObjectKey::clone(&object.key), revision: object.revision, json: object.json });
        }
        for ((table, key), json) in self.lock().iter() {
            take(Entry::Record { table: (*table).to_owned(), key: key.clone(), json: json.clone().into() });
        }
        list.revision
    }

    /// A batch of one write.
    pub(crate) async fn write(&self, memory: &Memory, job: Job) {
        self.disk.turn().await;
        self.write_now(memory, job);
        self.disk.turn().await;
    }

    /// The same without a turn.
    pub(crate) fn write_now(&self, memory: &Memory, job: Job) {
        let mut kept = self.lock();
        let room = if self.disk.is_full() { Room::Last } else { Room::Ample };
        let mut encoder = Encoder::default();
        let mut batch = Batch::new(memory, Path::new("memory"), memory.revision(), room, &mut encoder);
        let answer = job(Ok(&mut batch));
        let Batch { events, records, revision, .. } = batch;
        memory.forthcoming.tell(&events);
        for (table, key, value) in records {
            match value {
                Some(value) => drop(kept.insert((table, key), value)),
                None => drop(kept.remove(&(table, key))),
            }
        }
        self.commits.fetch_add(1, Ordering::Relaxed);
        memory.publish(events.clone(), revision);
        self.disk.written(&events);
        answer(Ok(()));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(&'static str, String), Vec<u8>>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use serde_json::json;

    use super::*;
    use crate::{Change, Store, StoreError, WriteError};

    #[derive(Debug, Default)]
    struct Disk {
        full: AtomicBool,
        written: Mutex<Vec<u64>>,
    }

    impl FakeDisk for Disk {
        fn turn(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
            Box::pin(std::future::ready(()))
        }
        fn is_full(&self) -> bool {
            self.full.load(Ordering::Relaxed)
        }
        fn written(&self, changes: &[WatchEvent]) {
            self.written.lock().unwrap().extend(changes.iter().map(|change| change.object.revision));
        }
    }

    #[tokio::test]
    async fn writes_are_there_at_once_and_a_full_disk_takes_deletes_only() {
        let disk = Arc::new(Disk::default());
        let store = Store::fake(Arc::clone(&disk) as _);
        let key = ObjectKey::namespaced("pods", "default", "web");
        let mut watch = store.watch("pods", None).unwrap();
        store.write(key.clone(), |_| Ok::<_, ()>((Change::Put(json!({"a": 1})), ()))).await.unwrap();
        store.put_record("things", "b", &2).await.unwrap();
        assert_eq!(watch.next().await.unwrap().object, store.get(&key).unwrap());
        assert_eq!(store.records::<i32>("things").unwrap(), [("b".to_owned(), 2)]);
        assert_eq!(store.record::<i32>("things", "b").unwrap(), Some(2));
        assert_eq!(store.record::<i32>("others", "b").unwrap(), None);

        disk.full.store(true, Ordering::Relaxed);
        let refused = store.write(key.clone(), |_| Ok::<_, ()>((Change::Put(json!({"a": 2})), ()))).await;
        assert!(matches!(refused, Err(WriteError::Store(StoreError::DiskFull { .. }))), "{refused:?}");
        assert!(matches!(store.put_record("things", "b", &3).await, Err(StoreError::DiskFull { .. })));
        store.delete_record("things", "b").await.unwrap();
        store.write(key.clone(), |_| Ok::<_, ()>((Change::Delete, ()))).await.unwrap();
        assert_eq!((store.get(&key), store.records::<i32>("things").unwrap()), (None, vec![]));
        assert_eq!(*disk.written.lock().unwrap(), [2, 3]);
    }
}
