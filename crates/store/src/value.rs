//! What an object says, as a tree that is made when somebody looks at it.
//!
//! A tree takes eight times the memory of its JSON, and making it most of the time of an open. Most of what a large store holds
//! is only handed out as bytes, and what is read is read soon after it was written. So objects have their JSON alone, and the
//! trees that were made last are kept for whoever looks next, as many as [`TREES_OF_BYTES`] allows.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use bytes::Bytes;
use serde::de::IgnoredAny;
use serde_json::Value;

/// Trees are kept of so much JSON: of some hundred Pods.
const TREES_OF_BYTES: usize = 384 << 10;

/// The trees that were made last, of all objects.
static RECENT: Mutex<Recent> = Mutex::new(Recent { shared: VecDeque::new(), bytes: 0, old: Vec::new() });

/// The content of an object. Clones share the JSON; who looks at one has its tree for as long as they have the clone.
#[derive(Clone)]
pub struct ObjectValue {
    shared: Arc<Shared>,
    tree: OnceLock<Arc<Value>>,
}

/// What all clones know.
struct Shared {
    /// Checked.
    json: Bytes,
    /// While it is a recent one.
    tree: Mutex<Option<Arc<Value>>>,
}

#[derive(Default)]
struct Recent {
    /// The oldest first. Who is gone has no tree any more.
    shared: VecDeque<(Weak<Shared>, usize)>,
    bytes: usize,
    /// Those that newer ones have taken the place of, until somebody takes them apart.
    old: Vec<Arc<Value>>,
}

impl Recent {
    /// Makes room for another one.
    fn add(&mut self, shared: &Arc<Shared>) {
        self.bytes += shared.json.len();
        self.shared.push_back((Arc::downgrade(shared), shared.json.len()));
        while self.bytes > TREES_OF_BYTES
            && let Some((oldest, bytes)) = self.shared.pop_front()
        {
            self.bytes -= bytes;
            self.old.extend(oldest.upgrade().and_then(|oldest| lock(&oldest.tree).take()));
        }
    }
}

/// Forgets all trees but those that somebody looks at.
pub(crate) fn forget_trees() {
    let Recent { shared, old, .. } = std::mem::take(&mut *lock(&RECENT));
    drop(old);
    for shared in shared.into_iter().filter_map(|(shared, _)| shared.upgrade()) {
        drop(lock(&shared.tree).take());
    }
}

/// Takes apart up to two trees that newer ones have taken the place of. That is for whoever makes a new one, by a look or by a
/// write: it gives them the memory, while the writer thread, for which all wait, would only be in their way with that.
pub(crate) fn take_apart_old_trees() {
    let old = {
        let mut recent = lock(&RECENT);
        (recent.old.pop(), recent.old.pop())
    };
    drop(old);
}

impl ObjectValue {
    /// Takes over JSON after a look at all of it.
    pub(crate) fn read(json: Bytes) -> Result<Self, serde_json::Error> {
        // Text first, which is quick and lets the rest be passed over.
        let text = std::str::from_utf8(&json).map_err(serde::de::Error::custom)?;
        serde_json::from_str::<IgnoredAny>(text)?;
        Ok(Self::of_json(json))
    }

    /// What was written as `json`.
    pub(crate) fn of_json(json: Bytes) -> Self {
        Self { shared: Arc::new(Shared { json, tree: Mutex::new(None) }), tree: OnceLock::new() }
    }

    /// The same, for whoever reads it next.
    pub(crate) fn of_both(json: Bytes, tree: Value) -> Self {
        let value = Self::of_json(json);
        *lock(&value.shared.tree) = Some(Arc::new(tree));
        lock(&RECENT).add(&value.shared);
        value
    }

