//! The machine shuts down: Pods get their time to end, band after band from the least important to the most, the node says
//! that it is not ready, and nothing new comes to it (KEP-2000, KEP-2712; kubelet, `nodeshutdown`).
//!
//! The kubelet hears of it from logind. Here the systemd unit tells: its `ExecStop` runs `monopod shutdown` and systemd
//! waits for it, so that nothing else of the machine goes before (`docs/decisions/0008-the-unit-tells-of-a-shutdown.md`).

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::agent::{Agent, PODS, Shared};
use crate::desired::DesiredPod;
use crate::ending::Ending;
use crate::endings::BY_THE_NODE;
use crate::events::EventSubject;

/// Reason of a Pod that comes too late.
pub(crate) const REFUSED: &str = "NodeShutdown";
pub(crate) const REFUSED_MESSAGE: &str = "Pod was rejected as the node is shutting down.";
/// What the condition `Ready` says.
pub(crate) const SHUTTING_DOWN: &str = "node is shutting down";
/// Of the Pods that end for it.
const REASON: &str = "Terminated";
const MESSAGE: &str = "Pod was terminated in response to imminent node shutdown.";
/// The lowest priority of Pods that a system needs (`system-cluster-critical`).
const CRITICAL: i32 = 2_000_000_000;

/// Pods of a priority, up to the next band's, and their time to end (`shutdownGracePeriodByPodPriority`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShutdownBand {
    /// The lowest priority that is in it; Pods below the lowest band belong to that one.
    pub priority: i32,
    /// How long they have.
    pub grace: Duration,
}

/// The two bands of `shutdownGracePeriod` and `shutdownGracePeriodCriticalPods`: the latter is a part of the former.
pub fn shutdown_bands(all: Duration, critical: Duration) -> Vec<ShutdownBand> {
    if all.is_zero() || critical > all {
        return Vec::new();
    }
    let others = all.saturating_sub(critical);
    vec![ShutdownBand { priority: 0, grace: others }, ShutdownBand { priority: CRITICAL, grace: critical }]
}

/// Whether the machine shuts down.
#[derive(Debug, Default)]
pub(crate) struct NodeShutdown(AtomicBool);

impl NodeShutdown {
    pub(crate) fn is_under_way(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Whether that is news.
    fn set(&self, under_way: bool) -> bool {
        self.0.swap(under_way, Ordering::AcqRel) != under_way
    }
}

impl Agent {
    /// Ends all Pods, since the machine shuts down, and returns when their time is over or they have ended. False: no time
    /// is configured, so nothing was done.
    pub async fn shutdown_node(&self) -> bool {
        let shared = &self.shared;
        if shared.config.shutdown_bands.is_empty() {
            return false;
        }
        if shared.shutdown.set(true) {
            tell(shared, "Shutdown manager detected shutdown event");
        }
        for (band, pods) in by_band(&shared.config.shutdown_bands, active_pods(shared)) {
            // Who has no Pods takes no time.
            if pods.is_empty() {
                continue;
            }
            for pod in &pods {
                tracing::info!(pod = %pod.pod, grace = ?band.grace, "ends a pod: the machine shuts down");
                let (reason, message) = (REASON.to_owned(), MESSAGE.to_owned());
                let (grace_seconds, disruption) = (Some(band.grace.as_secs()), Some(BY_THE_NODE.to_owned()));
                shared
                    .endings
                    .decide(&pod.uid, Ending { reason, message, grace_seconds, disruption, disruption_message: None });
                shared.wake(&pod.uid);
            }
            if tokio::time::timeout(band.grace, all_ended(shared, &pods)).await.is_err() {
                tracing::warn!(priority = band.priority, "pods have not ended in their time");
            }
        }
        true
    }

    /// The machine stays after all. What has ended stays ended.
    pub fn cancel_node_shutdown(&self) {
        if self.shared.shutdown.set(false) {
            tell(&self.shared, "Shutdown manager detected shutdown cancellation");
        }
    }
}

fn tell(shared: &Shared, message: &str) {
    shared.events.normal(EventSubject::node(&shared.config.node_name), "Shutdown", message);
    shared.node_changed.notify_one();
}

fn active_pods(shared: &Shared) -> Vec<DesiredPod> {
    let stored = shared.store.list(PODS, None).objects;
    let pods = stored.iter().filter_map(|stored| DesiredPod::read(stored).ok());
    pods.filter(|pod| !pod.is_terminal() && shared.room.has(&pod.uid)).collect()
}

/// Each band with its Pods, the lowest priority first (kubelet, `groupByPriority`).
fn by_band(bands: &[ShutdownBand], pods: Vec<DesiredPod>) -> Vec<(ShutdownBand, Vec<DesiredPod>)> {
    let mut groups: Vec<_> = bands.iter().map(|band| (*band, Vec::new())).collect();
    spec::ordered::sort_by_key(&mut groups, |(band, _)| band.priority);
    for pod in pods {
        let priority = pod.spec.priority.unwrap_or_default();
        let place = groups.iter().rposition(|(band, _)| band.priority <= priority).unwrap_or_default();
        if let Some((_, group)) = groups.get_mut(place) {
            group.push(pod);
        }
    }
    groups
}

/// Waits until each Pod is said to have ended, which it is once none of its containers runs, or is gone.
async fn all_ended(shared: &Shared, pods: &[DesiredPod]) {
    loop {
        let Ok(mut watch) = shared.store.watch(PODS, None) else { return };
        while pods.iter().any(|pod| is_alive(shared, pod)) {
            if watch.next().await.is_none() {
                break;
            }
        }
        if watch.expired().is_none() {
            return;
        }
    }
}

fn is_alive(shared: &Shared, pod: &DesiredPod) -> bool {
    shared.pod(&pod.pod).is_some_and(|now| now.uid == pod.uid && !now.is_terminal())
}

#[cfg(test)]
mod tests {
    use runtime::fake::OnSignal;
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{TestNode, condition, is_ready, named_pod};

