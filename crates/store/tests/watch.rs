//! Watches: every change once and in order, and a clear word where that is not possible.

#![cfg(test)]

mod common;

use std::collections::BTreeMap;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use common::{content, delete, object, open, pod, put};
use serde_json::{Value, json};
use store::{Change, Expired, HISTORY_BYTES, HISTORY_EVENTS, ObjectKey, ObjectWatch, StoredObject, WatchKind};

/// The next change, which must be there already.
fn ready(watch: &mut ObjectWatch) -> Option<store::WatchEvent> {
    match pin!(watch.next()).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(event) => event,
        Poll::Pending => panic!("no change is there"),
    }
}

fn is_idle(watch: &mut ObjectWatch) -> bool {
    pin!(watch.next()).poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

#[tokio::test]
async fn a_watch_tells_every_change_with_what_was_before() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    put(&store, &pod("earlier"), 0).await;
    let mut watch = store.watch("pods", None).unwrap();
    assert!(is_idle(&mut watch));

    let created = put(&store, &pod("a"), 1).await;
    put(&store, &ObjectKey::cluster("nodes", "a"), 1).await;
    put(&store, &pod("a"), 1).await;
    let replaced = put(&store, &pod("a"), 2).await;
    let deleted = delete(&store, &pod("a")).await.unwrap();

    let expected = [
        (WatchKind::Added, created.clone(), None),
        (WatchKind::Modified, replaced.clone(), Some(created)),
        (WatchKind::Deleted, deleted, Some(replaced)),
    ];
    for (kind, object, previous) in expected {
        let event = ready(&mut watch).unwrap();
        assert_eq!((event.kind, event.object, event.previous), (kind, object, previous));
    }
    assert!(is_idle(&mut watch));
}

#[tokio::test]
async fn a_watch_goes_on_from_a_list_or_from_any_event() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    let start = store.revision();
    let mut revisions = Vec::new();
    for number in 0..5 {
        revisions.push(put(&store, &pod("a"), number).await.revision);
    }
    assert_eq!(store.list("pods", None).revision, revisions[4]);
    for (after, rest) in [(start, 5), (revisions[0], 4), (revisions[3], 1), (revisions[4], 0)] {
        let mut watch = store.watch("pods", Some(after)).unwrap();
        for revision in &revisions[5 - rest..] {
            assert_eq!(ready(&mut watch).unwrap().object.revision, *revision);
        }
        assert!(is_idle(&mut watch), "after {after}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_watch_tells_adds_up_to_the_list() {
    const WRITERS: u64 = 8;
    const WRITES: u64 = 60;
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    put(&store, &pod("pod-1"), "there before").await;
    let list = store.list("pods", None);
    let mut watches: Vec<_> = (0..4).map(|_| store.watch("pods", Some(list.revision)).unwrap()).collect();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for number in 0..WRITES {
                    let key = pod(&format!("pod-{}", (number * 7 + writer) % 10));
                    if (number + writer) % 4 == 0 {
                        delete(&store, &key).await;
                    } else {
                        put(&store, &key, writer * 1000 + number).await;
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let newest = put(&store, &pod("last"), "last").await.revision;
    let expected = by_name(store.list("pods", None).objects);
    for watch in &mut watches {
        let mut replayed = by_name(list.objects.clone());
        let mut before = list.revision;
        while before < newest {
            let event = watch.next().await.unwrap();
            assert!(event.object.revision > before, "out of order");
            before = event.object.revision;
            let name = event.object.key.name.clone();
            assert_eq!(replayed.get(&name), event.previous.as_ref());
            assert_eq!(event.kind == WatchKind::Added, event.previous.is_none());
            match event.kind {
                WatchKind::Added | WatchKind::Modified => replayed.insert(name, event.object),
                WatchKind::Deleted => replayed.remove(&name),
            };
        }
        assert_eq!(replayed, expected);
    }
}

fn by_name(objects: Vec<StoredObject>) -> BTreeMap<String, StoredObject> {
    objects.into_iter().map(|object| (object.key.name.clone(), object)).collect()
}

#[tokio::test]
async fn a_waiting_watch_is_woken() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    let mut watch = store.watch("pods", None).unwrap();
    let waiting = tokio::spawn(async move { watch.next().await });
    tokio::task::yield_now().await;
    let written = put(&store, &pod("a"), 1).await;
    assert_eq!(waiting.await.unwrap().unwrap().object, written);
}

#[tokio::test]
async fn a_wait_that_is_given_up_loses_no_change() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    let mut watch = store.watch("pods", None).unwrap();
    for number in 0..20 {
        assert!(is_idle(&mut watch));
        put(&store, &pod("a"), number).await;
        assert_eq!(content(&ready(&mut watch).unwrap().object), &json!(number));
    }
}

#[tokio::test]
async fn a_watcher_that_falls_behind_is_told_and_holds_nobody_up() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    let mut slow = store.watch("pods", None).unwrap();
    let mut quick = store.watch("pods", None).unwrap();
    let start = store.revision();
    // Values so large that the bytes are used up before the number is.
    let large = "x".repeat(HISTORY_BYTES / 16);
    let mut revisions = Vec::new();
    for number in 0..20 {
        revisions.push(put(&store, &pod("a"), format!("{number}{large}")).await.revision);
        assert_eq!(ready(&mut quick).unwrap().object.revision, revisions[number]);
    }
    assert_eq!(ready_end(&mut slow), Some(Expired { oldest: revisions[4] }));
    assert_eq!(ready_end(&mut slow), Some(Expired { oldest: revisions[4] }), "an end is final");
    assert_eq!(store.watch("pods", Some(start)).err(), Some(Expired { oldest: revisions[4] }));
    let mut again = store.watch("pods", Some(revisions[4])).unwrap();
    assert_eq!(ready(&mut again).unwrap().object.revision, revisions[5]);
    // Another resource has its own history.
    assert!(is_idle(&mut store.watch("nodes", Some(start)).unwrap()));
}

