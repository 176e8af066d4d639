//! metrics.k8s.io, which `kubectl top` asks, and pages in Prometheus' text format.

use std::fmt::Write as _;
use std::time::Duration;

use agent::{ResourceUsage, Usage};
use http::StatusCode;
use serde_json::{Value, json};
use spec::PodRef;
use store::ObjectKey;

use crate::context::Context;
use crate::http::query::Query;
use crate::http::reply::{self, Reply, whole};
use crate::http::status::ApiError;
use crate::kinds::{NODE, POD};
use crate::render::encode;
use crate::selector::LabelSelector;
use crate::verbs::metadata::seconds;

/// The API group.
pub const GROUP: &str = "metrics.k8s.io";
/// Its version.
pub const VERSION: &str = "v1beta1";
const API_VERSION: &str = "metrics.k8s.io/v1beta1";

/// Resource, kind, and whether it is in namespaces.
pub const RESOURCES: [(&str, &str, bool); 2] = [("nodes", "NodeMetrics", false), ("pods", "PodMetrics", true)];

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetricsDoor {
    /// All nodes, or one.
    Nodes(Option<String>),
    /// Pods of all namespaces.
    AllPods,
    /// Pods of a namespace, or one.
    Pods(String, Option<String>),
}

impl MetricsDoor {
    /// Its place below the group's path.
    pub fn find(rest: &[&str]) -> Option<Self> {
        let owned = |text: &&str| (*text).to_owned();
        match rest {
            ["nodes"] => Some(Self::Nodes(None)),
            ["nodes", name] => Some(Self::Nodes(Some(owned(name)))),
            ["pods"] => Some(Self::AllPods),
            ["namespaces", namespace, "pods"] => Some(Self::Pods(owned(namespace), None)),
            ["namespaces", namespace, "pods", name] => Some(Self::Pods(owned(namespace), Some(owned(name)))),
            _ => None,
        }
    }

    /// The resource, the namespace and the name.
    pub fn parts(&self) -> (&'static str, &str, &str) {
        match self {
            Self::Nodes(name) => ("nodes", "", name.as_deref().unwrap_or_default()),
            Self::AllPods => ("pods", "", ""),
            Self::Pods(namespace, name) => ("pods", namespace, name.as_deref().unwrap_or_default()),
        }
    }
}

/// Answers with what is used now.
pub async fn answer(context: &Context, door: &MetricsDoor, query: &Query) -> Result<Reply, ApiError> {
    let labels = LabelSelector::parse(query.get("labelSelector").unwrap_or_default())?;
    let usage = context.agent.usage().await;
    let body = match door {
        MetricsDoor::Nodes(Some(name)) => {
            let node = node(context, &usage).filter(|_| *name == context.node_name);
            node.ok_or_else(|| ApiError::not_found(&NODE, name))?
        }
        MetricsDoor::Nodes(None) => list("NodeMetricsList", node(context, &usage).filter(|node| labels.matches(node))),
        MetricsDoor::Pods(namespace, Some(name)) => {
            let wanted = PodRef::new(namespace.as_str(), name.as_str());
            let found = pods(context, &usage, Some(namespace)).find(|(pod, _)| **pod == wanted);
            found.map(|(_, item)| item).ok_or_else(|| ApiError::not_found(&POD, name))?
        }
        MetricsDoor::Pods(namespace, None) => {
            let found = pods(context, &usage, Some(namespace)).map(|(_, item)| item);
            list("PodMetricsList", found.filter(|item| labels.matches(item)))
        }
        MetricsDoor::AllPods => {
            let found = pods(context, &usage, None).map(|(_, item)| item);
            list("PodMetricsList", found.filter(|item| labels.matches(item)))
        }
    };
    Ok(reply::json(encode(&body)))
}

fn list(kind: &str, items: impl IntoIterator<Item = Value>) -> Value {
    let items: Vec<Value> = items.into_iter().collect();
    json!({"kind": kind, "apiVersion": API_VERSION, "metadata": {}, "items": items})
}

fn node(context: &Context, usage: &Usage) -> Option<Value> {
    let stored = context.store.get(&ObjectKey::cluster(NODE.resource, context.node_name.as_str()))?;
    let mut item = item("NodeMetrics", &stored.value, usage);
    item.as_object_mut()?.insert("usage".to_owned(), amounts(usage.node));
    Some(item)
}

fn pods<'a>(
    context: &'a Context,
    usage: &'a Usage,
    namespace: Option<&'a str>,
) -> impl Iterator<Item = (&'a PodRef, Value)> {
    let wanted = usage.pods.iter().filter(move |pod| namespace.is_none_or(|name| pod.pod.pod_namespace == name));
    wanted.filter_map(|of_pod| {
        let pod = &of_pod.pod;
        let key = ObjectKey::namespaced(POD.resource, pod.pod_namespace.as_str(), pod.name.as_str());
        let mut item = item("PodMetrics", &context.store.get(&key)?.value, usage);
        let containers: Vec<Value> = of_pod
            .containers
            .iter()
            .map(|(name, used)| json!({"name": name.as_str(), "usage": amounts(*used)}))
            .collect();
        item.as_object_mut()?.insert("containers".to_owned(), containers.into());
        Some((pod, item))
    })
}

/// Name and labels of the object, and the time.
fn item(kind: &str, object: &Value, usage: &Usage) -> Value {
    let mut metadata = json!({"creationTimestamp": seconds(usage.timestamp)});
    for field in ["name", "namespace", "labels"] {
        if let (Some(value), Some(metadata)) = (object.pointer(&format!("/metadata/{field}")), metadata.as_object_mut())
        {
            metadata.insert(field.to_owned(), value.clone());
        }
    }
    let window = format!("{}.{:03}s", usage.window.as_secs(), usage.window.subsec_millis());
    json!({
        "kind": kind, "apiVersion": API_VERSION, "metadata": metadata, "timestamp": seconds(usage.timestamp),
        "window": window,
    })
}