    fn pod(name: &str, priority: i32) -> Value {
        let container = json!({ "name": name, "image": "app:1" });
        let spec = json!({ "containers": [container], "priority": priority, "terminationGracePeriodSeconds": 30 });
        named_pod(name, &format!("u-{name}"), &spec)
    }

    #[tokio::test(start_paused = true)]
    async fn pods_end_band_by_band_and_none_comes_meanwhile() {
        let node = TestNode::start_with(|config| {
            config.shutdown_bands = shutdown_bands(Duration::from_secs(15), Duration::from_secs(5));
        })
        .await;
        for (name, priority) in [("web", 0), ("log", 2_000_001_000)] {
            node.create(&pod(name, priority)).await;
            node.wait_for(name, is_ready).await;
        }
        node.runtime.on_signal("web", OnSignal::Ignores);
        let agent = node.agent().clone();
        let ended = tokio::spawn(async move { agent.shutdown_node().await });
        node.wait_for_stop_request("u-web").await;
        let shown = node.wait_for_node(|node| node["status"]["conditions"][3]["status"] == "False").await;
        let ready = &shown["status"]["conditions"][3];
        assert_eq!((&ready["reason"], &ready["message"]), (&json!("KubeletNotReady"), &json!("node is shutting down")));
        assert_eq!(shown["spec"]["taints"][0]["key"], "node.kubernetes.io/not-ready");
        assert_eq!(node.wait_for_event("Shutdown").await, "Shutdown manager detected shutdown event");
        node.wait_for_event("NodeNotReady").await;
        assert!(is_ready(&node.get("log").unwrap()), "its band has not come");
        // One that is bound is refused, one that is not waits.
        let mut bound = pod("bound", 0);
        bound["spec"]["nodeName"] = "edge".into();
        node.create(&bound).await;
        let refused = node.wait_for_phase("bound", "Failed").await;
        assert_eq!(refused["status"]["reason"], "NodeShutdown");
        assert_eq!(refused["status"]["message"], "Pod was rejected: Pod was rejected as the node is shutting down.");
        node.create(&pod("late", 0)).await;
        let why = node.wait_for_event("FailedScheduling").await;
        assert!(why.contains("untolerated taint"), "{why}");
        // Its own time is longer than the band's.
        node.advance(11).await;
        let web = node.wait_for_phase("web", "Failed").await;
        assert_eq!((&web["status"]["reason"], &web["status"]["message"]), (&json!(REASON), &json!(MESSAGE)));
        let disruption = condition(&web, "DisruptionTarget");
        assert_eq!((&disruption["reason"], &disruption["message"]), (&json!(BY_THE_NODE), &json!(MESSAGE)));
        node.wait_for_phase("log", "Failed").await;
        assert!(ended.await.unwrap());
        node.agent().cancel_node_shutdown();
        node.wait_for_node(|node| node["status"]["conditions"][3]["status"] == "True").await;
        node.wait_for_phase("late", "Running").await;
        assert_eq!(node.get("web").unwrap()["status"]["phase"], "Failed");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_time_nothing_is_done() {
        let node = TestNode::start().await;
        node.create(&pod("web", 0)).await;
        node.wait_for("web", is_ready).await;
        assert!(!node.agent().shutdown_node().await);
        assert!(is_ready(&node.get("web").unwrap()));
    }

    #[test]
    fn each_pod_is_in_the_highest_band_that_it_reaches() {
        let seconds = Duration::from_secs;
        let bands =
            [(100, 3), (0, 1), (1000, 5)].map(|(priority, grace)| ShutdownBand { priority, grace: seconds(grace) });
        let pods =
            [-5, 0, 99, 100, 5000].map(|priority| crate::testing::desired_pod(&pod(&format!("p{priority}"), priority)));
        let groups: Vec<_> = by_band(&bands, pods.into())
            .into_iter()
            .map(|(band, pods)| (band.grace.as_secs(), pods.iter().map(|pod| pod.pod.name.clone()).collect::<Vec<_>>()))
            .collect();
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(groups, [(1, names(&["p-5", "p0", "p99"])), (3, names(&["p100"])), (5, names(&["p5000"]))]);
        assert_eq!(shutdown_bands(seconds(0), seconds(0)), []);
        let two = shutdown_bands(seconds(30), seconds(10));
        assert_eq!(
            two.iter().map(|band| (band.priority, band.grace.as_secs())).collect::<Vec<_>>(),
            [(0, 20), (CRITICAL, 10)]
        );
    }
}
