//! A copy of a store, and the store made from it.

#![cfg(test)]

mod common;

use std::fs;
use std::path::Path;

use common::{content, delete, event, names, open, pod, put};
use serde_json::{Value, json};
use store::{Copy, Entry, ObjectKey, OpenStoreError, RestoreError, Restoring, Store};

fn restore(directory: &Path, floor: u64, copy: Copy) -> Result<u64, RestoreError> {
    Restoring::begin(directory)?.finish(floor, copy)
}

/// All of a store, in the order of writing, and how far it had come.
fn copy_of(store: &Store) -> (Copy, u64) {
    let (mut objects, mut records) = (Vec::new(), Vec::new());
    let revision = store
        .copy(&mut |entry| match entry {
            Entry::Object { key, revision, json } => objects.push((revision, key, json)),
            Entry::Record { table, key, json } => records.push((table, key, json)),
        })
        .unwrap();
    objects.sort_unstable_by_key(|(revision, ..)| *revision);
    let objects = objects.into_iter().map(|(_, key, json)| (key, serde_json::from_slice(&json).unwrap())).collect();
    (Copy { objects, records }, revision)
}

#[tokio::test]
async fn a_restored_store_has_all_and_its_revisions_are_new() {
    let (home, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = open(home.path());
    put(&store, &pod("a"), 1).await;
    put(&store, &ObjectKey::cluster("nodes", "n"), 2).await;
    put(&store, &pod("gone"), 3).await;
    delete(&store, &pod("gone")).await;
    put(&store, &event("e"), 4).await;
    put(&store, &pod("a"), 5).await;
    store.put_record("things", "t", &7).await.unwrap();
    let (copy, revision) = copy_of(&store);
    assert!(revision >= store.revision());
    let seen_later = put(&store, &pod("a"), 6).await.revision;

    let floor = revision + 1000;
    let newest = restore(other.path(), floor, copy).unwrap();
    assert_eq!(newest, floor + 2);
    let restored = open(other.path());
    assert_eq!((names(&restored, "pods"), names(&restored, "events")), (vec!["a".to_owned()], vec![]));
    let (node, a) = (restored.get(&ObjectKey::cluster("nodes", "n")).unwrap(), restored.get(&pod("a")).unwrap());
    assert_eq!((content(&node), content(&a)), (&json!(2), &json!(5)));
    assert_eq!((node.revision, a.revision), (floor + 1, floor + 2), "in the order in which they were written");
    assert_eq!(a.value["metadata"]["resourceVersion"], (floor + 2).to_string());
    assert_eq!(restored.records::<u64>("things").unwrap(), [("t".to_owned(), 7)]);
    // Whoever knows the time before must list anew.
    assert!(restored.watch("pods", Some(seen_later)).is_err());
    assert!(put(&restored, &pod("b"), 1).await.revision > newest);
}

#[tokio::test]
async fn a_copy_is_of_one_moment_while_others_write() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    // Two objects that always say the same but for one.
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            for number in 0..300_u64 {
                put(&store, &pod("first"), number).await;
                put(&store, &pod("second"), number).await;
            }
        }
    });
    let mut looks = 0;
    while !writer.is_finished() {
        let (copy, revision) = copy_of(&store);
        let number = |name: &str| {
            let found = copy.objects.iter().find(|(key, _)| key.name == name);
            found.map(|(_, value): &(ObjectKey, Value)| value["content"].as_u64().unwrap())
        };
        if let (Some(first), Some(second)) = (number("first"), number("second")) {
            assert!(first == second || first == second + 1, "{first} and {second} were never together");
            looks += 1;
        }
        let newest = copy.objects.iter().map(|(_, value)| value["metadata"]["resourceVersion"].as_str().unwrap());
        assert!(newest.map(|text| text.parse::<u64>().unwrap()).all(|one| one <= revision));
        tokio::task::yield_now().await;
    }
    writer.await.unwrap();
    assert!(looks > 0);
}

#[tokio::test]
async fn nothing_is_restored_over_a_store() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    put(&store, &pod("a"), 1).await;
    let error = restore(home.path(), 0, Copy::default()).unwrap_err();
    assert!(matches!(error, RestoreError::Open(OpenStoreError::Locked { .. })), "{error:?}");
    drop(store);
    let error = restore(home.path(), 0, Copy::default()).unwrap_err();
    assert!(matches!(&error, RestoreError::Exists { path } if *path == home.path().join("objects.redb")), "{error:?}");
    assert_eq!(names(&open(home.path()), "pods"), ["a"]);

    // A lost file is what a copy is for, also where half of another attempt lies.
    fs::remove_file(home.path().join("objects.redb")).unwrap();
    fs::write(home.path().join("objects.redb.new"), "half").unwrap();
    let copy = Copy { objects: vec![(pod("b"), json!({"metadata": {}}))], records: Vec::new() };
    restore(home.path(), 10, copy).unwrap();
    assert_eq!(names(&open(home.path()), "pods"), ["b"]);
}

#[test]
fn what_no_store_takes_is_not_restored() {
    let home = tempfile::tempdir().unwrap();
    let copy = Copy { objects: vec![(pod("b"), json!("text"))], records: Vec::new() };
    let error = restore(home.path(), 0, copy).unwrap_err();
    assert!(matches!(error, RestoreError::Content(_)), "{error:?}");
    assert!(!home.path().join("objects.redb").exists());
}
