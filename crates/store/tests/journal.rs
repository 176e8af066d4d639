//! The journal between a crash and the objects file: nothing that was acknowledged is lost, whatever happens where.
//!
//! A crash is a copy of the files as they lie there while the store is open, opened elsewhere.

#![cfg(test)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use common::{content, delete, files, names, open, pod, put};
use redb::{ReadableDatabase, ReadableTable, TableDefinition};
use serde_json::json;
use store::{Copy, Entry, OpenStoreError, Restoring, Store};
use tempfile::TempDir;

const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

/// What kill -9 leaves of an open store.
fn crash(home: &Path) -> TempDir {
    let other = tempfile::tempdir().unwrap();
    for (name, bytes) in files(home) {
        fs::write(other.path().join(name), bytes).unwrap();
    }
    other
}

/// The same after five Pods were written.
async fn crashed_with_old_pods() -> TempDir {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    for number in 0..5 {
        put(&store, &pod(&format!("old-{number}")), 1).await;
    }
    crash(home.path())
}

/// What a crash leaves while the objects file lacks much of it, after `work`, which is done again if it was slow.
async fn crash_within<F: Future>(home: &Path, store: &Store, mut work: impl FnMut() -> F) -> TempDir {
    loop {
        store.copy(&mut |_| ()).unwrap();
        let before = number(home, "commits");
        work().await;
        let crashed = crash(home);
        if number(crashed.path(), "commits") == before {
            return crashed;
        }
    }
}

fn acknowledged(directory: &Path) -> u64 {
    fs::read_to_string(directory.join("acknowledged")).unwrap().trim().parse().unwrap()
}

/// A number of the objects file.
fn number(directory: &Path, name: &str) -> Option<u64> {
    let copy = tempfile::tempdir().unwrap();
    let path = copy.path().join("objects.redb");
    fs::copy(directory.join("objects.redb"), &path).unwrap();
    let meta = redb::Database::open(&path).unwrap().begin_read().unwrap().open_table(META).unwrap();
    meta.get(name).unwrap().map(|number| number.value())
}

fn set_numbers(directory: &Path, change: impl FnOnce(&mut redb::Table<'_, &'static str, u64>)) {
    let database = redb::Database::open(directory.join("objects.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    change(&mut transaction.open_table(META).unwrap());
    transaction.commit().unwrap();
}

type Content = (Vec<(String, u64, u64)>, Vec<(String, u64)>);

/// All that a store has, by its lists and by its copy, which must be the same.
fn all(store: &Store) -> Content {
    let listed: Vec<_> = store.list("pods", None).objects.into_iter().collect();
    let objects = listed.iter().map(|object| {
        (
            object.key.name.clone(),
            object.revision,
            content(object).as_u64().unwrap_or_else(|| content(object)[0].as_u64().unwrap()),
        )
    });
    let objects: Vec<_> = objects.collect();
    let records = store.records::<u64>("things").unwrap();
    for (key, value) in &records {
        assert_eq!(store.record::<u64>("things", key).unwrap(), Some(*value));
    }
    let (mut copied, mut copied_records) = (BTreeMap::new(), BTreeMap::new());
    let revision = store.copy(&mut |entry| match entry {
        Entry::Object { key, revision, json } => drop(copied.insert(key.name, (revision, json))),
        Entry::Record { key, json, .. } => drop(copied_records.insert(key, json)),
    });
    assert!(revision.unwrap() >= store.revision());
    let of_list = listed.into_iter().map(|object| (object.key.name.clone(), (object.revision, object.json)));
    assert_eq!(copied, of_list.collect());
    let of_records = records.iter().map(|(key, value)| (key.clone(), value.to_string().into()));
    assert_eq!(copied_records, of_records.collect());
    (objects, records)
}

/// Changes of all kinds; each number is another.
async fn work(store: &Store, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let size = if number % 7 == 0 { 30_000 } else { 50 };
        let value = json!([number, "x".repeat(size)]);
        put(store, &pod(&format!("pod-{}", number % 10)), value).await;
        store.put_record("things", &format!("thing-{}", number % 6), &number).await.unwrap();
        if number % 4 == 0 {
            delete(store, &pod(&format!("pod-{}", number % 5))).await;
            store.delete_record("things", &format!("thing-{}", number % 3)).await.unwrap();
        }
    }
}

#[tokio::test]
async fn what_is_only_in_the_journal_survives_a_crash_and_another_one() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    let mut crashed = crash_within(home.path(), &store, || work(&store, 1..40)).await;
    let expected = all(&store);
    let newest = store.revision();
    for round in 0..4 {
        let again = open(crashed.path());
        assert!(again.revision() >= newest);
        let next = crash(crashed.path());
        assert_eq!(all(&again), expected, "round {round}");
        crashed = next;
    }
    // It goes on where it stopped, in the journal as well.
    let store = open(crashed.path());
    work(&store, 40..60).await;
    let crashed = crash(crashed.path());
    assert_eq!(all(&open(crashed.path())), all(&store));
}

