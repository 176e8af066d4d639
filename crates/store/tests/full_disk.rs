//! A full disk: nothing new, but deletes work, also while somebody else takes every byte that becomes free.
//!
//! Runs on a small tmpfs in a mount namespace of its own, so it needs root.

#![cfg(test)]

mod common;

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{SKIPPED, change, content, create, delete, event, files, is_full, names, object, open, pod, put};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::json;
use store::{BALLAST_BYTES, Change, StoreError, WriteError};

/// Set in the process that has a mount namespace of its own: where the tmpfs goes.
const DISK: &str = "STORE_FULL_DISK";
const PODS: u64 = 300;

#[test]
fn on_a_full_disk_deletes_still_work() {
    in_own_mount_namespace("on_a_full_disk_deletes_still_work", |disk| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(fill_and_empty(disk));
    });
}

async fn fill_and_empty(disk: &Path) {
    let directory = disk.join("store");
    let store = open(&directory);
    let name = |number| format!("pod-{number:03}");
    for number in 0..PODS {
        put(&store, &pod(&name(number)), json!([number, "x".repeat(10_000)])).await;
        store.put_record("sandboxes", &name(number), &"y".repeat(1_000)).await.unwrap();
    }
    let mut rival = Rival::new(disk);
    rival.take_all();

    // Whatever space the files had left is used up; then there is a clear word, and no failure.
    let mut created = 0;
    let refused = loop {
        match create(&store, &pod(&format!("new-{created}")), json!("z".repeat(100_000))).await {
            Ok(_) => created += 1,
            Err(error) => break error,
        }
        rival.take_all();
        assert!(created < 1_000);
    };
    assert!(is_full(&refused), "{refused:?}");
    let expected =
        format!("no space left on the disk of {}: only deletes are possible until there is room", directory.display());
    assert_eq!(refused.to_string(), expected);
    assert!(ballast(&directory) < BALLAST_BYTES, "the disk was not full");

    // What is there may change, as it does on its way to being deleted.
    let marked = put(&store, &pod(&name(0)), json!(["marked", "x".repeat(10_000)])).await;
    assert_eq!(content(&marked)[0], "marked");
    store.put_record("sandboxes", &name(0), &"stopped").await.unwrap();
    put(&store, &event("seen"), 1).await;

    for number in 0..PODS / 2 {
        delete(&store, &pod(&name(number))).await.unwrap();
        store.delete_record("sandboxes", &name(number)).await.unwrap();
        rival.take_all();
    }
    let left = names(&store, "pods");
    assert_eq!(left.len() as u64, PODS / 2 + created);
    drop(store);
    rival.take_all();

    let store = open(&directory);
    assert_eq!(names(&store, "pods"), left);
    assert_eq!(store.records::<String>("sandboxes").unwrap().len() as u64, PODS / 2);
    assert!(is_full(&create(&store, &pod("still-full"), json!(1)).await.unwrap_err()));
    for number in PODS / 2..PODS {
        delete(&store, &pod(&name(number))).await.unwrap();
        store.delete_record("sandboxes", &name(number)).await.unwrap();
        rival.take_all();
    }
    assert_eq!(names(&store, "pods").len() as u64, created);

    rival.give_back();
    put(&store, &pod("room-again"), 1).await;
    assert_eq!(ballast(&directory), BALLAST_BYTES);
    drop(store);
    assert!(names(&open(&directory), "pods").contains(&"room-again".to_owned()));
}

#[test]
fn updates_stop_at_half_of_the_reserve_and_deletes_go_on() {
    in_own_mount_namespace("updates_stop_at_half_of_the_reserve_and_deletes_go_on", |disk| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(grow_on_a_full_disk(disk));
    });
}

async fn grow_on_a_full_disk(disk: &Path) {
    let directory = disk.join("store");
    let store = open(&directory);
    for number in 0..40 {
        put(&store, &pod(&number.to_string()), number).await;
    }
    let mut rival = Rival::new(disk);
    rival.take_all();
    let mut grown = 0;
    // Each grows to half a megabyte: together more than the reserve has.
    let refused = loop {
        let value = Change::Put(object("x".repeat(500_000)));
        match change(&store, &pod(&grown.to_string()), value).await {
            Ok(_) => grown += 1,
            Err(error) => break error,
        }
        rival.take_all();
    };
    assert!(is_full(&refused), "{refused:?}");
    assert!((1..40).contains(&grown), "{grown}");
    assert!((1..BALLAST_BYTES / 2).contains(&ballast(&directory)), "{} bytes are left", ballast(&directory));
    assert!(matches!(store.put_record("t", "k", &1).await, Err(StoreError::DiskFull { .. })));
    for number in 0..40 {
        delete(&store, &pod(&number.to_string())).await.unwrap();
        rival.take_all();
    }
    assert!(names(&store, "pods").is_empty());
}

