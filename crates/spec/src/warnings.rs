//! What Kubernetes warns of in a new Pod, in its words (`warningsForPodSpecAndMeta`). A changed Pod is not looked at.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::{Container, ContainerPort, EnvVar, NodeSelectorTerm, Pod, PodSpec};

use crate::ephemeral::as_container;
use crate::field::Path;
use crate::quantity::Quantity;

/// Labels of nodes that have other names now.
const OLD_LABELS: [(&str, &str); 5] = [
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    ("failure-domain.beta.kubernetes.io/zone", "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"),
    ("beta.kubernetes.io/instance-type", "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"),
];

/// Annotations that say nothing any more.
const OLD_ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    ("security.alpha.kubernetes.io/unsafe-sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
];

/// With how many ports before it a port is compared.
const MAX_PORTS: usize = 1000;

/// The warnings for a new Pod with its defaults.
pub fn pod_warnings(pod: &Pod) -> Vec<String> {
    let mut found = Vec::new();
    let Some(spec) = &pod.spec else { return found };
    let path = Path::root("spec");
    placement(&mut found, &path, spec);
    annotations(&mut found, pod, spec);
    let lists: [(&str, &str, Vec<&str>); 2] = [
        ("hostAliases", "ip", spec.host_aliases.iter().flatten().map(|alias| alias.ip.as_str()).collect()),
        (
            "imagePullSecrets",
            "name",
            spec.image_pull_secrets.iter().flatten().map(|secret| secret.name.as_str()).collect(),
        ),
    ];
    for (list, field, texts) in lists {
        let path = path.child(list);
        let mut seen = HashSet::new();
        for (index, text) in texts.iter().enumerate() {
            if !seen.insert(text) {
                found.push(format!("{}: duplicate {field} {text:?}", path.index(index).child(field)));
            }
        }
        if list == "imagePullSecrets" {
            for (index, _) in texts.iter().enumerate().filter(|(_, text)| text.is_empty()) {
                found.push(format!("{}: invalid empty name \"\"", path.index(index).child(field)));
            }
        }
    }
    let ephemeral: Vec<Container> = spec.ephemeral_containers.iter().flatten().map(as_container).collect();
    let containers: [(&str, &[Container]); 3] = [
        ("initContainers", spec.init_containers.as_deref().unwrap_or_default()),
        ("containers", &spec.containers),
        ("ephemeralContainers", &ephemeral),
    ];
    let each = || containers.iter().flat_map(|(list, all)| all.iter().enumerate().map(move |one| (*list, one)));
    for (list, (index, container)) in each() {
        let path = path.child(list);
        let path = path.index(index);
        fractional_bytes(&mut found, &path.child("resources"), container);
        env(&mut found, &path.child("env"), container.env.as_deref().unwrap_or_default());
    }
    let mut seen = Vec::new();
    for (list, (index, container)) in each() {
        let path = path.child(list);
        let path = path.index(index);
        let path = path.child("ports");
        for (index, one) in container.ports.iter().flatten().enumerate() {
            port(&mut found, &path.index(index), one, &mut seen);
        }
    }
    found
}

fn old_label(key: &str) -> Option<&'static str> {
    OLD_LABELS.iter().find(|(label, _)| *label == key).map(|(_, why)| *why)
}

fn placement(found: &mut Vec<String>, path: &Path<'_>, spec: &PodSpec) {
    for (key, _) in spec.node_selector.iter().flatten() {
        if let Some(why) = old_label(key) {
            found.push(format!("{}: {why}", path.child("nodeSelector").key(key)));
        }
    }
    let affinity = path.child("affinity");
    let nodes = affinity.child("nodeAffinity");
    if let Some(node_affinity) = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref()) {
        let required = nodes.child("requiredDuringSchedulingIgnoredDuringExecution");
        let required = required.child("nodeSelectorTerms");
        let terms = node_affinity.required_during_scheduling_ignored_during_execution.iter();
        for (index, term) in terms.flat_map(|required| &required.node_selector_terms).enumerate() {
            node_term(found, &required.index(index), term);
        }
        let preferred = nodes.child("preferredDuringSchedulingIgnoredDuringExecution");
        let terms = node_affinity.preferred_during_scheduling_ignored_during_execution.iter().flatten();
        for (index, term) in terms.enumerate() {
            node_term(found, &preferred.index(index).child("preference"), &term.preference);
        }
    }
    let spread = path.child("topologySpreadConstraints");
    for (index, constraint) in spec.topology_spread_constraints.iter().flatten().enumerate() {
        let path = spread.index(index);
        if let Some(why) = old_label(&constraint.topology_key) {
            found.push(format!("{}: {} is {why}", path.child("topologyKey"), constraint.topology_key));
        }
        if constraint.label_selector.is_none() {
            found.push(no_selector(&path));
        }
    }
    let Some(own) = &spec.affinity else { return };
    let near = own.pod_affinity.as_ref().map(|near| {
        (
            "podAffinity",
            &near.required_during_scheduling_ignored_during_execution,
            &near.preferred_during_scheduling_ignored_during_execution,
        )
    });
    let apart = own.pod_anti_affinity.as_ref().map(|apart| {
        (
            "podAntiAffinity",
            &apart.required_during_scheduling_ignored_during_execution,
            &apart.preferred_during_scheduling_ignored_during_execution,
        )
    });
    for (field, required, preferred) in near.into_iter().chain(apart) {
        let path = affinity.child(field);
        for (index, term) in required.iter().flatten().enumerate() {
            if term.label_selector.is_none() {
                found.push(no_selector(&path.child("requiredDuringSchedulingIgnoredDuringExecution").index(index)));
            }
        }
        for (index, term) in preferred.iter().flatten().enumerate() {
            if term.pod_affinity_term.label_selector.is_none() {
                let path = path.child("preferredDuringSchedulingIgnoredDuringExecution");
                found.push(no_selector(&path.index(index).child("podAffinityTerm")));
            }
        }
    }
}

