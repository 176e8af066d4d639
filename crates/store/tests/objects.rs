//! Objects and records: what a write answers, what is seen after it, and what a restart keeps.

#![cfg(test)]

mod common;

use std::collections::{BTreeMap, HashSet};
use std::pin::pin;
use std::sync::mpsc;
use std::task::{Context, Waker};

use common::{change, content, create, delete, names, object, open, pod, put};
use serde_json::{Value, json};
use store::{Change, MAX_VALUE_BYTES, ObjectKey, OpenStoreError, Store, StoreError, StoredObject, WriteError};

#[tokio::test]
async fn an_object_carries_the_revision_of_its_last_change() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    let before = store.revision();

    let created = put(&store, &pod("a"), 1).await;
    assert!(created.revision > before);
    assert_eq!(created.value["metadata"]["resourceVersion"], json!(created.revision.to_string()));
    assert_eq!(serde_json::from_slice::<Value>(&created.json).unwrap(), *created.value);
    assert_eq!(store.get(&pod("a")), Some(created.clone()));

    let replaced = put(&store, &pod("a"), 2).await;
    assert!(replaced.revision > created.revision);
    assert_eq!(content(&replaced), &json!(2));

    let deleted = delete(&store, &pod("a")).await.unwrap();
    assert!(deleted.revision > replaced.revision);
    assert_eq!(deleted.value["metadata"]["resourceVersion"], json!(deleted.revision.to_string()));
    assert_eq!(content(&deleted), &json!(2));
    assert_eq!(store.get(&pod("a")), None);
    assert_eq!(store.list("pods", None).revision, deleted.revision);
}

#[tokio::test]
async fn what_changes_nothing_takes_no_revision_and_no_commit() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    let created = put(&store, &pod("a"), 1).await;
    let commits = store.commits();

    let stale = json!({"metadata": {"labels": {}, "resourceVersion": "7"}, "content": 1});
    for (what, done) in [
        ("the same again", change(&store, &pod("a"), Change::Put(object(1))).await),
        ("the same with another resourceVersion", change(&store, &pod("a"), Change::Put(stale)).await),
        ("keep", change(&store, &pod("a"), Change::Keep).await),
    ] {
        assert_eq!(done.unwrap().object.as_ref(), Some(&created), "{what}");
    }
    assert_eq!(change(&store, &pod("none"), Change::Keep).await.unwrap().object, None);
    assert_eq!(delete(&store, &pod("none")).await, None);
    assert_eq!((store.revision(), store.commits()), (created.revision, commits));
}

#[tokio::test]
async fn what_is_told_of_other_revisions_is_no_revision_of_the_object() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    let value = |other: u64| {
        let text = format!(r#""resourceVersion":"{other}""#);
        json!({"about": {"resourceVersion": other.to_string()}, "data": text, "metadata": {}, "more": {"resourceVersion": "1"}})
    };
    let put =
        async |other: u64| change(&store, &pod("a"), Change::Put(value(other))).await.unwrap().object.unwrap().revision;
    let first = put(9).await;
    assert_eq!(put(9).await, first);
    assert_eq!(put(first).await, first + 1, "both are told of");
    assert_eq!(put(first + 1).await, first + 2);
}

#[tokio::test]
async fn several_are_written_in_one_commit_and_a_refused_one_keeps_none_of_the_others_back() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    let present = put(&store, &pod("b"), 1).await;
    let before = store.commits();
    let put_new = |present: Option<&StoredObject>| match present {
        Some(_) => Err("taken"),
        None => Ok((Change::Put(object(2)), ())),
    };
    let keys = ["a", "b", "c", "a"];
    let written = store.write_each(keys.map(|name| (pod(name), put_new)).into()).await;
    let refused = |result: &Result<_, _>| matches!(result, Err(WriteError::Refused("taken")));
    assert_eq!(written.iter().map(refused).collect::<Vec<_>>(), [false, true, false, true], "each sees those before");
    let revisions: Vec<_> = written.iter().flatten().map(|written| written.object.as_ref().unwrap().revision).collect();
    assert_eq!(revisions, [store.revision() - 1, store.revision()]);
    assert_eq!(store.commits() - before, 1);
    assert_eq!(store.get(&pod("b")), Some(present));
}