#[test]
fn a_store_opens_on_a_disk_that_was_full_from_the_start() {
    in_own_mount_namespace("a_store_opens_on_a_disk_that_was_full_from_the_start", |disk| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let directory = disk.join("store");
        let mut rival = Rival::new(disk);
        rival.leave(2 << 20);
        let store = open(&directory);
        assert_eq!(ballast(&directory), 0, "there is no room for the reserve");
        assert!(!directory.join("journal").exists(), "nor for a journal");
        let refused = runtime.block_on(create(&store, &pod("a"), json!(1)));
        assert!(matches!(&refused, Err(error @ WriteError::Store(_)) if is_full(error)), "{refused:?}");
        rival.give_back();
        runtime.block_on(create(&store, &pod("a"), json!(1))).unwrap();
        assert_eq!(ballast(&directory), BALLAST_BYTES);
        // It is made at the next start.
        drop(store);
        let store = open(&directory);
        assert!(directory.join("journal").exists());
        runtime.block_on(create(&store, &pod("b"), json!(1))).unwrap();
        drop(store);
        assert_eq!(names(&open(&directory), "pods"), ["a", "b"]);
    });
}

#[test]
fn what_is_in_the_journal_when_the_disk_gets_full_is_kept_and_deletes_go_on() {
    in_own_mount_namespace("what_is_in_the_journal_when_the_disk_gets_full_is_kept_and_deletes_go_on", |disk| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(crash_on_a_full_disk(disk));
    });
}

async fn crash_on_a_full_disk(disk: &Path) {
    let directory = disk.join("store");
    let store = open(&directory);
    for number in 0..20 {
        put(&store, &pod(&number.to_string()), json!([number, "x".repeat(30_000)])).await;
    }
    let expected = store.list("pods", None).objects;
    // What kill -9 leaves, with the place that it takes.
    let crashed = disk.join("crashed");
    std::fs::create_dir(&crashed).unwrap();
    for (name, bytes) in files(&directory) {
        std::fs::write(crashed.join(name), bytes).unwrap();
    }
    drop(store);
    std::fs::rename(directory.join("ballast"), crashed.join("ballast")).unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    let mut rival = Rival::new(disk);
    rival.take_all();

    let store = open(&crashed);
    assert_eq!(store.list("pods", None).objects, expected);
    // The first one that the reserve has to be asked for.
    while !create(&store, &pod("new"), json!(1)).await.is_err_and(|error| is_full(&error)) {
        delete(&store, &pod("new")).await;
        store.copy(&mut |_| ()).unwrap();
        rival.take_all();
    }
    put(&store, &pod("0"), "marked").await;
    for number in 0..20 {
        delete(&store, &pod(&number.to_string())).await.unwrap();
        rival.take_all();
    }
    drop(store);
    rival.take_all();
    assert!(names(&open(&crashed), "pods").is_empty());
}

fn ballast(directory: &Path) -> u64 {
    std::fs::metadata(directory.join("ballast")).unwrap().len()
}

/// Somebody who fills the disk, such as a program that writes logs.
struct Rival {
    path: PathBuf,
    file: File,
}

impl Rival {
    fn new(disk: &Path) -> Self {
        let path = disk.join("rival");
        let file = OpenOptions::new().append(true).create(true).open(&path).unwrap();
        Self { path, file }
    }

    fn take_all(&mut self) {
        for size in [1 << 20, 4096, 1] {
            let piece = vec![7; size];
            let error = loop {
                if let Err(error) = self.file.write_all(&piece) {
                    break error;
                }
            };
            assert_eq!(error.kind(), ErrorKind::StorageFull);
        }
    }

    fn leave(&mut self, bytes: u64) {
        self.take_all();
        self.file.set_len(std::fs::metadata(&self.path).unwrap().len() - bytes).unwrap();
    }

    fn give_back(&mut self) {
        self.file.set_len(0).unwrap();
    }
}

/// Runs `test` again, alone, in a mount namespace of its own, and there `body` with a fresh tmpfs of 32 MiB.
fn in_own_mount_namespace(test: &str, body: impl FnOnce(&Path)) {
    if !rustix::process::geteuid().is_root() {
        println!("{SKIPPED}");
        return;
    }
    if let Some(disk) = std::env::var_os(DISK) {
        let disk = Path::new(&disk);
        mount("tmpfs", disk, "tmpfs", MountFlags::empty(), c"size=32m").unwrap();
        body(disk);
        return unmount(disk, UnmountFlags::empty()).unwrap();
    }
    let disk = tempfile::tempdir().unwrap();
    #[expect(clippy::disallowed_methods, reason = "a mount namespace has to be entered before there are threads")]
    let mut unshare = Command::new("unshare");
    let program = std::env::current_exe().unwrap();
    let status = unshare.arg("-m").arg(program).args(["--exact", test, "--nocapture"]).env(DISK, disk.path()).status();
    assert!(status.unwrap().success());
}