#[tokio::test]
async fn a_crash_after_all_is_in_the_objects_file_changes_nothing() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    for begin in [1, 30, 60] {
        work(&store, begin..begin + 30).await;
        // A copy has all brought to the objects file.
        let expected = all(&store);
        let crashed = crash(home.path());
        assert_eq!(number(crashed.path(), "commits"), number(home.path(), "commits"));
        assert_eq!(all(&open(crashed.path())), expected);
        // The objects file alone has it.
        fs::remove_file(crashed.path().join("journal")).unwrap();
        assert_eq!(all(&open(crashed.path())), expected);
    }
}

#[tokio::test]
async fn a_store_that_was_closed_leaves_nothing_in_the_journal() {
    let home = tempfile::tempdir().unwrap();
    for begin in [1, 30] {
        let store = open(home.path());
        work(&store, begin..begin + 30).await;
        let before = crash(home.path());
        let expected = all(&open(before.path()));
        drop(store);
        assert_eq!(number(home.path(), "commits"), number(home.path(), "journaled"));
        fs::remove_file(home.path().join("journal")).unwrap();
        assert_eq!(all(&open(home.path())), expected);
    }
}

#[tokio::test]
async fn what_waits_is_brought_to_the_objects_file_and_then_all_is_quiet() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    work(&store, 1..10).await;
    while number(crash(home.path()).path(), "commits") < Some(acknowledged(home.path())) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let before = files(home.path());
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(files(home.path()) == before);
}

#[tokio::test]
async fn more_than_the_journal_holds_goes_through_it() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    for round in 0..4 {
        let writers = (0..4).map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for number in 0..100 {
                    let value = json!([number, "x".repeat(10_000)]);
                    put(&store, &pod(&format!("pod-{writer}-{number}")), value).await;
                    store.put_record("things", &format!("{writer}-{number}"), &number).await.unwrap();
                }
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.unwrap();
        }
        let crashed = crash(home.path());
        assert_eq!(all(&open(crashed.path())), all(&store), "round {round}");
    }
}

#[tokio::test]
async fn a_commit_that_is_too_long_for_the_journal_keeps_its_place() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    put(&store, &pod("a"), 1).await;
    put(&store, &pod("b"), 1).await;
    let long = json!([2, "x".repeat(1_500_000)]);
    put(&store, &pod("a"), long).await;
    let crashed = crash(home.path());
    put(&store, &pod("b"), 3).await;
    let later = crash(home.path());
    let contents = |store: &Store| all(store).0.into_iter().map(|(_, _, content)| content).collect::<Vec<_>>();
    assert_eq!(contents(&open(crashed.path())), [2, 1]);
    assert_eq!(contents(&open(later.path())), [2, 3]);
}

#[tokio::test]
async fn records_are_read_from_the_journal_and_the_objects_file_as_one() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    for key in ["a", "b", "c"] {
        store.put_record("things", key, &1).await.unwrap();
    }
    all(&store);
    // The file has those. The journal gets another one, one more, and one less.
    store.put_record("things", "b", &2).await.unwrap();
    store.put_record("things", "bb", &3).await.unwrap();
    store.delete_record("things", "c").await.unwrap();
    store.put_record("thingsome", "a", &9).await.unwrap();
    let expected = [("a".to_owned(), 1), ("b".to_owned(), 2), ("bb".to_owned(), 3)];
    assert_eq!(store.records::<u64>("things").unwrap(), expected);
    assert_eq!(store.record::<u64>("things", "b").unwrap(), Some(2));
    assert_eq!(store.record::<u64>("things", "c").unwrap(), None);
    assert_eq!(store.record::<u64>("thing", "a").unwrap(), None);
}

#[tokio::test]
async fn a_journal_that_was_altered_is_noticed_or_changes_nothing() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    work(&store, 1..10).await;
    let crashed = crash_within(home.path(), &store, || work(&store, 10..30)).await;
    let expected = all(&store);
    drop(store);
    let [objects, journal, acknowledged] =
        ["objects.redb", "journal", "acknowledged"].map(|name| fs::read(crashed.path().join(name)).unwrap());
    let used = journal.iter().rposition(|byte| *byte != 0).unwrap();
    let (mut damaged, mut whole) = (0, 0);
    for step in 0..150 {
        let mut spoilt = journal.clone();
        let at = used * step / 149;
        match step % 5 {
            0 | 1 => spoilt[at] ^= 1 << (step % 8),
            2 => spoilt.truncate(at),
            3 => spoilt[at..(at + 4096).min(used)].fill(0),
            _ => spoilt.copy_within(at / 4096 * 4096..used, at / 8192 * 4096),
        }
        for (name, bytes) in [("objects.redb", &objects), ("journal", &spoilt), ("acknowledged", &acknowledged)] {
            fs::write(crashed.path().join(name), bytes).unwrap();
        }
        match Store::open(crashed.path()) {
            Ok(store) => {
                assert_eq!(all(&store), expected, "step {step} at {at}: something is lost or altered in silence");
                whole += 1;
            }
            Err(OpenStoreError::Damaged { path, .. }) => {
                let name = path.file_name().unwrap();
                assert!(name == "journal" || name == "objects.redb", "{path:?}");
                assert_eq!(fs::read(crashed.path().join("journal")).unwrap(), spoilt, "it is left alone");
                damaged += 1;
            }
            Err(error) => panic!("step {step} at {at}: {error:?}"),
        }
    }
    assert!(damaged > 20 && whole > 10, "{damaged} damaged, {whole} whole: the damage hits nothing, or all");
}

