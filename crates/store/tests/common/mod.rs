//! What the store's tests share: small objects, and writes that must succeed.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::convert::Infallible;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use store::{Change, ObjectKey, Store, StoreError, StoredObject, WriteError, Written};

pub const SKIPPED: &str = "skipped: needs root";

pub fn open(directory: &Path) -> Store {
    Store::open(directory).unwrap()
}

pub fn pod(name: &str) -> ObjectKey {
    ObjectKey::namespaced("pods", "default", name)
}

pub fn event(name: &str) -> ObjectKey {
    ObjectKey::namespaced("events", "default", name)
}

/// An object as a client would send it.
pub fn object(content: impl Into<Value>) -> Value {
    json!({"metadata": {"labels": {}}, "content": content.into()})
}

/// What [`object`] was made from.
pub fn content(object: &StoredObject) -> &Value {
    &object.value["content"]
}

pub async fn change(store: &Store, key: &ObjectKey, change: Change) -> Result<Written<()>, WriteError<Infallible>> {
    store.write(key.clone(), move |_| Ok((change, ()))).await
}

pub async fn put(store: &Store, key: &ObjectKey, value: impl Into<Value>) -> StoredObject {
    change(store, key, Change::Put(object(value))).await.unwrap().object.unwrap()
}

pub async fn delete(store: &Store, key: &ObjectKey) -> Option<StoredObject> {
    change(store, key, Change::Delete).await.unwrap().object
}

/// Creates an object unless there is one of that name.
pub async fn create(store: &Store, key: &ObjectKey, value: Value) -> Result<StoredObject, WriteError<&'static str>> {
    let decide = move |present: Option<&StoredObject>| match present {
        None => Ok((Change::Put(object(value)), ())),
        Some(_) => Err("already exists"),
    };
    Ok(store.write(key.clone(), decide).await?.object.unwrap())
}

pub fn names(store: &Store, resource: &str) -> Vec<String> {
    store.list(resource, None).objects.into_iter().map(|object| object.key.name.clone()).collect()
}

pub fn is_full<E>(error: &WriteError<E>) -> bool {
    matches!(error, WriteError::Store(StoreError::DiskFull { .. }))
}

/// The files that a store is made of, as they lie there while nothing is written to it: what kill -9 leaves.
pub fn files(directory: &Path) -> Vec<(&'static str, Vec<u8>)> {
    let read = || {
        ["objects.redb", "journal", "acknowledged", "lock"].map(|name| (name, fs::read(directory.join(name)).unwrap()))
    };
    let mut found = read();
    loop {
        // Something may just be on its way from the journal to the objects file, which no kill could show half of.
        let again = read();
        if again == found {
            return found.into();
        }
        found = again;
    }
}
