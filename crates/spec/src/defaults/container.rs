//! Defaults of a container.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, LifecycleHandler, Probe, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as RawQuantity;

use super::pod::{canonicalize, set_text};
use crate::image_ref::ImageReference;
use crate::quantity::Quantity;

/// By the tag: `latest`, or none, is asked for each time.
pub(super) fn pull_policy(image: &str) -> &'static str {
    let is_latest = image.parse::<ImageReference>().is_ok_and(|reference| reference.is_latest());
    if is_latest { "Always" } else { "IfNotPresent" }
}

pub(super) fn default_container(container: &mut Container) {
    set_text(&mut container.image_pull_policy, pull_policy(container.image.as_deref().unwrap_or_default()));
    set_text(&mut container.termination_message_path, "/dev/termination-log");
    set_text(&mut container.termination_message_policy, "File");
    for port in container.ports.iter_mut().flatten() {
        set_text(&mut port.protocol, "TCP");
    }
    default_resources(container.resources.get_or_insert_default());
    for source in container.env.iter_mut().flatten().filter_map(|variable| variable.value_from.as_mut()) {
        if let Some(field) = &mut source.field_ref {
            set_text(&mut field.api_version, "v1");
        }
        if let Some(resource) = &mut source.resource_field_ref {
            canonicalize(resource.divisor.get_or_insert_with(|| RawQuantity("0".to_owned())));
        }
    }
    let probes = [&mut container.liveness_probe, &mut container.readiness_probe, &mut container.startup_probe];
    probes.into_iter().flatten().for_each(default_probe);
    if let Some(lifecycle) = &mut container.lifecycle {
        let hooks = [&mut lifecycle.post_start, &mut lifecycle.pre_stop];
        hooks.into_iter().flatten().for_each(default_hook);
    }
}

/// A limit alone is also the request.
fn default_resources(resources: &mut ResourceRequirements) {
    let lists = [&mut resources.limits, &mut resources.requests];
    lists.into_iter().flatten().for_each(canonicalize_list);
    if let Some(limits) = resources.limits.as_ref().filter(|limits| !limits.is_empty()) {
        let requests = resources.requests.get_or_insert_default();
        for (name, limit) in limits {
            requests.entry(name.clone()).or_insert_with(|| limit.clone());
        }
    }
}

fn canonicalize_list(list: &mut BTreeMap<String, RawQuantity>) {
    for quantity in list.values_mut() {
        if let Ok(parsed) = Quantity::parse(&quantity.0) {
            quantity.0 = parsed.rounded_up_to_milli().to_string();
        }
    }
}

/// Numbers that are zero count as absent, as in the API server, where they are not pointers.
fn default_probe(probe: &mut Probe) {
    let numbers = [
        (&mut probe.timeout_seconds, 1),
        (&mut probe.period_seconds, 10),
        (&mut probe.success_threshold, 1),
        (&mut probe.failure_threshold, 3),
    ];
    for (number, default) in numbers {
        if number.unwrap_or_default() == 0 {
            *number = Some(default);
        }
    }
    if let Some(http) = &mut probe.http_get {
        default_http_get(http);
    }
    if let Some(grpc) = &mut probe.grpc {
        grpc.service.get_or_insert_default();
    }
}

fn default_hook(hook: &mut LifecycleHandler) {
    if let Some(http) = &mut hook.http_get {
        default_http_get(http);
    }
}

fn default_http_get(http: &mut HTTPGetAction) {
    set_text(&mut http.path, "/");
    set_text(&mut http.scheme, "HTTP");
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn defaulted(mut fields: Value) -> Value {
        fields["name"] = json!("c");
        let mut container: Container = serde_json::from_value(fields).unwrap();
        default_container(&mut container);
        serde_json::to_value(container).unwrap()
    }

    #[test]
    fn the_pull_policy_follows_the_tag() {
        let digest = format!("a@sha256:{}", "0".repeat(64));
        let table = [
            ("a", "Always"),
            ("a:latest", "Always"),
            ("a:1", "IfNotPresent"),
            (&digest, "IfNotPresent"),
            ("A B", "IfNotPresent"),
        ];
        for (image, policy) in table {
            assert_eq!(defaulted(json!({"image": image}))["imagePullPolicy"], policy, "{image}");
        }
    }

    #[test]
    fn requests_follow_limits_and_quantities_are_canonical() {
        let table = [
            (json!({}), json!({})),
            (
                json!({"limits": {"cpu": "0.5", "memory": "1024Mi"}}),
                json!({"limits": {"cpu": "500m", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}}),
            ),
            (
                json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "100m"}}),
                json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "100m", "memory": "1Gi"}}),
            ),
            (json!({"requests": {"cpu": "0.0001"}}), json!({"requests": {"cpu": "1m"}})),
            (json!({"requests": {"cpu": "bad"}}), json!({"requests": {"cpu": "bad"}})),
        ];
        for (given, expected) in table {
            assert_eq!(defaulted(json!({"resources": given}))["resources"], expected);
        }
    }

    #[test]
    fn probes_hooks_ports_and_references_are_complete() {
        let container = defaulted(json!({
            "ports": [{"containerPort": 80}, {"containerPort": 53, "protocol": "UDP"}],
            "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "B", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}],
            "livenessProbe": {"httpGet": {"port": 80}, "periodSeconds": 0},
            "readinessProbe": {"grpc": {"port": 1}, "failureThreshold": 7},
            "startupProbe": {"exec": {"command": ["true"]}},
            "lifecycle": {"preStop": {"httpGet": {"port": "http", "path": "/bye"}}},
        }));
        assert_eq!(
            container["ports"],
            json!([{"containerPort": 80, "protocol": "TCP"}, {"containerPort": 53, "protocol": "UDP"}])
        );
        assert_eq!(container["env"][0]["valueFrom"]["fieldRef"]["apiVersion"], "v1");
        assert_eq!(container["env"][1]["valueFrom"]["resourceFieldRef"]["divisor"], "0");
        let probe = |action: Value, failures: i32| {
            let mut probe =
                json!({"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": failures});
            probe.as_object_mut().unwrap().extend(action.as_object().unwrap().clone());
            probe
        };
        assert_eq!(
            container["livenessProbe"],
            probe(json!({"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}}), 3)
        );
        assert_eq!(container["readinessProbe"], probe(json!({"grpc": {"port": 1, "service": ""}}), 7));
        assert_eq!(container["startupProbe"], probe(json!({"exec": {"command": ["true"]}}), 3));
        assert_eq!(
            container["lifecycle"],
            json!({"preStop": {"httpGet": {"port": "http", "path": "/bye", "scheme": "HTTP"}}})
        );
    }
}
