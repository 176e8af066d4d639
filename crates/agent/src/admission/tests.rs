//! Pods that fit, wait, and are refused, with the real worker.

use serde_json::{Value, json};

use super::*;
use crate::testing::{TestNode, condition, named_pod};

fn requesting(name: &str, cpu: &str) -> Value {
    named_pod(
        name,
        &format!("u-{name}"),
        &json!({"containers": [{"name": "app", "image": "app:1", "resources": {"requests": {"cpu": cpu}}}]}),
    )
}

async fn small_node() -> TestNode {
    let node = TestNode::start().await;
    node.edit_node(|object| object["status"]["allocatable"] = json!({"cpu": "2", "memory": "1Gi", "pods": "3"})).await;
    node
}

#[test]
fn messages_are_the_schedulers() {
    let cpu = |allocatable| Misfit::Resource { resource: "cpu".to_owned(), requested: 3, used: 2, allocatable };
    let memory = Misfit::Resource { resource: "memory".to_owned(), requested: 1, used: 2, allocatable: 2 };
    let short = "0/1 nodes are available: 1 Insufficient cpu.";
    let table = [
        (
            vec![memory, cpu(4)],
            Preemption::NobodyLower,
            "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient memory. preemption: 0/1 nodes are available: 1 \
             No preemption victims found for incoming pod."
                .to_owned(),
        ),
        (
            vec![cpu(2)],
            Preemption::Unhelpful,
            format!("{short} preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."),
        ),
        (
            vec![cpu(4)],
            Preemption::StillUnfit(vec![cpu(4)]),
            format!("{short} preemption: 0/1 nodes are available: 1 Insufficient cpu."),
        ),
        (
            vec![cpu(4)],
            Preemption::Never,
            format!("{short} preemption: not eligible due to preemptionPolicy=Never."),
        ),
        (vec![cpu(4)], Preemption::Nominated, short.to_owned()),
    ];
    for (misfits, preemption, expected) in table {
        assert_eq!(unschedulable_message(&misfits, &preemption), expected);
    }
}

fn important(name: &str, cpu: &str, priority: i32) -> Value {
    let mut pod = requesting(name, cpu);
    pod["spec"]["priority"] = priority.into();
    pod
}