    /// As others get it: without what this one was looked at.
    pub(crate) fn unread(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), tree: OnceLock::new() }
    }

    /// Whether clones find a tree.
    #[cfg(test)]
    pub(crate) fn has_tree(&self) -> bool {
        lock(&self.shared.tree).is_some()
    }

    /// The tree, for whoever makes the next version of it: in this one, which is history soon, nobody finds it any more.
    pub fn take_tree(&self) -> Value {
        let tree = self.tree();
        drop(lock(&self.shared.tree).take());
        Arc::unwrap_or_clone(tree)
    }

    /// The tree, for a moment: unlike a look at the value itself it leaves nothing in it.
    pub fn tree(&self) -> Arc<Value> {
        if let Some(tree) = self.tree.get() {
            return Arc::clone(tree);
        }
        if let Some(tree) = &*lock(&self.shared.tree) {
            return Arc::clone(tree);
        }
        tracing::trace!(bytes = self.shared.json.len(), "an object is read anew");
        // What was passed over is of the right form; numbers and nesting beyond the parser's bounds are not written here.
        let tree = Arc::new(serde_json::from_slice(&self.shared.json).unwrap_or_else(|error| {
            tracing::error!(%error, "an object of the store cannot be read");
            Value::Null
        }));
        if lock(&self.shared.tree).replace(Arc::clone(&tree)).is_none() {
            lock(&RECENT).add(&self.shared);
            take_apart_old_trees();
        }
        tree
    }
}

impl Deref for ObjectValue {
    type Target = Value;

    fn deref(&self) -> &Value {
        self.tree.get_or_init(|| self.tree())
    }
}

impl AsRef<Value> for ObjectValue {
    fn as_ref(&self) -> &Value {
        self
    }
}

impl From<Value> for ObjectValue {
    fn from(value: Value) -> Self {
        Self { tree: OnceLock::from(Arc::new(value)), ..Self::of_json(Bytes::new()) }
    }
}

impl PartialEq for ObjectValue {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl fmt::Debug for ObjectValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_over_is_read_later() {
        let text = r#"{"a": [1, -2.5e3, true, null, "\u00e9\ud83d\ude00"], "b": {"c": ""}}"#;
        let value = ObjectValue::read(Bytes::from_static(text.as_bytes())).unwrap();
        assert!(value.tree.get().is_none() && !value.has_tree());
        assert_eq!(*value, serde_json::from_str::<Value>(text).unwrap());
        assert_eq!(value, ObjectValue::from((*value).clone()));
    }

    #[test]
    fn what_is_not_json_is_not_taken_over() {
        let wrong: [&[u8]; 7] = [b"", b"{", b"{\"a\":}", b"{\"a\":1}x", b"\"\xff\"", b"\"\\q\"", b"\"\x01\""];
        for json in wrong {
            let text = String::from_utf8_lossy(json);
            assert!(serde_json::from_slice::<Value>(json).is_err(), "{text:?}");
            assert!(ObjectValue::read(Bytes::copy_from_slice(json)).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_tree_that_was_taken_is_made_again_for_whoever_looks() {
        let tree = serde_json::json!({"a": [1]});
        let value = ObjectValue::of_both(Bytes::from(tree.to_string()), tree.clone());
        let other = value.clone();
        assert_eq!((value.take_tree(), value.has_tree()), (tree.clone(), false));
        assert_eq!(*other, tree);
        let looks_on = value.tree();
        assert_eq!((other.take_tree(), &*looks_on), (tree.clone(), &tree), "whoever looks keeps it");
    }

    #[test]
    fn trees_are_kept_of_so_much() {
        // Other tests use the same ones, so this one has its own.
        let mut recent = Recent::default();
        let with_tree = |number: usize| {
            let value = ObjectValue::of_json(Bytes::from(format!("{number}{}", " ".repeat(TREES_OF_BYTES / 4 - 1))));
            *lock(&value.shared.tree) = Some(Arc::new(Value::from(number)));
            value
        };
        let values: Vec<ObjectValue> = (1..=6).map(with_tree).collect();
        for value in &values {
            recent.add(&value.shared);
        }
        assert_eq!(
            values.iter().map(ObjectValue::has_tree).collect::<Vec<_>>(),
            [false, false, true, true, true, true]
        );
        assert_eq!((recent.old.len(), recent.bytes), (2, TREES_OF_BYTES));

        // Who looks has it for themselves, whatever others find.
        let looked = values[5].clone();
        assert_eq!(*looked, 6);
        drop(values);
        recent.add(&with_tree(7).shared);
        assert_eq!((*looked == 6, recent.old.len()), (true, 2), "those that are gone had no tree to take");
    }
}