/// Why a watch has ended, which it must have.
fn ready_end(watch: &mut ObjectWatch) -> Option<Expired> {
    assert_eq!(ready(watch), None);
    watch.expired()
}

#[tokio::test]
async fn the_history_is_bounded_in_number() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    let mut slow = store.watch("pods", None).unwrap();
    let writes = (0..=HISTORY_EVENTS).map(|number| {
        let store = store.clone();
        tokio::spawn(async move { put(&store, &pod("a"), number).await.revision })
    });
    let mut revisions = Vec::new();
    for write in writes.collect::<Vec<_>>() {
        revisions.push(write.await.unwrap());
    }
    revisions.sort_unstable();
    assert_eq!(ready_end(&mut slow), Some(Expired { oldest: revisions[0] }));
    let mut watch = store.watch("pods", Some(revisions[0])).unwrap();
    for revision in &revisions[1..] {
        assert_eq!(ready(&mut watch).unwrap().object.revision, *revision);
    }
    assert!(is_idle(&mut watch));
}

#[tokio::test]
async fn after_a_restart_only_the_present_can_be_watched() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    let mut watch = store.watch("pods", None).unwrap();
    let written = put(&store, &pod("a"), 1).await.revision;
    drop(store);
    assert_eq!(ready(&mut watch).unwrap().object.revision, written);
    assert_eq!(ready(&mut watch), None, "the store is closed");
    assert_eq!(watch.expired(), None);

    let store = open(home.path());
    let present = store.revision();
    assert!(present > written);
    let expired = Some(Expired { oldest: present });
    for after in [0, written, present - 1] {
        assert_eq!(store.watch("pods", Some(after)).err(), expired, "after {after}");
    }
    // Nothing like it was ever given out: the client's place is in another store.
    assert_eq!(store.watch("pods", Some(present + 1)).err(), expired);
    let mut watch = store.watch("pods", Some(present)).unwrap();
    let next = put(&store, &pod("a"), 2).await;
    assert_eq!(ready(&mut watch).unwrap().object, next);
}

#[tokio::test]
async fn a_watch_knows_how_far_it_has_come() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    let mut watch = store.watch("pods", None).unwrap();
    assert_eq!(watch.revision(), store.revision());
    let other = put(&store, &ObjectKey::cluster("nodes", "a"), 1).await.revision;
    assert_eq!(watch.revision(), other, "what is not of this resource is behind it");
    let first = put(&store, &pod("a"), 1).await.revision;
    let second = put(&store, &pod("a"), 2).await.revision;
    assert_eq!(watch.revision(), other, "a change waits");
    ready(&mut watch).unwrap();
    assert_eq!(watch.revision(), first);
    ready(&mut watch).unwrap();
    assert_eq!(watch.revision(), second);
}

#[tokio::test]
async fn watchers_share_the_content() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    let mut watches = [store.watch("pods", None).unwrap(), store.watch("pods", None).unwrap()];
    let decide = |_: Option<&StoredObject>| Ok::<(Change, Value), ()>((Change::Put(object(1)), json!(null)));
    let written = store.write(pod("a"), decide).await.unwrap().object.unwrap();
    for watch in &mut watches {
        let told = ready(watch).unwrap().object;
        assert!(std::ptr::eq(&raw const *told.value, &raw const *written.value));
        assert_eq!(told.json.as_ptr(), written.json.as_ptr());
    }
}