#[tokio::test(start_paused = true)]
async fn a_more_important_pod_takes_room_from_the_least_important() {
    let node = small_node().await;
    node.edit_node(|object| object["status"]["allocatable"]["pods"] = "9".into()).await;
    for (name, cpu, priority) in [("high", "500m", 5), ("low", "1", 1), ("least", "500m", 0)] {
        node.create(&important(name, cpu, priority)).await;
        node.wait_for_phase(name, "Running").await;
    }
    node.runtime.on_signal("app", runtime::fake::OnSignal::Ignores);
    node.create(&important("urgent", "1500m", 10)).await;
    let waiting = node.wait_for("urgent", |pod| pod["status"]["nominatedNodeName"] == "edge").await;
    let said = "0/1 nodes are available: 1 Insufficient cpu.";
    assert_eq!(condition(&waiting, "PodScheduled")["message"], said);
    assert_eq!(node.wait_for_event("FailedScheduling").await, said);
    let message = "default-scheduler: preempting to accommodate a higher priority pod";
    for victim in ["low", "least"] {
        let pod = node.get(victim).unwrap();
        assert!(pod["metadata"]["deletionTimestamp"].is_string(), "{victim}");
        let target = condition(&pod, "DisruptionTarget");
        assert_eq!((&target["reason"], &target["message"]), (&json!("PreemptionByScheduler"), &json!(message)));
    }
    assert_eq!(node.event_count("Preempted", "Preempted by pod u-urgent on node edge"), 2);
    assert!(node.get("high").unwrap()["metadata"]["deletionTimestamp"].is_null());
    // What they leave is kept for it: also what fits before all of them are gone.
    node.create(&important("small", "500m", 0)).await;
    node.wait_for("small", |pod| condition(pod, "PodScheduled")["status"] == "False").await;
    node.delete("least", 0).await;
    node.advance(2).await;
    node.wait_until_gone("least").await;
    node.settle().await;
    assert_eq!(node.get("small").unwrap()["status"]["phase"], "Pending");
    node.advance(30).await;
    let pod = node.wait_for_phase("urgent", "Running").await;
    assert_eq!(pod["status"]["nominatedNodeName"], Value::Null);
    assert_eq!(node.event_count("Preempted", "Preempted by pod u-urgent on node edge"), 2, "once for each");
    assert_eq!(node.get("high").unwrap()["status"]["phase"], "Running");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_not_to_preempt_waits_for_room() {
    let node = small_node().await;
    node.create(&important("low", "2", 0)).await;
    node.wait_for_phase("low", "Running").await;
    let mut polite = important("polite", "1", 10);
    polite["spec"]["preemptionPolicy"] = "Never".into();
    node.create(&polite).await;
    let said = node.wait_for_event("FailedScheduling").await;
    assert!(said.ends_with("preemption: not eligible due to preemptionPolicy=Never."), "{said}");
    node.create(&important("equal", "1", 0)).await;
    let said = |said: &str| said.ends_with("1 No preemption victims found for incoming pod.");
    node.wait_for_message("FailedScheduling", said).await;
    node.settle().await;
    assert!(node.get("low").unwrap()["metadata"]["deletionTimestamp"].is_null());
}

#[tokio::test(start_paused = true)]
async fn a_preemptor_that_is_deleted_leaves_the_room_to_others() {
    let node = small_node().await;
    node.create(&important("low", "2", 0)).await;
    node.wait_for_phase("low", "Running").await;
    node.runtime.on_signal("app", runtime::fake::OnSignal::Ignores);
    node.create(&important("urgent", "2", 10)).await;
    node.wait_for("urgent", |pod| pod["status"]["nominatedNodeName"] == "edge").await;
    node.create(&important("next", "1", 0)).await;
    node.wait_for("next", |pod| condition(pod, "PodScheduled")["status"] == "False").await;
    node.delete("urgent", 0).await;
    node.wait_until_gone("urgent").await;
    node.advance(31).await;
    node.wait_for_phase("next", "Running").await;
}

#[tokio::test(start_paused = true)]
async fn a_critical_pod_that_was_bound_here_ends_others_and_comes_when_they_are_gone() {
    let mut node = small_node().await;
    for (name, cpu) in [("large", "1500m"), ("small", "500m")] {
        node.create(&important(name, cpu, 0)).await;
        node.wait_for_phase(name, "Running").await;
    }
    node.runtime.on_signal("app", runtime::fake::OnSignal::Ignores);
    let mut critical = important("critical", "400m", 2_000_001_000);
    critical["spec"]["nodeName"] = "edge".into();
    node.create(&critical).await;
    assert_eq!(node.wait_for_event("Preempting").await, "Preempted in order to admit critical pod");
    node.wait_for_stop_request("u-small").await;
    // The next daemon goes on with it.
    node.kill_agent().await;
    node.start_agent().await;
    node.settle().await;
    assert_eq!(node.get("critical").unwrap()["status"]["containerStatuses"], Value::Null);
    node.advance(31).await;
    let failed = node.wait_for_phase("small", "Failed").await;
    assert_eq!(failed["status"]["reason"], "Preempting");
    assert_eq!(failed["status"]["message"], "Preempted in order to admit critical pod");
    let target = condition(&failed, "DisruptionTarget");
    assert_eq!(target["reason"], "TerminationByKubelet");
    assert_eq!(target["message"], "Pod was preempted by Kubelet to accommodate a critical pod.");
    node.wait_for_phase("critical", "Running").await;
    assert_eq!(node.get("large").unwrap()["status"]["phase"], "Running");
    let mut huge = important("huge", "9", 2_000_001_000);
    huge["spec"]["nodeName"] = "edge".into();
    node.create(&huge).await;
    let failed = node.wait_for_phase("huge", "Failed").await;
    assert_eq!(failed["status"]["reason"], "UnexpectedAdmissionError");
    let why = "error finding a set of pods to preempt: no set of running pods found to reclaim resources: [(res: cpu, ";
    assert!(failed["status"]["message"].as_str().unwrap().contains(why), "{failed}");
    assert_eq!(node.get("large").unwrap()["status"]["phase"], "Running");
}

#[tokio::test(start_paused = true)]
async fn a_pod_waits_for_room_and_starts_when_there_is_some() {
    let node = small_node().await;
    node.create(&requesting("first", "1500m")).await;
    node.wait_for_phase("first", "Running").await;
    node.create(&requesting("second", "1")).await;
    let waiting = node.wait_for("second", |pod| condition(pod, "PodScheduled")["status"] == "False").await;
    assert_eq!(waiting["status"]["phase"], "Pending");
    assert_eq!(condition(&waiting, "PodScheduled")["reason"], "Unschedulable");
    assert_eq!(waiting["spec"]["nodeName"], Value::Null);
    assert_eq!(waiting["status"]["containerStatuses"], Value::Null);
    let said = node.wait_for_event("FailedScheduling").await;
    assert!(said.starts_with("0/1 nodes are available: 1 Insufficient cpu."), "{said}");
    node.delete("first", 0).await;
    let running = node.wait_for_phase("second", "Running").await;
    assert_eq!(running["spec"]["nodeName"], "edge");
    assert_eq!(condition(&running, "PodScheduled")["status"], "True");
}

#[tokio::test(start_paused = true)]
async fn the_more_important_pod_gets_room_first_and_a_smaller_one_passes() {
    let node = small_node().await;
    node.create(&important("first", "2", 10)).await;
    node.wait_for_phase("first", "Running").await;
    for (name, cpu, priority) in [("low", "2", 0), ("high", "2", 10), ("small", "0", 0)] {
        node.create(&important(name, cpu, priority)).await;
        node.wait_for(name, |pod| condition(pod, "PodScheduled")["status"] != Value::Null).await;
    }
    node.wait_for_phase("small", "Running").await;
    node.delete("first", 0).await;
    node.wait_for_phase("high", "Running").await;
    assert_eq!(condition(&node.get("low").unwrap(), "PodScheduled")["status"], "False");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_somebody_bound_here_fails_where_it_does_not_fit() {
    let node = small_node().await;
    let mut pod = requesting("web", "5");
    pod["spec"]["nodeName"] = "edge".into();
    node.create(&pod).await;
    let failed = node.wait_for_phase("web", "Failed").await;
    let why = "Node didn't have enough resource: cpu, requested: 5000, used: 0, capacity: 2000";
    assert_eq!(failed["status"]["reason"], "OutOfcpu");
    assert_eq!(failed["status"]["message"], format!("Pod was rejected: {why}"));
    assert_eq!(node.wait_for_event("OutOfcpu").await, why);
    let mut windows = requesting("windows", "0");
    windows["spec"]["os"] = json!({"name": "windows"});
    node.create(&windows).await;
    assert_eq!(node.wait_for_phase("windows", "Failed").await["status"]["reason"], "PodOSNotSupported");
    let mut selecting = requesting("selecting", "0");
    selecting["spec"]["nodeName"] = "edge".into();
    selecting["spec"]["nodeSelector"] = json!({"kubernetes.io/os": "windows"});
    node.create(&selecting).await;
    let failed = node.wait_for_phase("selecting", "Failed").await;
    assert_eq!(failed["status"]["reason"], "PodOSSelectorNodeLabelDoesNotMatch");
    // It takes no room: as many as may be here still fit.
    for name in ["a", "b", "c"] {
        node.create(&requesting(name, "0")).await;
        node.wait_for_phase(name, "Running").await;
    }
    node.create(&requesting("d", "0")).await;
    assert!(node.wait_for_event("FailedScheduling").await.contains("1 Too many pods."));
}

#[tokio::test(start_paused = true)]
async fn who_runs_stays_when_the_agent_comes_again_to_a_smaller_node() {
    let mut node = small_node().await;
    node.create(&requesting("web", "1")).await;
    node.wait_for_phase("web", "Running").await;
    node.kill_agent().await;
    node.start_agent().await;
    node.edit_node(|object| object["status"]["allocatable"] = json!({"cpu": "1500m", "pods": "3"})).await;
    node.create(&requesting("next", "1")).await;
    assert!(node.wait_for_event("FailedScheduling").await.contains("Insufficient cpu"));
    assert_eq!(node.get("web").unwrap()["status"]["phase"], "Running");
    // Labels and taints count at once.
    node.edit_node(|object| object["status"]["allocatable"]["cpu"] = "4".into()).await;
    node.wait_for_phase("next", "Running").await;
    node.edit_node(|object| object["spec"]["taints"] = json!([{"key": "k", "effect": "NoSchedule"}])).await;
    node.create(&requesting("third", "0")).await;
    let wanted = |message: &str| message.contains("1 node(s) had untolerated taint {k: }");
    node.wait_for_message("FailedScheduling", wanted).await;
    assert!(node.verbs().iter().filter(|verb| verb.starts_with("StartContainer")).count() == 2);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_stays_in_the_timeline_and_goes_with_the_pod() {
    let mut node = small_node().await;
    let mut bound = requesting("big", "3");
    bound["spec"]["nodeName"] = "edge".into();
    node.create(&bound).await;
    node.wait_for_phase("big", "Failed").await;
    node.kill_agent().await;
    node.start_agent().await;
    let told = node.agent().timeline(&spec::PodRef::new("default", "big")).await.unwrap();
    let told: Vec<_> = told.iter().map(|moment| serde_json::to_value(moment).unwrap()).collect();
    assert!(told.iter().any(|moment| moment["reason"] == "OutOfcpu"), "{told:?}");
    assert!(told.iter().any(|moment| moment["kind"] == "pod" && moment["phase"] == "Failed"), "{told:?}");
    node.delete("big", 0).await;
    node.wait_until_gone("big").await;
    node.wait_until_clean(|| node.leftovers().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_asks_for_apparmor_fails_on_a_machine_without() {
    let asking = |name: &str, profile: &str| {
        let context = json!({"appArmorProfile": {"type": profile}});
        let containers = json!([{"name": "app", "image": "app:1", "securityContext": context}]);
        named_pod(name, &format!("u-{name}"), &json!({"containers": containers}))
    };
    let node = TestNode::start_with(|config| config.has_apparmor = false).await;
    node.create(&asking("web", "RuntimeDefault")).await;
    let failed = node.wait_for_phase("web", "Failed").await;
    let why = "Cannot enforce AppArmor: AppArmor is not enabled on the host";
    assert_eq!(failed["status"]["reason"], "AppArmor");
    assert_eq!(failed["status"]["message"], format!("Pod was rejected: {why}"));
    assert_eq!(node.wait_for_event("AppArmor").await, why);
    node.create(&asking("open", "Unconfined")).await;
    node.wait_for_phase("open", "Running").await;
    let node = TestNode::start_with(|config| config.has_apparmor = true).await;
    node.create(&asking("web", "RuntimeDefault")).await;
    node.wait_for_phase("web", "Running").await;
}