#[tokio::test]
async fn a_refusal_changes_nothing_and_reaches_the_caller() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    let created = create(&store, &pod("a"), json!(1)).await.unwrap();
    let Err(WriteError::Refused(why)) = create(&store, &pod("a"), json!(2)).await else { panic!("created twice") };
    assert_eq!(why, "already exists");
    assert_eq!(store.list("pods", None).objects, [created]);
}

#[tokio::test]
async fn values_that_cannot_be_kept_are_refused_by_name() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    let cases = [
        (json!([1]), "pods default/a: the value is no JSON object"),
        (json!({"metadata": "text"}), "pods default/a: metadata is no JSON object"),
        (object("x".repeat(MAX_VALUE_BYTES)), "pods default/a has 2097213 bytes; at most 2097152 are possible"),
    ];
    for (value, message) in cases {
        let error = change(&store, &pod("a"), Change::Put(value)).await.unwrap_err();
        assert_eq!(error.to_string(), message);
    }
    assert_eq!(store.get(&pod("a")), None);
    put(&store, &pod("a"), "x".repeat(MAX_VALUE_BYTES - 200)).await;
}

#[tokio::test]
async fn a_panic_in_a_closure_is_its_callers_alone() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    let panicking = store.clone();
    let write =
        async move { panicking.write(pod("a"), |_| -> Result<(Change, ()), ()> { panic!("in the closure") }).await };
    let panic = tokio::spawn(write).await.unwrap_err().into_panic();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"in the closure"));
    put(&store, &pod("a"), 1).await;
}

#[tokio::test]
async fn lists_are_of_one_resource_and_sorted() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    let keys = [
        ObjectKey::namespaced("pods", "b", "a"),
        ObjectKey::namespaced("pods", "a", "z"),
        ObjectKey::namespaced("pods", "a", "b"),
        ObjectKey::namespaced("pods", "a-b", "a"),
        ObjectKey::namespaced("podtemplates", "a", "a"),
        ObjectKey::cluster("nodes", "a"),
    ];
    for key in &keys {
        put(&store, key, 1).await;
    }
    let list = |store: &Store, resource, namespace| {
        let objects = store.list(resource, namespace).objects;
        objects.iter().map(|object| object.key.to_string()).collect::<Vec<_>>()
    };
    let check = |store: &Store| {
        assert_eq!(list(store, "pods", None), ["pods a/b", "pods a/z", "pods a-b/a", "pods b/a"]);
        assert_eq!(list(store, "pods", Some("a")), ["pods a/b", "pods a/z"]);
        assert_eq!(list(store, "nodes", None), ["nodes a"]);
        assert_eq!(list(store, "pod", None), Vec::<String>::new());
        assert_eq!(list(store, "pods", Some("")), Vec::<String>::new());
    };
    check(&store);
    drop(store);
    check(&open(home.path()));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_concurrent_creates_of_one_name_exactly_one_wins() {
    const NAMES: usize = 250;
    const RIVALS: usize = 4;
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    let creates = (0..NAMES * RIVALS).map(|number| {
        let store = store.clone();
        tokio::spawn(async move {
            let name = format!("pod-{}", number % NAMES);
            create(&store, &pod(&name), json!(number)).await
        })
    });
    let mut winners = BTreeMap::new();
    let mut revisions = HashSet::new();
    let mut refused = 0;
    for create in creates.collect::<Vec<_>>() {
        match create.await.unwrap() {
            Ok(object) => {
                assert!(revisions.insert(object.revision), "a revision was given twice");
                assert!(winners.insert(object.key.name.clone(), object).is_none(), "a name was created twice");
            }
            Err(WriteError::Refused(why)) => {
                assert_eq!(why, "already exists");
                refused += 1;
            }
            Err(WriteError::Store(error)) => panic!("{error}"),
        }
    }
    assert_eq!((winners.len(), refused), (NAMES, NAMES * (RIVALS - 1)));
    let stored = |store: &Store| {
        let objects = store.list("pods", None).objects;
        objects.into_iter().map(|object| (object.key.name.clone(), object)).collect::<BTreeMap<_, _>>()
    };
    assert_eq!(stored(&store), winners);
    drop(store);
    assert_eq!(stored(&open(home.path())), winners);
}

