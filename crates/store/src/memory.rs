//! The objects in memory: what `get`, `list` and `watch` answer from.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::error::Expired;
use crate::forthcoming::Forthcoming;
use crate::object::{ObjectKey, ObjectList, StoredObject, WatchEvent, WatchKind};
use crate::value::forget_trees;
use crate::watch::{Feed, Forgotten, ObjectWatch};

/// All objects at one revision. Only the writer thread changes it, after the change is durable.
#[derive(Debug)]
pub(crate) struct Memory {
    objects: RwLock<Objects>,
    pub(crate) forthcoming: Forthcoming,
}

#[derive(Debug)]
struct Objects {
    revision: u64,
    /// The revision at which the store was opened; nothing before it can be watched.
    opened: u64,
    /// What was the newest revision when it was last looked for what is old.
    looked: u64,
    by_key: BTreeMap<Arc<ObjectKey>, StoredObject>,
    feeds: HashMap<String, Feed>,
}

impl Memory {
    pub(crate) fn new(revision: u64, objects: impl IntoIterator<Item = StoredObject>) -> Self {
        let by_key = objects.into_iter().map(|object| (Arc::clone(&object.key), object)).collect();
        let objects = Objects { revision, opened: revision, looked: revision, by_key, feeds: HashMap::new() };
        Self { objects: RwLock::new(objects), forthcoming: Forthcoming::default() }
    }

    pub(crate) fn revision(&self) -> u64 {
        self.read().revision
    }

    pub(crate) fn get(&self, key: &ObjectKey) -> Option<StoredObject> {
        self.read().by_key.get(key).cloned()
    }

    pub(crate) fn list(&self, resource: &str, namespace: Option<&str>) -> ObjectList {
        let objects = self.read();
        ObjectList { revision: objects.revision, objects: objects.of(resource, namespace).cloned().collect() }
    }

    /// Every object of every resource.
    pub(crate) fn all(&self) -> ObjectList {
        let objects = self.read();
        ObjectList { revision: objects.revision, objects: objects.by_key.values().cloned().collect() }
    }

    pub(crate) fn list_at(&self, resource: &str, namespace: Option<&str>, at: u64) -> Result<ObjectList, Expired> {
        let wanted = |key: &ObjectKey| namespace.is_none_or(|namespace| key.namespace.as_deref() == Some(namespace));
        let objects = self.read();
        if at > objects.revision {
            return Err(Expired { oldest: objects.revision });
        }
        let mut then: BTreeMap<Arc<ObjectKey>, StoredObject> =
            objects.of(resource, None).map(|object| (Arc::clone(&object.key), object.clone())).collect();
        match objects.feeds.get(resource) {
            Some(feed) => feed.take_back(at, &mut then)?,
            // Nothing of it has changed since the store was opened, and nothing before is known.
            None if at < objects.opened => return Err(Expired { oldest: objects.opened }),
            None => {}
        }
        let found = then.into_values().filter(|object| wanted(&object.key));
        Ok(ObjectList { revision: at, objects: found.collect() })
    }

    pub(crate) fn watch(&self, resource: &str, after: Option<u64>) -> Result<ObjectWatch, Expired> {
        let mut objects = self.write();
        let present = objects.revision;
        // Only a store that has been replaced can be behind a client: its place means nothing here.
        let after = after.unwrap_or(present);
        if after > present {
            return Err(Expired { oldest: present });
        }
        objects.feed(resource).watch(after)
    }

    /// Makes durable changes visible, in the order of their revisions, all at once. Gives what is to be dropped when nobody waits.
    pub(crate) fn publish(&self, events: Vec<WatchEvent>, revision: u64) -> Forgotten {
        let mut forgotten = Forgotten::new();
        let mut objects = self.write();
        for event in events {
            match event.kind {
                WatchKind::Added | WatchKind::Modified => {
                    objects.by_key.insert(Arc::clone(&event.object.key), event.object.clone());
                }
                WatchKind::Deleted => {
                    objects.by_key.remove(&event.object.key);
                }
            }
            let feed = objects.feed(&event.object.key.resource);
            feed.changed = true;
            feed.push(event, &mut forgotten);
        }
        objects.revision = revision;
        for feed in objects.feeds.values_mut() {
            feed.advance(revision);
        }
        forgotten
    }

