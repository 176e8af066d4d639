//! Rules for a Pod as a whole.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::{HostAlias, Pod, PodDNSConfig, PodSpec, Toleration};
use serde_json::Value;

use super::meta::{self, NameForm};
use super::update::is_empty;
use super::{annotations, apparmor, container, ephemeral, mirror, names, placement, ports, security, volume};
use crate::field::{Errors, FieldError, Path};

/// Checks a new Pod, with its defaults filled in.
pub fn validate_pod(pod: &Pod) -> Vec<FieldError> {
    let mut errors = Errors::default();
    meta::object_meta(&mut errors, &pod.metadata, true, NameForm::Subdomain);
    mirror::new_pod(&mut errors, pod);
    let path = Path::root("spec");
    match &pod.spec {
        Some(spec) => {
            annotations::annotations(&mut errors, pod, spec);
            pod_spec(&mut errors, &path, spec);
            apparmor::annotations(&mut errors, &Path::root("metadata").child("annotations"), &pod.metadata, spec);
            apparmor::annotations_match_fields(&mut errors, &path, &pod.metadata, spec);
            if spec.ephemeral_containers.as_ref().is_some_and(|list| !list.is_empty()) {
                errors.forbidden(&path.child("ephemeralContainers"), "cannot be set on create");
            }
        }
        None => errors.required(&path.child("containers"), ""),
    }
    errors.into_vec()
}

/// The rules that hold for new and updated Pods alike.
pub(super) fn pod_spec(errors: &mut Errors, path: &Path<'_>, spec: &PodSpec) {
    let volumes = volume::volumes(errors, &path.child("volumes"), spec.volumes.as_deref().unwrap_or_default());
    container::containers(errors, path, spec, &volumes);
    super::pod_resources::pod_resources(errors, path, spec);
    ports::host_ports(errors, path, spec);
    ephemeral::ephemeral_containers(errors, path, spec, &volumes);
    one_of(errors, &path.child("restartPolicy"), spec.restart_policy.as_deref(), &["Always", "OnFailure", "Never"]);
    let dns_policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    one_of(errors, &path.child("dnsPolicy"), spec.dns_policy.as_deref(), &dns_policies);
    dns_config(errors, &path.child("dnsConfig"), spec.dns_config.as_ref(), spec.dns_policy.as_deref());
    if let Some(context) = &spec.security_context {
        security::pod_security_context(errors, &path.child("securityContext"), context);
    }
    placement::placement(errors, path, spec);
    text_rule(errors, &path.child("serviceAccountName"), spec.service_account_name.as_deref(), names::dns_subdomain);
    text_rule(errors, &path.child("nodeName"), spec.node_name.as_deref(), names::dns_subdomain);
    super::namespaces::host_namespaces(errors, path, spec);
    text_rule(errors, &path.child("hostname"), spec.hostname.as_deref(), names::dns_label);
    text_rule(errors, &path.child("subdomain"), spec.subdomain.as_deref(), names::dns_label);
    if let Some(seconds) = spec.active_deadline_seconds {
        for fault in names::between(seconds, 1, i64::from(i32::MAX)) {
            errors.invalid(&path.child("activeDeadlineSeconds"), seconds, fault);
        }
    }
    if spec.termination_grace_period_seconds.is_none() {
        errors.required(&path.child("terminationGracePeriodSeconds"), "");
    }
    gates(errors, path, spec);
    os(errors, path, spec);
    tolerations(errors, &path.child("tolerations"), spec.tolerations.as_deref().unwrap_or_default());
    host_aliases(errors, &path.child("hostAliases"), spec.host_aliases.as_deref().unwrap_or_default());
}

