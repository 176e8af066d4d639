//! Events: as good as other objects while the store is open, bounded, and cheap.

#![cfg(test)]

mod common;

use std::collections::HashSet;

use common::{change, delete, event, names, open, pod, put};
use store::{Change, EVENTS_KEPT, WatchKind};

#[tokio::test]
async fn events_cost_no_commit_of_the_objects_file() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    put(&store, &pod("a"), 1).await;
    let commits = store.commits();
    for number in 0..50 {
        put(&store, &event("e"), number).await;
    }
    assert_eq!(store.commits(), commits);
}

#[tokio::test]
async fn events_survive_a_restart() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    for name in ["a", "b", "c"] {
        put(&store, &event(name), 1).await;
    }
    let changed = put(&store, &event("b"), 2).await;
    delete(&store, &event("c")).await.unwrap();
    let before = store.list("events", None).objects;
    drop(store);
    let store = open(home.path());
    assert_eq!(store.list("events", None).objects, before);
    assert_eq!(store.get(&event("b")), Some(changed));
}

#[tokio::test]
async fn the_oldest_events_go_when_there_are_too_many() {
    const MORE: usize = 100;
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    let mut watch = store.watch("events", None).unwrap();
    // The first one happens again and again, so it is never the oldest.
    let name = |number| if number % 50 == 0 { "again".to_owned() } else { format!("e-{number:05}") };
    let all = (EVENTS_KEPT + MORE) * 50 / 49;
    let mut told = Vec::new();
    for number in 0..all {
        let written = put(&store, &event(&name(number)), number).await;
        let mut seen = 0;
        while seen < written.revision {
            let event = watch.next().await.unwrap();
            seen = event.object.revision;
            if event.kind == WatchKind::Deleted {
                told.push(event.object.key.name.clone());
            }
        }
    }
    let written: HashSet<String> = (0..all).map(name).collect();
    let kept: HashSet<String> = names(&store, "events").into_iter().collect();
    assert_eq!(kept.len(), EVENTS_KEPT);
    let mut gone: Vec<_> = written.difference(&kept).cloned().collect();
    gone.sort_unstable();
    assert_eq!(gone.len(), written.len() - EVENTS_KEPT);
    assert_eq!(gone[..], (1..).map(name).filter(|name| name != "again").take(gone.len()).collect::<Vec<_>>());

    while told.len() < gone.len() {
        let event = watch.next().await.unwrap();
        if event.kind == WatchKind::Deleted {
            told.push(event.object.key.name.clone());
        }
    }
    assert_eq!(told, gone);
    drop(store);
    assert_eq!(names(&open(home.path()), "events").into_iter().collect::<HashSet<_>>(), kept);
}

#[tokio::test]
async fn events_alone_use_up_revisions_that_are_not_given_out_again() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    // More than one reserved block of revisions.
    let mut newest = 0;
    for number in 0..5000 {
        newest = put(&store, &event("e"), number).await.revision;
    }
    assert!(store.commits() <= 3, "{} commits", store.commits());
    drop(store);
    let store = open(home.path());
    assert!(store.revision() >= newest);
    let next = change(&store, &event("e"), Change::Put(common::object(-1))).await.unwrap().object.unwrap();
    assert!(next.revision > newest);
}