#[tokio::test]
async fn a_directory_of_an_earlier_version_opens_as_it_is() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    work(&store, 1..20).await;
    let expected = all(&store);
    drop(store);
    fs::remove_file(home.path().join("journal")).unwrap();
    set_numbers(home.path(), |meta| drop(meta.remove("journaled").unwrap()));
    let store = open(home.path());
    assert_eq!(all(&store), expected);
    put(&store, &pod("new"), 1).await;
    let crashed = crash(home.path());
    assert_eq!(all(&open(crashed.path())), all(&store));
}

#[tokio::test]
async fn an_earlier_version_refuses_what_only_the_journal_has() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    let crashed = crash_within(home.path(), &store, || work(&store, 1..20)).await;
    // As it looks at them: it knows no journal.
    assert!(number(crashed.path(), "commits").unwrap_or(0) < acknowledged(crashed.path()));
    assert_eq!(number(crashed.path(), "schema"), Some(1));
}

#[tokio::test]
async fn what_an_earlier_version_has_written_since_is_not_mixed_with_the_journal() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    put(&store, &pod("kept"), 1).await;
    let mut attempt = 0;
    let crashed = crash_within(home.path(), &store, || {
        attempt += 1;
        let (store, name) = (store.clone(), format!("lost-{attempt}"));
        async move {
            for number in 0..10 {
                put(&store, &pod(&name), number).await;
            }
        }
    });
    let crashed = crashed.await;
    let lost = format!("lost-{attempt}");
    // The machine lost its power before it had noted what was acknowledged, and the earlier version made two commits.
    fs::remove_file(crashed.path().join("acknowledged")).unwrap();
    set_numbers(crashed.path(), |meta| {
        let commits = meta.get("commits").unwrap().unwrap().value();
        meta.insert("commits", commits + 2).unwrap();
    });
    let store = open(crashed.path());
    let found = names(&store, "pods");
    assert!(found.contains(&"kept".to_owned()) && !found.contains(&lost), "{found:?}");
    put(&store, &pod("new"), 1).await;
    let again = open(crash(crashed.path()).path());
    let found = names(&again, "pods");
    assert!(found.contains(&"new".to_owned()) && !found.contains(&lost), "another past comes after it: {found:?}");
}

#[tokio::test]
async fn a_journal_of_another_store_is_not_taken_for_the_restored_ones() {
    let crashed = crashed_with_old_pods().await;
    fs::remove_file(crashed.path().join("objects.redb")).unwrap();
    let copy = Copy { objects: vec![(pod("restored"), json!({"metadata": {}}))], records: Vec::new() };
    Restoring::begin(crashed.path()).unwrap().finish(100, copy).unwrap();
    assert!(!crashed.path().join("journal").exists());
    assert_eq!(names(&open(crashed.path()), "pods"), ["restored"]);
}

#[tokio::test]
async fn a_journal_without_its_objects_file_is_no_start_for_a_new_one() {
    let crashed = crashed_with_old_pods().await;
    // Whoever wants to begin anew and leaves some of the files.
    fs::remove_file(crashed.path().join("objects.redb")).unwrap();
    fs::remove_file(crashed.path().join("lock")).unwrap();
    let store = open(crashed.path());
    assert!(names(&store, "pods").is_empty());
    put(&store, &pod("new"), 1).await;
    let again = crash(crashed.path());
    assert_eq!(names(&open(again.path()), "pods"), ["new"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_of_one_moment_while_they_go_to_the_objects_file() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    // Two records that always say the same but for one.
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            for number in 0..400_u64 {
                store.put_record("things", "first", &number).await.unwrap();
                store.put_record("things", "second", &number).await.unwrap();
            }
        }
    });
    let mut looks = 0;
    while !writer.is_finished() {
        if let [(_, first), (_, second)] = store.records::<u64>("things").unwrap()[..] {
            assert!(first == second || first == second + 1, "{first} and {second} were never together");
            // What has been seen stays.
            assert!(store.record::<u64>("things", "second").unwrap() >= Some(second));
            looks += 1;
        }
        if looks % 3 == 0 {
            store.copy(&mut |_| ()).unwrap();
        }
    }
    writer.await.unwrap();
    assert!(looks > 0);
}
