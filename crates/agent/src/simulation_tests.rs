//! Pods under random faults: containers exit, sandboxes and daemons die, verbs fail, images change, time passes. Whatever
//! the order, the invariants hold. A failing seed repeats its faults; their interleaving with the workers may differ.

use std::collections::{BTreeMap, BTreeSet};

use runtime::fake::{Happened, OnSignal, Verb};
use serde_json::{Value, json};

use crate::testing::{TestNode, pod, status_of, uid};

const SEEDS: u64 = 24;
const FAULTS: usize = 14;

/// A xorshift generator: the same seed gives the same faults.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::try_from(self.below(choices.len() as u64)).unwrap()]
    }
}

fn random_pod(random: &mut Random) -> (Value, Vec<String>) {
    let init: Vec<_> =
        (0..random.below(4)).map(|n| format!("{}{n}", random.one_of(&["init", "init", "side"]))).collect();
    let apps: Vec<_> = (0..=random.below(2)).map(|n| format!("app{n}")).collect();
    let container = |name: &String| {
        let restart_policy = name.starts_with("side").then_some("Always");
        json!({ "name": name, "image": "app:1", "restartPolicy": restart_policy })
    };
    let list = |names: &[String]| -> Value { names.iter().map(container).collect() };
    let spec = json!({
        "restartPolicy": random.one_of(&["Always", "OnFailure", "Never"]),
        "volumes": [{ "name": "data", "emptyDir": {} }],
        "initContainers": list(&init),
        "containers": list(&apps),
    });
    (pod(&spec), init.into_iter().chain(apps).collect())
}

async fn fault(node: &mut TestNode, random: &mut Random, names: &[String]) -> String {
    let name = names[usize::try_from(random.below(names.len() as u64)).unwrap()].clone();
    match random.below(10) {
        0..=3 => {
            let code = random.one_of(&[0, 0, 1, 137]);
            let was = node.runtime.exit(&name, code);
            format!("{name} exits with {code}: {was}")
        }
        4 => {
            node.runtime.kill_sandboxes(&uid("u-web"));
            "the sandbox dies".to_owned()
        }
        5 => {
            node.kill_agent().await;
            node.start_agent().await;
            "the daemon dies".to_owned()
        }
        6 => {
            let verbs = usize::try_from(random.below(4)).unwrap() + 1;
            node.runtime.halt_after(verbs);
            node.advance(20).await;
            let runtime = node.runtime.clone();
            tokio::select! {
                () = runtime.halted() => {}
                () = node.settle() => {}
            }
            node.kill_agent().await;
            node.runtime.resume();
            node.start_agent().await;
            format!("the daemon dies after {verbs} more steps")
        }
        7 => {
            let verb = random.one_of(&[Verb::RunPodSandbox, Verb::CreateContainer, Verb::StartContainer]);
            node.runtime.fail(verb, 1);
            format!("{verb:?} fails")
        }
        8 if name.starts_with("app") => {
            let image = random.one_of(&["app:1", "app:2"]);
            let changed = name.clone();
            node.edit("web", move |pod| {
                let containers = pod["spec"]["containers"].as_array_mut().unwrap();
                containers.iter_mut().filter(|container| container["name"] == *changed).for_each(|container| {
                    container["image"] = image.into();
                });
            })
            .await;
            format!("{name} gets {image}")
        }
        _ => {
            let seconds = random.one_of(&[1, 10, 40, 400]);
            node.advance(seconds).await;
            format!("{seconds} s pass")
        }
    }
}

/// Nothing starts in a sandbox before all init containers that stand before it ended well in it, and all sidecars before
/// it had been started.
fn check_order(history: &[Happened], names: &[String], exits: &BTreeMap<(String, u32), i32>) {
    let inits: Vec<_> = names.iter().filter(|name| !name.starts_with("app")).collect();
    let mut done = BTreeSet::new();
    let mut started = BTreeSet::new();
    for happened in history {
        match happened.verb {
            Verb::RunPodSandbox => {
                done.clear();
            }
            Verb::StartContainer => {
                let run = (happened.subject.clone(), happened.attempt);
                assert!(started.insert(run.clone()), "{run:?} starts twice");
                let place = inits.iter().position(|name| **name == happened.subject).unwrap_or(inits.len());
                assert!(inits.iter().take(place).all(|name| done.contains(*name)), "{run:?} before its turn");
                if happened.subject.starts_with("side") || exits.get(&run) == Some(&0) {
                    done.insert(happened.subject.clone());
                }
            }
            Verb::StopPodSandbox
            | Verb::RemovePodSandbox
            | Verb::CreateContainer
            | Verb::StopContainer
            | Verb::RemoveContainer => {}
        }
    }
}

/// Watches every status that is published.
#[derive(Default)]
struct Published {
    counts: BTreeMap<String, u64>,
    terminal: Option<String>,
}

impl Published {
    fn check(&mut self, pod: &Value, names: &[String]) {
        let phase = pod["status"]["phase"].as_str().unwrap_or_default().to_owned();
        if let Some(terminal) = &self.terminal {
            assert_eq!(&phase, terminal, "a terminal phase never changes");
        }
        if matches!(phase.as_str(), "Succeeded" | "Failed") {
            self.terminal = Some(phase);
            let runs = names.iter().filter(|name| status_of(pod, name)["state"]["running"].is_object()).count();
            assert_eq!(runs, 0, "nothing runs in a pod that ended: {}", pod["status"]);
        }
        for name in names {
            let count = status_of(pod, name)["restartCount"].as_u64().unwrap_or_default();
            let before = self.counts.insert(name.clone(), count).unwrap_or_default();
            assert!(count >= before, "restartCount of {name} goes from {before} to {count}");
        }
    }
}

async fn simulate(seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut node = TestNode::start().await;
    node.load_image("app:2").await;
    let mut watch = node.store.watch("pods", None).unwrap();
    let (pod, names) = random_pod(&mut random);
    if random.below(2) == 0 {
        for name in names.iter().filter(|name| name.starts_with("init")) {
            node.runtime.exits_at_once(name, Some(0));
        }
    }
    if random.below(3) == 0 {
        node.runtime.on_signal("app0", OnSignal::Ignores);
    }
    node.create(&pod).await;
    let mut told = Vec::new();
    for _ in 0..FAULTS {
        node.settle().await;
        told.push(fault(&mut node, &mut random, &names).await);
        eprintln!("seed {seed}: {}", told.last().unwrap());
    }
    node.settle().await;
    node.delete("web", 30).await;
    // A pass that had begun before may still start something.
    node.settle().await;
    let deleted_at = node.runtime.history().len();
    for _ in 0..40 {
        node.advance(1).await;
        node.settle().await;
    }
    node.wait_until_gone("web").await;
    node.wait_until_clean(|| node.leftovers().is_empty()).await;
    let history = node.runtime.history();
    let late = history
        .iter()
        .skip(deleted_at)
        .find(|happened| matches!(happened.verb, Verb::RunPodSandbox | Verb::CreateContainer | Verb::StartContainer));
    assert_eq!(late, None, "a pod that ends starts nothing");
    check_order(&history, &names, &node.runtime.exits());
    let mut published = Published::default();
    while let Some(event) = watch.next().await {
        published.check(&event.object.value, &names);
        if event.kind == store::WatchKind::Deleted {
            break;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn pods_keep_their_promises_under_faults() {
    for seed in 0..SEEDS {
        simulate(seed).await;
    }
}