#[tokio::test]
async fn concurrent_changes_of_one_object_lose_nothing() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    let increments = (0..500).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            let decide = |present: Option<&StoredObject>| {
                let count = present.map_or(0, |object| content(object).as_u64().unwrap());
                Ok::<_, ()>((Change::Put(object(count + 1)), count))
            };
            store.write(pod("counter"), decide).await.unwrap().outcome
        })
    });
    let mut seen = HashSet::new();
    for increment in increments.collect::<Vec<_>>() {
        assert!(seen.insert(increment.await.unwrap()), "two writes saw the same object");
    }
    assert_eq!(content(&store.get(&pod("counter")).unwrap()), &json!(500));
}

#[test]
fn writes_that_wait_are_committed_together() {
    const WRITES: usize = 500;
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    let before = store.commits();
    // The first write holds the writer up until all the others wait.
    let (release, held) = mpsc::channel::<()>();
    let first = store.write(pod("first"), move |_| {
        held.recv().unwrap();
        Ok::<_, ()>((Change::Put(object(0)), ()))
    });
    let mut first = pin!(first);
    let mut context = Context::from_waker(Waker::noop());
    assert!(first.as_mut().poll(&mut context).is_pending());
    let mut writes: Vec<_> = (0..WRITES)
        .map(|number| {
            let store = store.clone();
            Box::pin(async move { put(&store, &pod(&format!("pod-{number}")), number).await })
        })
        .collect();
    for write in &mut writes {
        assert!(write.as_mut().poll(&mut context).is_pending());
    }
    release.send(()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        first.await.unwrap();
        for write in writes {
            write.await;
        }
    });
    assert_eq!(names(&store, "pods").len(), WRITES + 1);
    assert_eq!(store.commits() - before, 1);
}

#[tokio::test]
async fn records_are_kept_by_table_and_key() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    for (table, key, value) in [
        ("sandboxes", "b", 2),
        ("sandboxes", "a", 1),
        ("sandboxes-old", "a", 9),
        ("images", "a", 3),
        ("images", "a", 4),
    ] {
        store.put_record(table, key, &value).await.unwrap();
    }
    let check = |store: &Store| {
        let records = |table| store.records::<u32>(table).unwrap();
        assert_eq!(records("sandboxes"), [("a".to_owned(), 1), ("b".to_owned(), 2)]);
        assert_eq!(records("sandboxes-old"), [("a".to_owned(), 9)]);
        assert_eq!(records("images"), [("a".to_owned(), 4)]);
        assert_eq!(records("sandbox"), []);
        assert_eq!(store.record::<u32>("sandboxes", "b").unwrap(), Some(2));
        assert_eq!(store.record::<u32>("sandboxes", "c").unwrap(), None);
    };
    check(&store);
    drop(store);
    let store = open(home.path());
    check(&store);

    let error = store.records::<String>("images").unwrap_err();
    assert_eq!(error.to_string(), r#"record "a" of "images" cannot be read"#);
    store.delete_record("sandboxes", "a").await.unwrap();
    store.delete_record("sandboxes", "a").await.unwrap();
    assert_eq!(store.records::<u32>("sandboxes").unwrap(), [("b".to_owned(), 2)]);
    let large = "x".repeat(MAX_VALUE_BYTES);
    assert!(matches!(store.put_record("images", "b", &large).await, Err(StoreError::TooLarge { .. })));
}