fn no_selector(path: &Path<'_>) -> String {
    format!("{}: a null labelSelector results in matching no pod", path.child("labelSelector"))
}

fn node_term(found: &mut Vec<String>, path: &Path<'_>, term: &NodeSelectorTerm) {
    for (index, one) in term.match_expressions.iter().flatten().enumerate() {
        if let Some(why) = old_label(&one.key) {
            found.push(format!("{}: {} is {why}", path.child("matchExpressions").index(index).child("key"), one.key));
        }
    }
}

fn annotations(found: &mut Vec<String>, pod: &Pod, spec: &PodSpec) {
    let Some(annotations) = pod.metadata.annotations.as_ref().filter(|annotations| !annotations.is_empty()) else {
        return;
    };
    let mut warn = |key: &str, why: &str| {
        if annotations.contains_key(key) {
            found.push(format!("metadata.annotations[{key}]: {why}"));
        }
    };
    for (key, why) in OLD_ANNOTATIONS {
        warn(key, why);
    }
    let why = "non-functional in v1.27+; use the \"seccompProfile\" field instead";
    if spec.security_context.as_ref().is_none_or(|context| context.seccomp_profile.is_none()) {
        warn("seccomp.security.alpha.kubernetes.io/pod", why);
    }
    for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
        if container.security_context.as_ref().is_none_or(|context| context.seccomp_profile.is_none()) {
            warn(&format!("container.seccomp.security.alpha.kubernetes.io/{}", container.name), why);
        }
    }
}

fn fractional_bytes(found: &mut Vec<String>, path: &Path<'_>, container: &Container) {
    let Some(resources) = &container.resources else { return };
    for resource in ["memory", "ephemeral-storage"] {
        for (field, list) in [("limits", &resources.limits), ("requests", &resources.requests)] {
            let Some(text) = list.as_ref().and_then(|list| list.get(resource)) else { continue };
            if Quantity::parse(&text.0).is_ok_and(|amount| !amount.is_integer()) {
                let at = path.child(field);
                let at = at.key(resource);
                found.push(format!("{at}: fractional byte value {:?} is invalid, must be an integer", text.0));
            }
        }
    }
}

/// A later variable of the same name may add to the earlier one, but not stand in its place.
fn env(found: &mut Vec<String>, path: &Path<'_>, variables: &[EnvVar]) {
    if variables.len() < 2 {
        return;
    }
    let mut seen = HashSet::new();
    for (index, variable) in variables.iter().enumerate() {
        if seen.insert(variable.name.as_str()) {
            continue;
        }
        let (name, value) = (&variable.name, variable.value.as_deref().unwrap_or_default());
        let reference = format!("$({name})");
        if variable.value_from.is_some() || value == reference || !value.contains(&reference) {
            let path = path.index(index);
            found.push(format!("{path}: hides previous definition of {name:?}, which may be dropped when using apply"));
        }
    }
}