fn amounts(used: ResourceUsage) -> Value {
    json!({"cpu": format!("{}n", used.nanocores), "memory": format!("{}Ki", used.working_set / 1024)})
}

/// `/metrics/resource`, as the kubelet has it (KEP-727).
pub async fn resource_page(context: &Context) -> Reply {
    let usage = context.agent.usage().await;
    let mut page = Page::default();
    page.family("node_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the node in core-seconds");
    page.value(&[], &cpu(usage.node));
    page.family("node_memory_working_set_bytes", "gauge", "Current working set of the node in bytes");
    page.value(&[], &usage.node.working_set.to_string());
    let containers = || usage.pods.iter().flat_map(|pod| pod.containers.iter().map(move |one| (&pod.pod, one)));
    let of_container = |pod: &PodRef, name: &str| {
        [("container", name.to_owned()), ("namespace", pod.pod_namespace.clone()), ("pod", pod.name.clone())]
    };
    let help = "Cumulative cpu time consumed by the container in core-seconds";
    page.family("container_cpu_usage_seconds_total", "counter", help);
    for (pod, (name, used)) in containers() {
        page.value(&of_container(pod, name.as_str()), &cpu(*used));
    }
    page.family("container_memory_working_set_bytes", "gauge", "Current working set of the container in bytes");
    for (pod, (name, used)) in containers() {
        page.value(&of_container(pod, name.as_str()), &used.working_set.to_string());
    }
    let of_pod = |pod: &PodRef| [("namespace", pod.pod_namespace.clone()), ("pod", pod.name.clone())];
    page.family("pod_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the pod in core-seconds");
    for pod in &usage.pods {
        page.value(&of_pod(&pod.pod), &cpu(pod.whole));
    }
    page.family("pod_memory_working_set_bytes", "gauge", "Current working set of the pod in bytes");
    for pod in &usage.pods {
        page.value(&of_pod(&pod.pod), &pod.whole.working_set.to_string());
    }
    page.reply()
}

/// `/metrics`: the daemon itself, and how many objects it keeps.
pub fn page(context: &Context) -> Reply {
    let mut page = Page::default();
    page.family("monopod_build_info", "gauge", "Always 1; its label is the version");
    page.value(&[("version", context.version.clone())], "1");
    page.family("monopod_pods", "gauge", "Pods by phase");
    let pods = context.store.list(POD.resource, None).objects;
    for phase in ["Pending", "Running", "Succeeded", "Failed", "Unknown"] {
        let count = pods.iter().filter(|pod| crate::fields::text_at(&pod.value, "/status/phase") == phase).count();
        page.value(&[("phase", phase.to_owned())], &count.to_string());
    }
    page.family("apiserver_storage_objects", "gauge", "Objects in the store by resource");
    for kind in crate::kinds::KINDS.into_iter().filter(|kind| kind.renames.is_empty()) {
        let count = context.store.list(kind.resource, None).objects.len();
        page.value(&[("resource", kind.qualified())], &count.to_string());
    }
    let process = agent::own_process();
    page.family("process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.");
    page.value(&[], &decimal(process.cpu));
    page.family("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.");
    page.value(&[], &process.resident_bytes.to_string());
    page.family("process_open_fds", "gauge", "Number of open file descriptors.");
    page.value(&[], &process.descriptors.to_string());
    page.reply()
}

fn cpu(used: ResourceUsage) -> String {
    decimal(Duration::from_nanos(used.cpu_nanos))
}

fn decimal(duration: Duration) -> String {
    format!("{}.{:09}", duration.as_secs(), duration.subsec_nanos())
}

/// A page in the text format (prometheus.io, "Exposition formats").
#[derive(Debug, Default)]
struct Page {
    text: String,
    family: &'static str,
}

impl Page {
    fn family(&mut self, name: &'static str, kind: &str, help: &str) {
        self.family = name;
        // Writing to a String cannot fail.
        let _ok = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn value(&mut self, labels: &[(&str, String)], value: &str) {
        let escape = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let labels: Vec<String> = labels.iter().map(|(name, text)| format!("{name}=\"{}\"", escape(text))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        // Writing to a String cannot fail.
        let _ok = writeln!(self.text, "{}{labels} {value}", self.family);
    }

    fn reply(self) -> Reply {
        whole(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_reads_as_prometheus_wants_it() {
        let mut page = Page::default();
        page.family("a_total", "counter", "What it is");
        page.value(&[("pod", "p\"q\\".to_owned())], "1.5");
        page.value(&[], "2");
        assert_eq!(
            page.text,
            "# HELP a_total What it is\n# TYPE a_total counter\na_total{pod=\"p\\\"q\\\\\"} 1.5\na_total 2\n"
        );
    }

    #[test]
    fn doors_are_where_kubectl_looks() {
        let table = [
            (&["nodes"][..], Some(("nodes", "", ""))),
            (&["nodes", "n1"], Some(("nodes", "", "n1"))),
            (&["pods"], Some(("pods", "", ""))),
            (&["namespaces", "a", "pods"], Some(("pods", "a", ""))),
            (&["namespaces", "a", "pods", "p"], Some(("pods", "a", "p"))),
            (&["pods", "p"], None),
        ];
        for (path, expected) in table {
            assert_eq!(MetricsDoor::find(path).as_ref().map(MetricsDoor::parts), expected, "{path:?}");
        }
    }
}
