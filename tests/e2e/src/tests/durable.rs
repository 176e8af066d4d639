//! What the API has acknowledged outlives kill -9, and clients that watch are never deceived.

use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use e2e::TestNode;
use e2e::api::{Answer, Api};
use serde_json::{Value, json};

tests! {
    what_sixty_four_clients_were_told_outlives_kills,
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const CLIENTS: usize = 64;
const KILLS: u64 = 6;

/// What a client does next to its own object, round and round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Create,
    Change(u64),
    Delete,
}

impl Step {
    fn of(number: u64) -> Self {
        match number % 4 {
            0 => Self::Create,
            3 => Self::Delete,
            _ => Self::Change(number),
        }
    }

    /// What the object says after it; `None` without one.
    fn leaves(self) -> Option<String> {
        match self {
            Self::Create => Some("new".to_owned()),
            Self::Change(number) => Some(number.to_string()),
            Self::Delete => None,
        }
    }

    fn take(self, api: &Api, name: &str) -> anyhow::Result<Answer> {
        let path = format!("{MAPS}/{name}");
        match self {
            Self::Create => {
                let map =
                    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "new"}});
                api.try_request("POST", MAPS, Some(&map))
            }
            Self::Change(number) => api.try_request("PATCH", &path, Some(&json!({"data": {"k": number.to_string()}}))),
            Self::Delete => api.try_request("DELETE", &path, None),
        }
    }
}

fn content(object: &Value) -> Option<String> {
    object["data"]["k"].as_str().map(str::to_owned)
}

fn revision(object: &Value) -> Option<u64> {
    object["metadata"]["resourceVersion"].as_str()?.parse().ok()
}

/// Asks until the daemon answers.
fn find(api: &Api, name: &str) -> Answer {
    e2e::eventually(e2e::limit(60), "the daemon answers", || {
        let answer = api.try_request("GET", &format!("{MAPS}/{name}"), None);
        answer.map_err(|error| error.to_string()).and_then(|answer| match answer.code {
            200 | 404 => Ok(answer),
            code => Err(format!("{code}: {}", answer.body)),
        })
    })
}

/// Works on an object until `done`; gives what it says at last.
fn work(api: &Api, name: &str, done: &AtomicBool, given: &Mutex<HashSet<u64>>) -> Option<String> {
    let (mut number, mut newest, mut says) = (0, 0, None);
    while !done.load(Ordering::Relaxed) {
        let step = Step::of(number);
        let answer = step.take(api, name);
        match answer {
            Ok(answer) if answer.code < 300 => {
                says = step.leaves();
                if let Some(revision) = revision(&answer.body) {
                    assert!(revision > newest, "{name}: {step:?} gave {revision} after {newest}");
                    newest = revision;
                    assert!(given.lock().unwrap().insert(revision), "{name}: {revision} was given out before");
                }
            }
            // The daemon died meanwhile: the step was taken or not, and nothing else.
            Ok(_) | Err(_) => {
                let found = find(api, name);
                let present = if found.code == 200 { content(&found.body) } else { None };
                assert!(
                    present == says || present == step.leaves(),
                    "{name}: {present:?} after {says:?} was acknowledged and {step:?} was under way"
                );
                if let Some(revision) = revision(&found.body) {
                    assert!(revision >= newest, "{name}: {revision} after {newest}");
                    newest = revision;
                }
                says.clone_from(&present);
                if present != step.leaves() {
                    continue;
                }
            }
        }
        number += 1;
    }
    says
}

/// Keeps a copy by list and watch as an informer does, until it is as new as `until` says; gives it.
fn mirror(api: &Api, until: &Mutex<Option<u64>>) -> (BTreeMap<String, Value>, usize) {
    let mut lists = 0;
    loop {
        let list = e2e::eventually(e2e::limit(60), "a list", || {
            let answer = api.try_request("GET", MAPS, None).map_err(|error| error.to_string())?;
            if answer.code == 200 { Ok(answer.body) } else { Err(answer.body.to_string()) }
        });
        lists += 1;
        let name = |object: &Value| object["metadata"]["name"].as_str().unwrap().to_owned();
        let items = list["items"].as_array().unwrap();
        let mut copy: BTreeMap<String, Value> = items.iter().map(|item| (name(item), item.clone())).collect();
        let mut newest = revision(&list).unwrap();
        'expired: loop {
            if until.lock().unwrap().is_some_and(|until| newest >= until) {
                return (copy, lists);
            }
            let path = format!("{MAPS}?watch=true&allowWatchBookmarks=true&timeoutSeconds=1&resourceVersion={newest}");
            let Ok(watch) = api.watch(&path, e2e::limit(10)) else {
                std::thread::sleep(Duration::from_millis(10));
                continue;
            };
            for (kind, object) in watch {
                if kind == "ERROR" {
                    assert_eq!(object["code"], 410, "{object}");
                    break 'expired;
                }
                let next = revision(&object).unwrap();
                assert!(next > newest || kind == "BOOKMARK", "{kind} {next} after {newest}");
                newest = newest.max(next);
                match kind.as_str() {
                    "DELETED" => drop(copy.remove(&name(&object))),
                    "BOOKMARK" => {}
                    _ => drop(copy.insert(name(&object), object)),
                }
            }
        }
    }
}

fn what_sixty_four_clients_were_told_outlives_kills(node: &mut TestNode) {
    let (done, given, until) = (AtomicBool::new(false), Mutex::new(HashSet::new()), Mutex::new(None));
    let api = node.api();
    let names: Vec<String> = (0..CLIENTS).map(|number| format!("client-{number}")).collect();
    std::thread::scope(|scope| {
        let (api, done, given, until) = (&api, &done, &given, &until);
        let workers: Vec<_> = names.iter().map(|name| scope.spawn(move || work(api, name, done, given))).collect();
        let informer = scope.spawn(move || mirror(api, until));
        for kill in 0..KILLS {
            // The fault's own time: while writes are under way, each time after more of them.
            let begin = Instant::now();
            let before = given.lock().unwrap().len();
            e2e::eventually(e2e::limit(60), "writes go on", || {
                let more = given.lock().unwrap().len() - before;
                if more > 100 { Ok(()) } else { Err(format!("{more} since {begin:?}")) }
            });
            std::thread::sleep(Duration::from_micros(kill * 3700));
            node.kill_daemon();
            node.start_daemon();
        }
        done.store(true, Ordering::Relaxed);
        let said: Vec<Option<String>> = workers.into_iter().map(|worker| worker.join().unwrap()).collect();
        for (name, said) in names.iter().zip(&said) {
            assert_eq!(content(&find(api, name).body), *said, "{name}");
        }
        let list = node.api().get(MAPS);
        *until.lock().unwrap() = revision(&list);
        let (copy, lists) = informer.join().unwrap();
        let items = list["items"].as_array().unwrap();
        let present: Vec<&Value> = items.iter().collect();
        assert_eq!(copy.values().collect::<Vec<_>>(), present, "what the informer has is what there is");
        assert!(lists > 1, "no kill made the informer list anew");
    });
}
