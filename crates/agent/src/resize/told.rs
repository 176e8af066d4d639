//! What events say of a resize: the resources that are meant, as JSON (kubelet, `podResizeMessage`). Pure.

use serde_json::json;
use spec::k8s_openapi::api::core::v1::{Container, PodSpec};

/// Such as `Pod resize started: {"containers":[…],"generation":2}`, with the fields in the kubelet's order.
pub(super) fn told(what: &str, spec: &PodSpec, generation: Option<i64>, error: Option<&str>) -> String {
    let of = |containers: &[Container]| containers.iter().map(resources).collect::<Vec<_>>().join(",");
    let lists =
        [("initContainers", spec.init_containers.as_deref().unwrap_or_default()), ("containers", &spec.containers)];
    let lists = lists.into_iter().filter(|(_, containers)| !containers.is_empty());
    let mut fields: Vec<String> = lists.map(|(name, containers)| format!("\"{name}\":[{}]", of(containers))).collect();
    fields.push(format!("\"generation\":{}", generation.unwrap_or_default()));
    fields.extend(error.map(|error| format!("\"error\":{}", json!(error))));
    format!("Pod resize {what}: {{{}}}", fields.join(","))
}

fn resources(container: &Container) -> String {
    let resources = container.resources.clone().unwrap_or_default();
    let lists = [("limits", resources.limits), ("requests", resources.requests)];
    let lists = lists.into_iter().filter_map(|(name, list)| Some((name, list.filter(|list| !list.is_empty())?)));
    let lists: Vec<String> = lists.map(|(name, list)| format!("\"{name}\":{}", json!(list))).collect();
    format!("{{\"name\":{},\"resources\":{{{}}}}}", json!(container.name), lists.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_is_the_kubelets() {
        let spec = serde_json::from_value(json!({
            "initContainers": [{"name": "log"}],
            "containers": [{"name": "app", "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi", "cpu": "2"}}}],
        }));
        let spec: PodSpec = spec.unwrap();
        let summary = "{\"initContainers\":[{\"name\":\"log\",\"resources\":{}}],\"containers\":[{\"name\":\"app\",\"resources\":\
                       {\"limits\":{\"cpu\":\"2\",\"memory\":\"1Gi\"},\"requests\":{\"cpu\":\"1\"}}}],\"generation\":2";
        assert_eq!(told("started", &spec, Some(2), None), format!("Pod resize started: {summary}}}"));
        let failed = told("error", &spec, Some(2), Some("a \"b\""));
        assert_eq!(failed, format!("Pod resize error: {summary},\"error\":\"a \\\"b\\\"\"}}"));
    }
}
