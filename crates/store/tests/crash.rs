//! What was acknowledged survives kill -9 at any point, and no revision is ever given out twice.

#![cfg(test)]

mod common;

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashSet};
use std::hash::BuildHasher;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::{content, delete, event, open, pod, put};
use store::Store;

/// Set in the process that is killed: the directory it writes to.
const VICTIM: &str = "STORE_CRASH_VICTIM";
const WRITERS: u64 = 6;

/// The last step of each writer that was acknowledged, for its object and for its record.
#[derive(Debug, Default)]
struct Acknowledged {
    objects: BTreeMap<String, u64>,
    records: BTreeMap<String, u64>,
}

/// What a writer's object is after a step: its number, or nothing.
fn object_after(step: u64) -> Option<u64> {
    (step % 4 != 3).then_some(step)
}

#[test]
fn what_is_acknowledged_survives_kill_9_and_revisions_never_repeat() {
    if let Some(directory) = std::env::var_os(VICTIM) {
        return write_until_killed(Path::new(&directory));
    }
    let home = tempfile::tempdir().unwrap();
    kill_again_and_again(home.path(), 25);
}

fn kill_again_and_again(home: &Path, rounds: u64) {
    let random = RandomState::new();
    let mut acknowledged = Acknowledged::default();
    let mut revisions = HashSet::new();
    let mut kills = Vec::new();
    for round in 0..rounds {
        let newest = revisions.iter().copied().max().unwrap_or(0);
        let mut victim = start_victim(home);
        let lines = BufReader::new(victim.stdout.take().unwrap()).lines().map(Result::unwrap);
        // Also when much has been brought from the journal to the objects file, and while it is.
        let limit = if round % 3 == 0 { 5000 } else { 300 };
        let kill_after = random.hash_one(round) % limit;
        kills.push(kill_after);
        // After the kill, what was acknowledged before it is still in the pipe.
        for (number, line) in (0..).zip(lines.filter(|line| line.starts_with("did "))) {
            let words: Vec<&str> = line.split(' ').collect();
            let [_, what, name, step, revision] = words[..] else { panic!("what is {line:?}?") };
            let step: u64 = step.parse().unwrap();
            match what {
                "object" => drop(acknowledged.objects.insert(name.to_owned(), step)),
                "record" => drop(acknowledged.records.insert(name.to_owned(), step)),
                _ => assert_eq!(what, "event"),
            }
            if let Ok(revision) = revision.parse::<u64>() {
                assert!(revision > newest, "{line}: but {newest} is of an earlier life; killed after {kills:?}");
                assert!(revisions.insert(revision), "{line}: given out before; killed after {kills:?}");
            }
            if number == kill_after {
                victim.kill().unwrap();
            }
        }
        victim.wait().unwrap();
        let store = open(home);
        assert!(store.revision() >= revisions.iter().copied().max().unwrap_or(0));
        check(&store, &mut acknowledged, &kills);
    }
    assert_eq!(acknowledged.records.len() as u64, WRITERS, "every writer has come far enough");
    assert!(revisions.len() > 100, "only {} revisions were given out", revisions.len());
}

/// Every writer's object and record is as acknowledged, or as after its next step, which was under way.
fn check(store: &Store, acknowledged: &mut Acknowledged, kills: &[u64]) {
    for (name, step) in &mut acknowledged.objects {
        let found = store.get(&pod(name)).map(|object| content(&object).as_u64().unwrap());
        let reached = [*step, *step + 1].into_iter().find(|step| object_after(*step) == found);
        *step = reached.unwrap_or_else(|| panic!("{name}: {found:?} after step {step}; killed after {kills:?}"));
    }
    for (name, step) in &mut acknowledged.records {
        let found = store.record::<u64>("steps", name).unwrap().unwrap();
        assert!(found == *step || found == *step + 1, "record {name}: {found} after {step}; killed after {kills:?}");
        *step = found;
    }
}

fn start_victim(directory: &Path) -> Child {
    #[expect(clippy::disallowed_methods, reason = "a process has to be killed")]
    let mut command = Command::new(std::env::current_exe().unwrap());
    let test = "what_is_acknowledged_survives_kill_9_and_revisions_never_repeat";
    command.args(["--exact", test, "--nocapture"]).env(VICTIM, directory).stdout(Stdio::piped()).spawn().unwrap()
}

fn write_until_killed(directory: &Path) {
    let store = open(directory);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let writers: Vec<_> =
            (0..WRITERS).map(|writer| tokio::spawn(take_steps(store.clone(), format!("writer-{writer}")))).collect();
        for writer in writers {
            writer.await.unwrap();
        }
    });
}

/// Each step changes an object, then a record, then an event, and tells each as soon as it is acknowledged.
async fn take_steps(store: Store, name: String) {
    let recorded = store.record::<u64>("steps", &name).unwrap().unwrap_or(0);
    let reached = store.get(&pod(&name)).and_then(|object| content(&object).as_u64());
    for step in recorded + 1.. {
        // The first step may have been interrupted after its first change.
        if reached != Some(step) {
            let changed = match object_after(step) {
                Some(number) => Some(put(&store, &pod(&name), number).await),
                None => delete(&store, &pod(&name)).await,
            };
            let revision = changed.map_or("none".to_owned(), |object| object.revision.to_string());
            println!("did object {name} {step} {revision}");
        }
        store.put_record("steps", &name, &step).await.unwrap();
        println!("did record {name} {step} none");
        let written = put(&store, &event(&format!("{name}-{}", step % 5)), step).await;
        println!("did event {name} {step} {}", written.revision);
    }
}
