//! Pods whose infra process lives and does not answer: stopped, or on a starved machine.

use runtime::fake::Verb;
use serde_json::json;

use crate::testing::{TestNode, is_ready, pod, status_of, uid};

async fn silent_node() -> TestNode {
    let mut node = TestNode::start().await;
    let containers = json!([{"name": "app", "image": "app:1"}]);
    node.create(&pod(&json!({"containers": containers, "terminationGracePeriodSeconds": 20}))).await;
    node.wait_for("web", is_ready).await;
    node.kill_agent().await;
    node.runtime.set_silent(&uid("u-web"), true);
    node.start_agent().await;
    let told = node.wait_for_event("FailedSync").await;
    assert!(told.contains("does not answer"), "{told}");
    node
}

#[tokio::test(start_paused = true)]
async fn what_nobody_knows_is_left_alone_and_goes_on_when_it_answers() {
    let node = silent_node().await;
    let before = node.get("web");
    node.pass(100).await;
    assert_eq!(node.get("web"), before);
    node.runtime.set_silent(&uid("u-web"), false);
    node.settle().await;
    let after = node.get("web").unwrap();
    assert!(is_ready(&after) && status_of(&after, "app")["restartCount"] == 0, "{after}");
    let made = |verb| node.runtime.history().iter().filter(|happened| happened.verb == verb).count();
    assert_eq!((made(Verb::RunPodSandbox), made(Verb::StartContainer), made(Verb::StopPodSandbox)), (1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_deletion_waits_for_the_answer_no_longer_than_its_grace_period() {
    let node = silent_node().await;
    node.delete("web", 20).await;
    node.pass(19).await;
    assert!(node.get("web").is_some());
    node.pass(1).await;
    node.wait_until_gone("web").await;
    assert!(node.runtime.is_empty());
}
