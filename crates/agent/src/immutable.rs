//! `ConfigMap`s and Secrets that say of themselves that they never change: what they said when a pod first read them stands
//! for as long as a pod of this node uses them, whatever becomes of their names in the API meanwhile.
//!
//! As with the kubelet, which stops its watch of such an object: a pod that is started anew finds it even if it was
//! deleted, and another object that came under its name is seen once all its users are gone, or by the next daemon.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use spec::PodUid;
use spec::ordered::set_of;
use store::{ObjectKey, Store, StoredObject};

#[derive(Debug, Default)]
pub(crate) struct ImmutableObjects(Mutex<HashMap<ObjectKey, Kept>>);

#[derive(Debug)]
struct Kept {
    object: StoredObject,
    users: BTreeSet<PodUid>,
}

impl ImmutableObjects {
    /// The object as this pod is to see it.
    pub(crate) fn read(&self, store: &Store, key: &ObjectKey, user: &PodUid) -> Option<StoredObject> {
        let mut kept = self.lock();
        if let Some(kept) = kept.get_mut(key) {
            if !kept.users.contains(user) {
                kept.users.insert(user.clone());
            }
            return Some(kept.object.clone());
        }
        let object = store.get(key)?;
        if object.value.get("immutable").and_then(serde_json::Value::as_bool) == Some(true) {
            kept.insert(key.clone(), Kept { object: object.clone(), users: set_of([user.clone()]) });
        }
        Some(object)
    }

    /// Whether nobody has to look at the object again.
    pub(crate) fn is_kept(&self, key: &ObjectKey) -> bool {
        self.lock().contains_key(key)
    }

    /// The pod uses nothing any more.
    pub(crate) fn leave(&self, user: &PodUid) {
        self.lock().retain(|_, kept| !kept.users.remove(user) || !kept.users.is_empty());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectKey, Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