#[tokio::test]
async fn a_change_is_written_as_a_line_once_for_all() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    let mut watches = [store.watch("pods", None).unwrap(), store.watch("pods", None).unwrap()];
    put(&store, &pod("a"), 1).await;
    put(&store, &pod("a"), 2).await;
    delete(&store, &pod("a")).await;
    let events = watches[0].next_of(100).await.unwrap();
    let again = watches[1].next_of(2).await.unwrap();
    assert_eq!((events.len(), again.len()), (3, 2), "as many as are wanted");
    assert_eq!(watches[1].next_of(100).await.unwrap().len(), 1);
    for (event, kind) in events.iter().zip(["ADDED", "MODIFIED", "DELETED"]) {
        let object = std::str::from_utf8(&event.object.json).unwrap();
        assert_eq!(event.line, format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n"));
        let (line, json) = (event.line.as_ptr_range(), event.object.json.as_ptr());
        assert!(line.contains(&json), "the same bytes");
    }
    for (one, other) in events.iter().zip(&again) {
        assert!(std::sync::Arc::ptr_eq(one, other));
    }
}

#[tokio::test]
async fn a_list_of_the_past_is_what_was_listed_then() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    put(&store, &ObjectKey::cluster("nodes", "n"), 0).await;
    put(&store, &pod("a"), 0).await;
    put(&store, &pod("b"), 0).await;
    let then = store.list("pods", None);
    put(&store, &pod("a"), 1).await;
    put(&store, &pod("a"), 2).await;
    delete(&store, &pod("b")).await;
    put(&store, &ObjectKey::namespaced("pods", "other", "c"), 0).await;
    let later = store.list("pods", Some("default"));
    assert_eq!(store.list_at("pods", None, then.revision).unwrap(), then);
    assert_eq!(store.list_at("pods", Some("default"), store.revision()).unwrap().objects, later.objects);
    assert_eq!(store.list_at("nodes", None, then.revision).unwrap().objects, store.list("nodes", None).objects);
    let future = store.revision() + 1;
    assert_eq!(store.list_at("pods", None, future).unwrap_err(), Expired { oldest: store.revision() });

    let kept = store.revision();
    drop(store);
    let store = open(home.path());
    assert!(store.list_at("pods", None, kept - 1).is_err(), "no history of before the store was opened");
    assert_eq!(store.list_at("pods", Some("default"), store.revision()).unwrap().objects, later.objects);
}

#[tokio::test]
async fn watches_of_several_resources_are_followed_as_one() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    let mut watches = store.watch_all(["nodes", "pods"]).unwrap();
    put(&store, &pod("a"), 1).await;
    put(&store, &ObjectKey::cluster("services", "s"), 1).await;
    put(&store, &pod("b"), 1).await;
    put(&store, &ObjectKey::cluster("nodes", "n"), 1).await;
    delete(&store, &pod("a")).await;
    let mut told = Vec::new();
    for _ in 0..4 {
        let event = watches.next().await.unwrap();
        told.push(format!("{} {}", event.kind.name(), event.object.key.name));
    }
    told.retain(|word| word != "ADDED n");
    assert_eq!(told, ["ADDED a", "ADDED b", "DELETED a"], "each resource in its order");

    let news = tokio::spawn(async move { (watches.next().await.map(|event| event.object.revision), watches) });
    tokio::task::yield_now().await;
    let written = put(&store, &ObjectKey::cluster("nodes", "n"), 2).await;
    let (told, mut watches) = news.await.unwrap();
    assert_eq!(told, Some(written.revision));
    drop(store);
    assert!(watches.next().await.is_none() && !watches.is_expired(), "the store is closed");
}

#[tokio::test]
async fn of_watches_that_are_one_each_must_keep_up() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    let mut watches = store.watch_all(["nodes", "pods"]).unwrap();
    for number in 0..=HISTORY_EVENTS {
        let value = json!({"metadata": {}, "content": number});
        let decide = move |_: Option<&StoredObject>| Ok::<_, ()>((Change::Put(value), ()));
        store.write_in_memory(ObjectKey::cluster("nodes", "n"), decide).await.unwrap();
    }
    assert!(watches.next().await.is_none() && watches.is_expired());
}

#[tokio::test]
async fn whoever_waits_for_new_objects_hears_of_each_once() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    put(&store, &pod("earlier"), 0).await;
    let mut forthcoming = store.forthcoming("pods");

    let created = put(&store, &pod("a"), 1).await;
    assert_eq!(forthcoming.try_recv().unwrap(), created, "it is told before its writer is answered");
    put(&store, &pod("a"), 2).await;
    put(&store, &ObjectKey::cluster("nodes", "a"), 1).await;
    delete(&store, &pod("a")).await.unwrap();
    let again = put(&store, &pod("a"), 3).await;
    assert_eq!(forthcoming.try_recv().unwrap(), again, "nothing else is new");
    assert!(forthcoming.try_recv().is_err());

    let mut instead = store.forthcoming("pods");
    let last = put(&store, &pod("b"), 1).await;
    assert_eq!(instead.try_recv().unwrap(), last);
    assert!(forthcoming.try_recv().is_err(), "one listener for each resource");
}
