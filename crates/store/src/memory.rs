//! The objects in memory: what `get`, `list` and `watch` answer from.

use std::collections::{BTreeMap, HashMap};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::error::Expired;
use crate::object::{ObjectKey, ObjectList, StoredObject, WatchEvent, WatchKind};
use crate::watch::{Feed, Forgotten, ObjectWatch};

/// All objects at one revision. Only the writer thread changes it, after the change is durable.
#[derive(Debug)]
pub(crate) struct Memory(RwLock<Objects>);

#[derive(Debug)]
struct Objects {
    revision: u64,
    /// The revision at which the store was opened; nothing before it can be watched.
    opened: u64,
    by_key: BTreeMap<ObjectKey, StoredObject>,
    feeds: HashMap<String, Feed>,
}

impl Memory {
    pub(crate) fn new(revision: u64, objects: impl IntoIterator<Item = StoredObject>) -> Self {
        let by_key = objects.into_iter().map(|object| (object.key.clone(), object)).collect();
        Self(RwLock::new(Objects { revision, opened: revision, by_key, feeds: HashMap::new() }))
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
        let mut then: BTreeMap<ObjectKey, StoredObject> =
            objects.of(resource, None).map(|object| (object.key.clone(), object.clone())).collect();
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
        let mut changed: Vec<String> = Vec::new();
        for event in events {
            let key = &event.object.key;
            match event.kind {
                WatchKind::Added | WatchKind::Modified => {
                    objects.by_key.insert(key.clone(), event.object.clone());
                }
                WatchKind::Deleted => {
                    objects.by_key.remove(key);
                }
            }
            if !changed.contains(&key.resource) {
                changed.push(key.resource.clone());
            }
            let resource = key.resource.clone();
            objects.feed(&resource).push(event, &mut forgotten);
        }
        objects.revision = revision;
        for (resource, feed) in &objects.feeds {
            feed.advance(revision, changed.contains(resource));
        }
        forgotten
    }

    fn read(&self) -> RwLockReadGuard<'_, Objects> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Objects> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
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

    fn feed(&mut self, resource: &str) -> &Feed {
        let (opened, revision) = (self.opened, self.revision);
        self.feeds.entry(resource.to_owned()).or_insert_with(|| Feed::new(opened, revision))
    }
}