/// What keeps a Pod from being placed, and what it waits for before it counts as ready.
fn gates(errors: &mut Errors, path: &Path<'_>, spec: &PodSpec) {
    let gates_path = path.child("schedulingGates");
    let mut seen = HashSet::new();
    for (index, gate) in spec.scheduling_gates.iter().flatten().enumerate() {
        let path = gates_path.index(index);
        for fault in names::qualified_name(&gate.name) {
            errors.invalid(&path.child("name"), gate.name.as_str(), fault);
        }
        if !seen.insert(gate.name.as_str()) {
            errors.duplicate(&path, gate.name.as_str());
        }
    }
    if !seen.is_empty() && spec.node_name.as_deref().is_some_and(|name| !name.is_empty()) {
        errors.forbidden(&path.child("nodeName"), "cannot be set until all schedulingGates have been cleared");
    }
    let gates_path = path.child("readinessGates");
    for (index, gate) in spec.readiness_gates.iter().flatten().enumerate() {
        for fault in names::qualified_name(&gate.condition_type) {
            errors.invalid(&gates_path.index(index).child("conditionType"), gate.condition_type.as_str(), fault);
        }
    }
}

/// What a Pod for Windows may not have (`validateWindows`), in its spec and in the security context of each container.
const OF_LINUX: [&str; 14] = [
    "/hostUsers",
    "/hostPID",
    "/hostIPC",
    "/shareProcessNamespace",
    "/securityContext/appArmorProfile",
    "/securityContext/seLinuxOptions",
    "/securityContext/seccompProfile",
    "/securityContext/fsGroup",
    "/securityContext/fsGroupChangePolicy",
    "/securityContext/sysctls",
    "/securityContext/runAsUser",
    "/securityContext/runAsGroup",
    "/securityContext/supplementalGroups",
    "/securityContext/supplementalGroupsPolicy",
];
const OF_LINUX_CONTAINERS: [&str; 10] = [
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
];

/// The system that a Pod is written for (`validateOS`).
fn os(errors: &mut Errors, path: &Path<'_>, spec: &PodSpec) {
    let whole = path.child("os");
    let not_here = "cannot be set for a windows pod";
    match spec.os.as_ref().map(|os| os.name.as_str()) {
        None | Some("linux") => return,
        Some("") => return errors.required(&whole.child("name"), "cannot be empty"),
        Some("windows") => {}
        Some(name) => return errors.not_supported(&whole, name, &["linux", "windows"]),
    }
    let spec = serde_json::to_value(spec).unwrap_or_default();
    // In Kubernetes' own form these two are flags, so `false` counts as not set.
    let is_flag = |field: &str| matches!(field, "/hostPID" | "/hostIPC");
    for field in OF_LINUX {
        if spec.pointer(field).is_some_and(|value| !(is_empty(value) || is_flag(field) && *value == Value::Bool(false)))
        {
            let field = field.trim_start_matches('/').replace('/', ".");
            errors.forbidden(&path.child(&field), not_here);
        }
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        let at = path.child(list);
        for (index, container) in spec.get(list).and_then(Value::as_array).into_iter().flatten().enumerate() {
            let at = at.index(index);
            let at = at.child("securityContext");
            let Some(context) = container.get("securityContext") else { continue };
            for field in OF_LINUX_CONTAINERS.into_iter().filter(|field| context.get(field).is_some()) {
                errors.forbidden(&at.child(field), not_here);
            }
        }
    }
}

/// A field that must be one of a few words; absent or empty it is required.
pub(super) fn one_of(errors: &mut Errors, path: &Path<'_>, value: Option<&str>, words: &[&str]) {
    match value {
        None | Some("") => errors.required(path, ""),
        Some(value) if !words.contains(&value) => errors.not_supported(path, value, words),
        Some(_) => {}
    }
}

fn text_rule(errors: &mut Errors, path: &Path<'_>, text: Option<&str>, rule: impl Fn(&str) -> Vec<String>) {
    if let Some(text) = text.filter(|text| !text.is_empty()) {
        for fault in rule(text) {
            errors.invalid(path, text, fault);
        }
    }
}