#[test]
fn a_write_may_drop_the_last_clone_and_stands() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    let (release, held) = mpsc::channel::<()>();
    let inside = store.clone();
    let mut write = Box::pin(store.write(pod("a"), move |_| {
        held.recv().unwrap();
        drop(inside);
        Ok::<_, ()>((Change::Put(object(1)), ()))
    }));
    assert!(write.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(write);
    drop(store);
    assert!(matches!(Store::open(home.path()), Err(OpenStoreError::Locked { .. })), "it is still written to");
    release.send(()).unwrap();

    // Waits until the threads have ended.
    let lock = std::fs::File::open(home.path().join("lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    drop(lock);
    assert_eq!(names(&open(home.path()), "pods"), ["a"]);
}

#[tokio::test]
async fn what_is_written_in_memory_is_seen_by_all_and_costs_no_commit() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    let written = put(&store, &pod("a"), 1).await;
    let mut watch = store.watch("pods", None).unwrap();
    let commits = store.commits();
    let beat = |key: &ObjectKey, number: i32| {
        store.write_in_memory(key.clone(), move |_| Ok::<_, ()>((Change::Put(object(number)), ())))
    };
    let second = beat(&pod("a"), 2).await.unwrap().object.unwrap();
    let only = beat(&pod("b"), 3).await.unwrap().object.unwrap();
    assert_eq!(store.commits(), commits);
    assert_eq!(
        (watch.next().await.unwrap().object, watch.next().await.unwrap().object),
        (second.clone(), only.clone())
    );
    assert_eq!(store.list("pods", None).objects, [second, only.clone()]);
    drop((store, watch));

    // The disk has what was written before, and no revision is given out again.
    let store = open(home.path());
    assert_eq!(store.list("pods", None).objects, [written]);
    assert!(store.revision() >= only.revision);
    // One batch with both: the disk has the last word of it.
    let beaten = store.write_in_memory(pod("a"), |_| Ok::<_, ()>((Change::Put(object(4)), ())));
    let key = pod("a");
    let (beaten, put) = tokio::join!(beaten, put(&store, &key, 5));
    beaten.unwrap();
    drop(store);
    assert_eq!(open(home.path()).get(&pod("a")), Some(put));
}

#[tokio::test]
async fn a_change_of_records_that_was_put_off_goes_along_with_the_next_write_in_its_order() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    store.put_record("things", "a", &1).await.unwrap();
    store.put_record("things", "b", &1).await.unwrap();
    let commits = store.commits();

    store.delete_record_soon("things", "a");
    store.put_record_soon("things", "b", &2).unwrap();
    assert_eq!((store.commits(), store.records::<i32>("things").unwrap().len()), (commits, 2), "nothing is written");

    store.put_record("things", "b", &3).await.unwrap();
    assert_eq!(store.commits(), commits + 1, "one commit for all of them");
    assert_eq!(store.records::<i32>("things").unwrap(), [("b".to_owned(), 3)]);

    store.put_record_soon("things", "b", &4).unwrap();
    drop(store);
    let store = open(home.path());
    assert_eq!(store.records::<i32>("things").unwrap(), [("b".to_owned(), 4)], "a store that closes writes it");
    let large = "x".repeat(MAX_VALUE_BYTES);
    assert!(matches!(store.put_record_soon("things", "c", &large), Err(StoreError::TooLarge { .. })));
}

#[tokio::test]
async fn a_change_of_records_that_was_put_off_waits_for_company_only_so_long() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    store.put_record("things", "a", &1).await.unwrap();
    store.delete_record_soon("things", "a");
    while !store.records::<i32>("things").unwrap().is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    store.put_record_soon("things", "a", &2).unwrap();
    store.flush().await.unwrap();
    assert_eq!(store.records::<i32>("things").unwrap(), [("a".to_owned(), 2)]);
    store.delete_record("things", "a").await.unwrap();
    // Nobody waits for a great number of them: they are written as they come.
    for number in 0..1000 {
        store.put_record_soon("things", &number.to_string(), &number).unwrap();
    }
    drop(store);
    assert_eq!(open(home.path()).records::<i32>("things").unwrap().len(), 1000);
}
