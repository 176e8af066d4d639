//! Control groups made ahead: a Pod finds its own under the UID that it was given, and the others leave nothing.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use runtime::{PodSandboxConfig, QosClass, Runtime as _};
use spec::PodUid;

use super::{Node, chain};

/// The directories of all Pods of a class, in all hierarchies.
fn pods(node: &Node, class: &str) -> Vec<PathBuf> {
    let below = Path::new(&Node::parent(node.directory.path())).join(class);
    let cgroup = Path::new("/sys/fs/cgroup");
    let hierarchies = std::fs::read_dir(cgroup).unwrap().map(|entry| entry.unwrap().path());
    let classes = hierarchies.chain([cgroup.to_owned()]).map(|hierarchy| hierarchy.join(&below));
    classes.flat_map(|class| directories(&class)).collect()
}

fn directories(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.is_dir()).collect()
}

fn of(node: &Node, uid: &PodUid) -> Vec<PathBuf> {
    pods(node, "besteffort").into_iter().filter(|path| path.ends_with(format!("pod{uid}"))).collect()
}

async fn uid(node: &Node, class: QosClass) -> PodUid {
    let limit = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(uid) = node.runtime.prepared_uid(class) {
            return uid;
        }
        assert!(Instant::now() < limit, "no control group was made ahead");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub async fn are_there_before_their_pod() {
    let node = Node::new().await;
    assert_eq!(node.runtime.prepared_uid(QosClass::BestEffort), None, "nobody keeps any");
    node.runtime.keep_spare_sandboxes();
    node.runtime.keep_control_groups_ahead();
    let (given, idle) = (uid(&node, QosClass::BestEffort).await, uid(&node, QosClass::BestEffort).await);
    assert_ne!(given, idle);
    let made = of(&node, &given);
    assert!(!made.is_empty() && !of(&node, &idle).is_empty());

    let config = PodSandboxConfig { uid: given.clone(), ..node.sandbox_config() };
    let sandbox = node.runtime.run_pod_sandbox(config).await.map_err(chain).unwrap();
    let id = node.start(&sandbox.id, node.container("app", "sleep 1000; exit")).await;
    assert_eq!(of(&node, &given), made, "none is made anew");
    for pod in &made {
        let containers = directories(pod);
        assert!(containers == [pod.join(id.as_str())], "{containers:?}");
        assert_ne!(std::fs::read_to_string(containers[0].join("cgroup.procs")).unwrap(), "", "it runs there");
    }
    let (_, denied) = node.run(&id, "mknod /tmp/loop b 7 0 && cat /tmp/loop").await;
    assert!(denied.contains("Operation not permitted"), "{denied}");
    // The next containers have cgroups of their own.
    let second = node.start(&sandbox.id, node.container("second", "sleep 1000; exit")).await;
    assert!(made.iter().all(|pod| pod.join(second.as_str()).exists()));

    // A Pod that does not start keeps nothing.
    let limit = Instant::now() + Duration::from_secs(20);
    while !of(&node, &idle).is_empty() {
        assert!(Instant::now() < limit, "what nobody starts stays");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let config = PodSandboxConfig { uid: idle.clone(), attempt: 1, ..node.sandbox_config() };
    let late = node.runtime.run_pod_sandbox(config).await.map_err(chain).unwrap();
    node.start(&late.id, node.container("late", "sleep 1000; exit")).await;
    assert_eq!(of(&node, &idle).len(), made.len(), "it gets its own when it does");

    assert_eq!(node.runtime.prepared_uid(QosClass::Burstable), None, "no Pod of this class was created");
    uid(&node, QosClass::Burstable).await;
    let limit = Instant::now() + Duration::from_secs(20);
    // What the last Pods were: both places are of this class now, and none of the other one is left but those two Pods'.
    while pods(&node, "besteffort").len() != 2 * made.len() || pods(&node, "burstable").len() < 2 * made.len() {
        assert!(Instant::now() < limit, "what is not wanted any more stays");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    node.runtime.end_spare_sandboxes().await;
    assert!(pods(&node, "burstable").is_empty());
    assert_eq!(pods(&node, "besteffort").len(), 2 * made.len());
    node.runtime.remove_pod_sandbox(&late.id).await.map_err(chain).unwrap();
    node.finish(&sandbox.id).await;
}