fn port<'a>(
    found: &mut Vec<String>,
    path: &Path<'_>,
    port: &'a ContainerPort,
    seen: &mut Vec<(String, &'a ContainerPort)>,
) {
    let number = |port: &ContainerPort| port.host_port.unwrap_or_default();
    let address = |port: &'a ContainerPort| port.host_ip.as_deref().unwrap_or_default();
    let protocol = port.protocol.as_deref().unwrap_or_default();
    if !address(port).is_empty() && number(port) == 0 {
        let name = port.name.as_deref().unwrap_or_default();
        found.push(format!(
            "{path}: hostIP set without hostPort: {{Name:{name} HostPort:0 ContainerPort:{} Protocol:{protocol} HostIP:{}}}",
            port.container_port,
            address(port)
        ));
    }
    for (place, other) in seen.iter() {
        if (other.container_port, other.protocol.as_deref().unwrap_or_default()) != (port.container_port, protocol) {
            continue;
        }
        let (same_port, same_address) = (number(port) == number(other), address(port) == address(other));
        if same_port && same_address {
            found.push(format!("{path}: duplicate port definition with {place}"));
        } else if number(port) == 0 || number(other) == 0 {
            found.push(format!("{path}: overlapping port definition with {place}"));
        } else if same_port && (address(port).is_empty() != address(other).is_empty()) {
            found.push(format!("{path}: dangerously ambiguous port definition with {place}"));
        }
    }
    if seen.len() < MAX_PORTS {
        seen.push((path.to_string(), port));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn warned(pod: Value) -> Vec<String> {
        let mut pod = serde_json::from_value(pod).unwrap();
        crate::defaults::default_pod(&mut pod);
        pod_warnings(&pod)
    }

    #[expect(clippy::needless_pass_by_value, reason = "`json!` is easier to read without a borrow")]
    fn of_container(field: &str, value: Value) -> Vec<String> {
        let warnings = warned(json!({"spec": {"containers": [{"name": "c", field: value}]}}));
        warnings.iter().map(|text| text.trim_start_matches("spec.containers[0].").to_owned()).collect()
    }

    #[test]
    fn containers_are_warned_about_in_kubernetes_words() {
        let hidden = |index: u8| {
            format!("env[{index}]: hides previous definition of \"a\", which may be dropped when using apply")
        };
        let variables = json!([
            {"name": "a", "value": "x"}, {"name": "a", "value": "y"}, {"name": "a", "value": "$(a)"},
            {"name": "a", "value": "$(a):z"}, {"name": "a", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "b"},
        ]);
        assert_eq!(of_container("env", variables), [hidden(1), hidden(2), hidden(4)]);
        let resources = json!({"limits": {"memory": "1500m", "cpu": "100m"}, "requests": {"ephemeral-storage": "0.5", "memory": "1"}});
        let fraction = |place: &str, value: &str| {
            format!("resources.{place}: fractional byte value \"{value}\" is invalid, must be an integer")
        };
        assert_eq!(
            of_container("resources", resources),
            [fraction("limits[memory]", "1500m"), fraction("requests[ephemeral-storage]", "500m")]
        );
        let ports = json!([
            {"containerPort": 80, "hostIP": "10.0.0.1", "protocol": "UDP"}, {"containerPort": 80},
            {"containerPort": 80}, {"containerPort": 80, "hostPort": 8080},
            {"containerPort": 80, "hostPort": 8080, "hostIP": "10.0.0.1"}, {"containerPort": 80, "hostPort": 9090},
        ]);
        let with = |index: u8, kind: &str, other: u8| {
            format!("ports[{index}]: {kind} port definition with spec.containers[0].ports[{other}]")
        };
        assert_eq!(
            of_container("ports", ports),
            [
                "ports[0]: hostIP set without hostPort: {Name: HostPort:0 ContainerPort:80 Protocol:UDP HostIP:10.0.0.1}"
                    .to_owned(),
                with(2, "duplicate", 1),
                with(3, "overlapping", 1),
                with(3, "overlapping", 2),
                with(4, "overlapping", 1),
                with(4, "overlapping", 2),
                with(4, "dangerously ambiguous", 3),
                with(5, "overlapping", 1),
                with(5, "overlapping", 2),
            ]
        );
    }

    #[test]
    fn pods_are_warned_about_in_kubernetes_words() {
        let pod = json!({
            "metadata": {"annotations": {
                "scheduler.alpha.kubernetes.io/critical-pod": "", "seccomp.security.alpha.kubernetes.io/pod": "x",
            }},
            "spec": {
                "containers": [{"name": "c"}],
                "nodeSelector": {"beta.kubernetes.io/os": "linux"},
                "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{"matchExpressions": [{"key": "beta.kubernetes.io/arch", "operator": "Exists"}]}],
                }}, "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "k"}]}},
                "topologySpreadConstraints": [{"topologyKey": "k", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}],
                "hostAliases": [{"ip": "1.2.3.4"}, {"ip": "1.2.3.4"}],
                "imagePullSecrets": [{"name": "s"}, {"name": "s"}, {"name": ""}],
            },
        });
        let nodes = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]";
        let expected = [
            r#"spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead"#.to_owned(),
            format!(
                "{nodes}.matchExpressions[0].key: beta.kubernetes.io/arch is deprecated since v1.14; use \"kubernetes.io/arch\" \
                 instead"
            ),
            "spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod".to_owned(),
            "spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].labelSelector: a null labelSelector \
             results in matching no pod"
                .to_owned(),
            r#"metadata.annotations[scheduler.alpha.kubernetes.io/critical-pod]: non-functional in v1.16+; use the "priorityClassName" field instead"#.to_owned(),
            r#"metadata.annotations[seccomp.security.alpha.kubernetes.io/pod]: non-functional in v1.27+; use the "seccompProfile" field instead"#.to_owned(),
            r#"spec.hostAliases[1].ip: duplicate ip "1.2.3.4""#.to_owned(),
            r#"spec.imagePullSecrets[1].name: duplicate name "s""#.to_owned(),
            r#"spec.imagePullSecrets[2].name: invalid empty name """#.to_owned(),
        ];
        assert_eq!(warned(pod), expected);
    }
}