    /// Takes the memory back that only what was there at the last call can spare: changes beyond what always is kept of them; and
    /// all trees of objects. Says whether something has been written since then, which is to be looked at again.
    pub(crate) fn trim(&self) -> bool {
        forget_trees();
        let mut forgotten = Forgotten::new();
        let mut objects = self.write();
        let (old, revision) = (objects.looked, objects.revision);
        for feed in objects.feeds.values() {
            feed.trim(old, &mut forgotten);
        }
        objects.looked = revision;
        drop(objects);
        revision > old
    }

    fn read(&self) -> RwLockReadGuard<'_, Objects> {
        self.objects.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Objects> {
        self.objects.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Objects {
    fn of<'a>(&'a self, resource: &'a str, namespace: Option<&'a str>) -> impl Iterator<Item = &'a StoredObject> {
        let first =
            ObjectKey { resource: resource.to_owned(), namespace: namespace.map(str::to_owned), name: String::new() };
        let wanted = move |key: &ObjectKey| {
            key.resource == resource && namespace.is_none_or(|namespace| key.namespace.as_deref() == Some(namespace))
        };
        self.by_key.range(first..).take_while(move |(key, _)| wanted(key)).map(|(_, object)| object)
    }

    fn feed(&mut self, resource: &str) -> &mut Feed {
        let (opened, revision) = (self.opened, self.revision);
        self.feeds.entry(resource.to_owned()).or_insert_with(|| Feed::new(opened, revision))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::batch::Encoder;
    use crate::watch::{HISTORY_BYTES, HISTORY_EVENTS};

    fn key(number: u64) -> Arc<ObjectKey> {
        ObjectKey::namespaced("pods", "default", format!("pod-{number}")).into()
    }

    fn publish(memory: &Memory, number: u64, size: usize) {
        let revision = memory.revision() + 1;
        let value = json!({"metadata": {}, "content": [number, "x".repeat(size)]});
        let mut encoder = Encoder::default();
        let key = key(number);
        let (object, line) = encoder.encode(&key, value, revision, WatchKind::Added).unwrap().finish();
        let previous = memory.get(&key);
        memory.publish(vec![WatchEvent { kind: WatchKind::Added, object, previous, line }], revision);
    }

    /// How many changes can be read.
    fn kept(memory: &Memory) -> usize {
        let oldest = match memory.watch("pods", Some(0)) {
            Err(expired) => expired.oldest,
            Ok(_) => 0,
        };
        usize::try_from(memory.revision() - oldest).unwrap()
    }

    #[test]
    fn a_burst_is_kept_for_a_while() {
        let memory = Memory::new(0, []);
        for number in 0..=HISTORY_EVENTS as u64 {
            publish(&memory, number, 10);
        }
        assert_eq!(kept(&memory), HISTORY_EVENTS);
        assert!(memory.trim(), "all of it may be young");
        for number in 0..1000 {
            publish(&memory, number, 10);
        }
        assert_eq!(kept(&memory), HISTORY_EVENTS);
        assert!(memory.trim(), "those of the last time are old now, but not the others");
        assert_eq!(kept(&memory), 2048);
        assert!(!memory.trim());
        assert_eq!(kept(&memory), 2048);

        // The same by size.
        let large = 64 << 10;
        for number in 0..400 {
            publish(&memory, number, large);
        }
        assert!((HISTORY_BYTES / large - 2..HISTORY_BYTES / large).contains(&kept(&memory)), "{}", kept(&memory));
        assert!(memory.trim() && !memory.trim());
        assert!((30..32).contains(&kept(&memory)), "{}", kept(&memory));
    }

    #[test]
    fn what_is_kept_has_no_trees_of_its_own_and_all_can_be_read() {
        let memory = Memory::new(0, []);
        for number in [0, 1, 0] {
            publish(&memory, number, 10);
        }
        let changes = || ready(memory.watch("pods", Some(0)).unwrap().next_of(1000));
        for event in changes() {
            let looked = event.object.clone();
            assert_eq!(*looked.value, serde_json::from_slice::<serde_json::Value>(&looked.json).unwrap());
        }
        let changes = changes();
        let previous = changes[2].previous.as_ref().unwrap();
        assert!(previous.value == changes[0].object.value && memory.get(&key(1)).unwrap().value.is_object());
        assert!(memory.trim());
        assert!(memory.list("pods", None).objects.iter().all(|object| !object.value.has_tree()));
    }

    fn ready<T>(future: impl Future<Output = Option<T>>) -> T {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::pin!(future).poll(&mut context) {
            std::task::Poll::Ready(Some(value)) => value,
            _ => panic!("nothing is there"),
        }
    }
}
