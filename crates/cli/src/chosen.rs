//! The Pod that is meant where a Service or a workload is named: chosen among its Pods as kubectl does (`podutils`).

use std::cmp::Reverse;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::context::Context;
use crate::errors::Failure;
use crate::fields::{Fields as _, plain};
use crate::output::note;
use crate::resources::{PODS, with_query};

/// What the Pod is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A way in: the one that has been ready for longest, with the fewest restarts (`ActivePods`).
    Door,
    /// Its logs: of those that are alike, the one with the most restarts (`ByLogging`).
    Logs,
}

/// A Pod, and what it was found by if it was not named itself.
#[derive(Debug)]
pub struct Chosen {
    /// The Pod.
    pub pod: Value,
    /// The Service or workload that was named.
    pub through: Option<Value>,
}

/// Finds the Pod behind `web`, `pod/web`, `svc/web` or `deployment/web`.
pub async fn choose_pod(argument: &str, purpose: Purpose, context: &Context) -> Result<Chosen> {
    let words =
        if argument.contains('/') { vec![argument.to_owned()] } else { vec!["pod".to_owned(), argument.to_owned()] };
    let targets = context.targets(&words).await?;
    let target = targets.first().context("nothing is named")?;
    let name = target.name.as_deref().unwrap_or_default();
    let kind = target.resource.kind.as_ref();
    let selects = matches!(kind, "Service" | "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" | "Job");
    if kind != "Pod" && !selects {
        return Err(Failure::new(format!("a Pod, a Service or a workload is needed here, not a {kind}")).into());
    }
    let object = context.client.get(&target.resource.object(context.namespace(), name)).await?;
    if kind == "Pod" {
        return Ok(Chosen { pod: object, through: None });
    }
    let selector = selector_of(&object);
    if selector.is_empty() {
        return Err(Failure::new(format!("{} {name:?} selects no Pods", target.resource.singular)).into());
    }
    let path = with_query(&PODS.collection(Some(context.namespace())), &[("labelSelector", &selector)]);
    let list = context.client.get(&path).await?;
    let pods = list.items("/items");
    let Some(pod) = best(pods, purpose) else {
        let what = format!("no Pod has the labels that {} {name:?} selects by", target.resource.singular);
        return Err(Failure::new(what).hint(format!("`monopod get pods -l {selector:?}` lists them")).into());
    };
    if purpose == Purpose::Logs && pods.len() > 1 {
        note(&format!("Found {} pods, using pod/{}", pods.len(), pod.name()));
    }
    Ok(Chosen { pod: pod.clone(), through: Some(object) })
}

