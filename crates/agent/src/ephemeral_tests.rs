//! Containers that are added to a running pod, on a fake runtime.

use runtime::PidMode;
use serde_json::{Value, json};
use spec::ContainerName;

use crate::logs::LogOptions;
use crate::testing::{TestNode, condition, pod, status_of};

async fn start() -> TestNode {
    let node = TestNode::start().await;
    let spec = json!({ "restartPolicy": "Never", "containers": [{ "name": "app", "image": "app:1" }] });
    node.create(&pod(&spec)).await;
    node.wait_for("web", |pod| condition(pod, "Ready")["status"] == "True").await;
    node
}

async fn add(node: &TestNode, name: &'static str, target: Option<&'static str>) {
    node.edit("web", move |pod| {
        let added =
            json!({ "name": name, "image": "app:1", "imagePullPolicy": "IfNotPresent", "targetContainerName": target });
        match pod["spec"]["ephemeralContainers"].as_array_mut() {
            Some(list) => list.push(added),
            None => pod["spec"]["ephemeralContainers"] = json!([added]),
        }
    })
    .await;
}

fn runs(pod: &Value, name: &str) -> bool {
    status_of(pod, name)["state"]["running"].is_object()
}

#[tokio::test(start_paused = true)]
async fn an_ephemeral_container_joins_its_target_and_is_never_restarted() {
    let mut node = start().await;
    add(&node, "debug", Some("app")).await;
    let pod = node.wait_for("web", |pod| runs(pod, "debug")).await;
    let app = status_of(&pod, "app")["containerID"].as_str().unwrap().trim_start_matches("monopod://").to_owned();
    match node.runtime.container_config("debug").unwrap().pid {
        PidMode::Target(target) => assert_eq!(target.as_str(), app),
        other @ (PidMode::Container | PidMode::Pod | PidMode::Host) => panic!("{other:?}"),
    }
    assert_eq!(status_of(&pod, "debug")["ready"], false);
    assert_eq!(condition(&pod, "Ready")["status"], "True", "it does not count");
    let web = spec::PodRef::new("default", "web");
    assert!(node.agent().logs(&web, &ContainerName::new("debug"), LogOptions::default()).is_ok());
    assert!(node.runtime.exit("debug", 3));
    let pod = node.wait_for("web", |pod| status_of(pod, "debug")["state"]["terminated"]["exitCode"] == 3).await;
    assert_eq!(pod["status"]["phase"], "Running");
    node.kill_agent().await;
    node.start_agent().await;
    add(&node, "again", None).await;
    let pod = node.wait_for("web", |pod| runs(pod, "again")).await;
    assert_eq!(status_of(&pod, "debug")["restartCount"], 0);
    assert_eq!(node.runtime.container_config("again").unwrap().pid, PidMode::Container);
    // The app alone decides about the end, and what was added ends with the pod.
    assert!(node.runtime.exit("app", 0));
    let pod = node.wait_for_phase("web", "Succeeded").await;
    assert_eq!(status_of(&pod, "again")["state"]["terminated"]["exitCode"], 143);
}

#[tokio::test(start_paused = true)]
async fn a_target_that_does_not_run_is_named() {
    let node = TestNode::start().await;
    let spec = json!({
        "initContainers": [{ "name": "init", "image": "app:1" }],
        "containers": [{ "name": "app", "image": "app:1" }],
    });
    node.create(&pod(&spec)).await;
    node.wait_for("web", |pod| runs(pod, "init")).await;
    add(&node, "debug", Some("app")).await;
    let pod = node.wait_for_reason("web", "debug", "CreateContainerConfigError").await;
    assert_eq!(status_of(&pod, "debug")["state"]["waiting"]["message"], "unable to find target container app");
    assert!(node.runtime.exit("init", 0));
    node.wait_for("web", |pod| runs(pod, "app")).await;
    node.advance(10).await;
    node.wait_for("web", |pod| runs(pod, "debug")).await;
}
