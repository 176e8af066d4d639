//! The files of a store: who may open them, and what a lost, damaged or newer one leads to.

#![cfg(test)]

mod common;

use std::error::Error;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use common::{event, names, open, pod, put};
use redb::TableDefinition;
use store::{BALLAST_BYTES, OpenStoreError, Store};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test]
async fn only_one_store_is_open_in_a_directory() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("store");
    let store = open(&directory);
    let clone = store.clone();
    drop(store);
    let error = Store::open(&directory).unwrap_err();
    let expected = format!("another monopod daemon holds the store directory {}", directory.display());
    assert_eq!(error.to_string(), expected);
    drop(clone);
    open(&directory);
}

#[tokio::test]
async fn nobody_else_may_read_the_files() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("a/store");
    drop(open(&directory));
    let files = || fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<PathBuf>>();
    let mut found: Vec<_> = files().iter().map(|path| path.file_name().unwrap().to_owned()).collect();
    found.sort_unstable();
    assert_eq!(found, ["acknowledged", "ballast", "events.redb", "journal", "lock", "objects.redb"]);
    assert_eq!(fs::metadata(directory.join("ballast")).unwrap().len(), BALLAST_BYTES);

    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
    for path in files() {
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    }
    let _store = open(&directory);
    assert_eq!(mode(&directory), 0o700);
    for path in files() {
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}

type Damage = fn(&mut Vec<u8>);

/// Ways in which a file can be spoilt.
fn damages() -> Vec<(&'static str, Damage)> {
    vec![
        ("empty", |bytes| bytes.clear()),
        ("cut to half", |bytes| bytes.truncate(bytes.len() / 2)),
        ("cut to a few bytes", |bytes| bytes.truncate(100)),
        ("another kind of file", |bytes| *bytes = b"apiVersion: v1\n".repeat(1000)),
        ("all zeros", |bytes| bytes.fill(0)),
        ("zeros from the second page on", |bytes| bytes[4096..].fill(0)),
        ("a header of ones", |bytes| bytes[..512].fill(0xff)),
        ("one letter of an object is another", |bytes| {
            let needle = b"the content of it";
            let found: Vec<_> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(needle)).collect();
            assert!(!found.is_empty());
            for at in found {
                bytes[at] = b'T';
            }
        }),
    ]
}

#[tokio::test]
async fn a_damaged_objects_file_is_named_and_left_alone() {
    for (what, damage) in damages() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("objects.redb");
        put(&open(home.path()), &pod("a"), "the content of it").await;
        let mut bytes = fs::read(&path).unwrap();
        damage(&mut bytes);
        fs::write(&path, &bytes).unwrap();

        for attempt in ["first", "second"] {
            let error = match Store::open(home.path()) {
                Ok(store) => panic!("{what}: opened at the {attempt} attempt with {:?}", store.list("pods", None)),
                Err(error) => error,
            };
            assert!(
                matches!(&error, OpenStoreError::Damaged { path: named, .. } if *named == path),
                "{what}: {error:?}"
            );
            assert!(error.to_string().contains(&path.display().to_string()), "{what}: {error}");
            assert!(error.source().is_some(), "{what}");
            assert_eq!(fs::metadata(&path).unwrap().len(), bytes.len() as u64, "{what}: {attempt}");
        }
    }
}

#[tokio::test]
async fn a_lost_objects_file_is_not_made_anew() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("objects.redb");
    put(&open(home.path()), &pod("a"), 1).await;
    let bytes = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    for _ in 0..2 {
        let error = Store::open(home.path()).unwrap_err();
        assert!(matches!(&error, OpenStoreError::Missing { path: named } if *named == path), "{error:?}");
    }
    fs::write(&path, bytes).unwrap();
    assert_eq!(names(&open(home.path()), "pods"), ["a"]);
}

#[tokio::test]
async fn half_a_new_objects_file_is_made_again() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("objects.redb.new"), "half").unwrap();
    put(&open(home.path()), &pod("a"), 1).await;
    assert!(!home.path().join("objects.redb.new").exists());
    assert_eq!(names(&open(home.path()), "pods"), ["a"]);
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("objects.redb");
    put(&open(home.path()), &pod("a"), 1).await;
    let set_schema = |version: u64| {
        let database = redb::Database::open(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(TableDefinition::<&str, u64>::new("meta")).unwrap().insert("schema", version).unwrap();
        transaction.commit().unwrap();
    };
    set_schema(2);
    let error = Store::open(home.path()).unwrap_err();
    let expected = "has schema version 2, but this monopod knows only up to 1; use a newer monopod";
    assert!(error.to_string().ends_with(expected), "{error}");
    set_schema(1);
    assert_eq!(names(&open(home.path()), "pods"), ["a"]);
}

#[tokio::test]
async fn a_redb_file_that_is_not_ours_is_not_made_ours() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("objects.redb");
    drop(open(home.path()));
    fs::remove_file(&path).unwrap();
    drop(redb::Database::create(&path).unwrap());
    let error = Store::open(home.path()).unwrap_err();
    assert!(matches!(&error, OpenStoreError::Damaged { path: named, .. } if *named == path), "{error:?}");
    assert_eq!(error.source().unwrap().to_string(), "it has no schema version");
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_is_named() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Store::open(&file.join("store")).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot make the store directory {}", file.join("store").display()));
}

#[tokio::test]
async fn a_damaged_events_file_costs_the_events_alone() {
    for (what, damage) in damages() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("events.redb");
        let store = open(home.path());
        put(&store, &pod("a"), 1).await;
        put(&store, &event("old"), "the content of it").await;
        drop(store);
        let mut bytes = fs::read(&path).unwrap();
        damage(&mut bytes);
        fs::write(&path, &bytes).unwrap();

        let store = open(home.path());
        assert_eq!(names(&store, "pods"), ["a"], "{what}");
        assert_eq!(names(&store, "events"), Vec::<String>::new(), "{what}");
        if !bytes.is_empty() {
            let aside = fs::metadata(home.path().join("events.redb.damaged")).unwrap();
            assert_eq!(aside.len(), bytes.len() as u64, "{what}");
        }
        put(&store, &event("new"), 2).await;
        drop(store);
        assert_eq!(names(&open(home.path()), "events"), ["new"], "{what}");
    }
}

#[tokio::test]
async fn without_an_events_file_events_are_kept_in_memory() {
    let home = tempfile::tempdir().unwrap();
    drop(open(home.path()));
    let path = home.path().join("events.redb");
    fs::remove_file(&path).unwrap();
    // Neither can it be opened nor its damaged predecessor replaced.
    fs::create_dir_all(path.join("in the way")).unwrap();
    fs::create_dir_all(home.path().join("events.redb.damaged/in the way")).unwrap();

    let store = open(home.path());
    put(&store, &pod("a"), 1).await;
    let mut watch = store.watch("events", None).unwrap();
    let written = put(&store, &event("e"), 1).await;
    assert_eq!(watch.next().await.unwrap().object, written);
    assert_eq!(names(&store, "events"), ["e"]);
    drop(store);
    let store = open(home.path());
    assert!(store.revision() >= written.revision);
    assert_eq!((names(&store, "pods").len(), names(&store, "events").len()), (1, 0));
}