/// The labels of its Pods, as a query: a map in a Service, requirements in a workload.
fn selector_of(object: &Value) -> String {
    let is_plain =
        object.at("/spec/selector/matchLabels").is_null() && object.at("/spec/selector/matchExpressions").is_null();
    let labels = if is_plain { "/spec/selector" } else { "/spec/selector/matchLabels" };
    let equal = object.entries(labels).map(|(key, value)| format!("{key}={}", plain(value)));
    let expressions = object.items("/spec/selector/matchExpressions").iter().map(|expression| {
        let values: Vec<String> = expression.items("/values").iter().map(plain).collect();
        let (key, values) = (expression.text("/key"), values.join(","));
        match expression.text("/operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        }
    });
    equal.chain(expressions).collect::<Vec<_>>().join(",")
}

/// The first of them in the order for the purpose.
fn best(pods: &[Value], purpose: Purpose) -> Option<&Value> {
    // Nothing stands behind everything.
    let time = |text: &str| if text.is_empty() { "~".to_owned() } else { text.to_owned() };
    pods.iter().min_by_key(|pod| {
        let phase = match pod.text("/status/phase") {
            "Running" => 0,
            "Unknown" => 1,
            // Whoever has ended has a log.
            "Succeeded" | "Failed" if purpose == Purpose::Logs => 0,
            _ => 2,
        };
        let ready = pod.items("/status/conditions").iter().find(|condition| condition.text("/type") == "Ready");
        let ready = ready.filter(|condition| condition.text("/status") == "True");
        let since = time(ready.map_or("", |condition| condition.text("/lastTransitionTime")));
        let going = match purpose {
            Purpose::Door => pod.text("/metadata/deletionTimestamp"),
            Purpose::Logs => "",
        };
        let restarts =
            pod.items("/status/containerStatuses").iter().filter_map(|status| status.at("/restartCount").as_i64());
        let restarts = restarts.max().unwrap_or_default();
        let restarts = if purpose == Purpose::Door { restarts } else { -restarts };
        let unassigned = pod.text("/spec/nodeName").is_empty();
        let created = time(pod.text("/metadata/creationTimestamp"));
        let going = (!going.is_empty(), Reverse(going.to_owned()));
        (unassigned, phase, ready.is_none(), going, since, restarts, created)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, change: impl FnOnce(&mut Value)) -> Value {
        let mut pod = json!({
            "metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"nodeName": "n1"},
            "status": {
                "phase": "Running", "containerStatuses": [{"restartCount": 1}],
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:01:00Z"}],
            },
        });
        change(&mut pod);
        pod
    }

    #[test]
    fn the_best_pod_is_kubectls() {
        let good = || pod("good", |_| {});
        let cases: [(&str, Value, Option<Purpose>); 8] = [
            ("unassigned", pod("other", |pod| pod["spec"] = json!({})), None),
            ("pending", pod("other", |pod| pod["status"]["phase"] = json!("Pending")), None),
            ("not ready", pod("other", |pod| pod["status"]["conditions"] = json!([])), None),
            ("ended", pod("other", |pod| pod["status"]["phase"] = json!("Succeeded")), Some(Purpose::Door)),
            (
                "goes",
                pod("other", |pod| pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:02:00Z")),
                Some(Purpose::Door),
            ),
            (
                "ready later",
                pod("other", |pod| {
                    pod["status"]["conditions"][0]["lastTransitionTime"] = json!("2026-01-01T00:09:00Z");
                }),
                None,
            ),
            (
                "restarted more often",
                pod("other", |pod| pod["status"]["containerStatuses"][0]["restartCount"] = json!(5)),
                Some(Purpose::Door),
            ),
            ("younger", pod("other", |pod| pod["metadata"]["creationTimestamp"] = json!("2026-01-02T00:00:00Z")), None),
        ];
        for (what, other, purpose) in cases {
            for purpose in purpose.map_or_else(|| vec![Purpose::Door, Purpose::Logs], |purpose| vec![purpose]) {
                for pods in [[good(), other.clone()], [other.clone(), good()]] {
                    assert_eq!(best(&pods, purpose).unwrap().name(), "good", "{what}: {purpose:?}");
                }
            }
        }
        let restarted = pod("other", |pod| pod["status"]["containerStatuses"][0]["restartCount"] = json!(5));
        assert_eq!(best(&[good(), restarted], Purpose::Logs).unwrap().name(), "other");
        assert_eq!(best(&[], Purpose::Door), None);
    }

    #[test]
    fn selectors_of_services_and_workloads_become_queries() {
        assert_eq!(selector_of(&json!({"spec": {"selector": {"app": "web", "tier": "a"}}})), "app=web,tier=a");
        let workload = json!({"spec": {"selector": {"matchLabels": {"app": "web"}, "matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["a", "b"]}, {"key": "old", "operator": "DoesNotExist"},
            {"key": "zone", "operator": "NotIn", "values": ["x"]}, {"key": "new", "operator": "Exists"},
        ]}}});
        assert_eq!(selector_of(&workload), "app=web,tier in (a,b),!old,zone notin (x),new");
        assert_eq!(selector_of(&json!({"spec": {}})), "");
    }
}