/// Limits of the resolver in C libraries (resolv.conf(5)).
fn dns_config(errors: &mut Errors, path: &Path<'_>, config: Option<&PodDNSConfig>, policy: Option<&str>) {
    let Some(config) = config else {
        if policy == Some("None") {
            errors.required(path, "must provide `dnsConfig` when `dnsPolicy` is None");
        }
        return;
    };
    let nameservers = config.nameservers.as_deref().unwrap_or_default();
    let servers_path = path.child("nameservers");
    if policy == Some("None") && nameservers.is_empty() {
        errors.required(&servers_path, "must provide at least one DNS nameserver when `dnsPolicy` is None");
        return;
    }
    if nameservers.len() > 3 {
        errors.invalid(&servers_path, nameservers.to_vec(), "must not have more than 3 nameservers");
    }
    for (index, address) in nameservers.iter().enumerate() {
        text_rule(errors, &servers_path.index(index), Some(address), names::ip_address);
        if address.is_empty() {
            errors.invalid(
                &servers_path.index(index),
                "",
                "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            );
        }
    }
    let searches = config.searches.as_deref().unwrap_or_default();
    let searches_path = path.child("searches");
    if searches.len() > 32 {
        errors.invalid(&searches_path, searches.to_vec(), "must not have more than 32 search paths");
    }
    if searches.join(" ").len() > 2048 {
        let fault = "must not have more than 2048 characters (including spaces) in the search list";
        errors.invalid(&searches_path, searches.to_vec(), fault);
    }
    for (index, search) in searches.iter().enumerate().filter(|(_, search)| *search != ".") {
        let name = search.strip_suffix('.').unwrap_or(search);
        for fault in names::dns_search_name(name) {
            errors.invalid(&searches_path.index(index), name, fault);
        }
    }
    for (index, option) in config.options.iter().flatten().enumerate() {
        if option.name.as_deref().unwrap_or_default().is_empty() {
            errors.required(&path.child("options").index(index), "must not be empty");
        }
    }
}

fn tolerations(errors: &mut Errors, path: &Path<'_>, tolerations: &[Toleration]) {
    for (index, toleration) in tolerations.iter().enumerate() {
        let path = path.index(index);
        let (key, value) =
            (toleration.key.as_deref().unwrap_or_default(), toleration.value.as_deref().unwrap_or_default());
        let operator = toleration.operator.as_deref().unwrap_or_default();
        let effect = toleration.effect.as_deref().unwrap_or_default();
        text_rule(errors, &path.child("key"), Some(key), names::qualified_name);
        if key.is_empty() && operator != "Exists" {
            let fault = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.invalid(&path.child("operator"), operator, fault);
        }
        if toleration.toleration_seconds.is_some() && effect != "NoExecute" {
            errors.invalid(&path.child("effect"), effect, "effect must be 'NoExecute' when `tolerationSeconds` is set");
        }
        match operator {
            "" | "Equal" => {
                let faults = names::label_value(value);
                if !faults.is_empty() {
                    errors.invalid(&path.child("operator"), value, faults.join(";"));
                }
            }
            "Exists" if !value.is_empty() => {
                errors.invalid(&path.child("operator"), value, "value must be empty when `operator` is 'Exists'");
            }
            "Exists" => {}
            _ => errors.not_supported(&path.child("operator"), operator, &["Equal", "Exists"]),
        }
        let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        if !effect.is_empty() && !effects.contains(&effect) {
            errors.not_supported(&path.child("effect"), effect, &effects);
        }
    }
}

fn host_aliases(errors: &mut Errors, path: &Path<'_>, aliases: &[HostAlias]) {
    for (index, alias) in aliases.iter().enumerate() {
        let path = path.index(index);
        for fault in names::ip_address(&alias.ip) {
            errors.invalid(&path.child("ip"), alias.ip.as_str(), fault);
        }
        let hostnames = path.child("hostnames");
        for (index, hostname) in alias.hostnames.iter().flatten().enumerate() {
            for fault in names::dns_subdomain(hostname) {
                errors.invalid(&hostnames.index(index), hostname.as_str(), fault);
            }
        }
    }
}
