//! Rules for containers and init containers.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::{Container, PodSpec, VolumeMount};

use super::{env, names, pod, ports, probe, resources, restart, security};
use crate::field::{Errors, Path};

/// All containers of a Pod; `volumes` are the names that mounts may use.
pub(super) fn containers(errors: &mut Errors, spec_path: &Path<'_>, spec: &PodSpec, volumes: &HashSet<&str>) {
    let list_path = spec_path.child("containers");
    if spec.containers.is_empty() {
        errors.required(&list_path, "");
    }
    let mut names = HashSet::new();
    for (index, container) in spec.containers.iter().enumerate() {
        let path = list_path.index(index);
        common(errors, &path, container, volumes);
        if !names.insert(container.name.as_str()) {
            errors.duplicate(&path.child("name"), container.name.as_str());
        }
        resize_of_pod(errors, &path.child("resizePolicy"), container, spec);
        probe::lifecycle_and_probes(errors, &path, container, spec);
    }
    let list_path = spec_path.child("initContainers");
    for (index, container) in spec.init_containers.iter().flatten().enumerate() {
        let path = list_path.index(index);
        common(errors, &path, container, volumes);
        if !names.insert(container.name.as_str()) {
            errors.duplicate(&path.child("name"), container.name.as_str());
        }
        resize_of_pod(errors, &path.child("resizePolicy"), container, spec);
        if container.restart_policy.as_deref() == Some("Always") {
            probe::lifecycle_and_probes(errors, &path, container, spec);
        } else {
            forbid_lifecycle_and_probes(errors, &path, container);
            forbid_restart_on_resize(errors, &path.child("resizePolicy"), container);
        }
    }
}

/// What holds for containers of every kind.
pub(super) fn common(errors: &mut Errors, path: &Path<'_>, container: &Container, volumes: &HashSet<&str>) {
    if container.name.is_empty() {
        errors.required(&path.child("name"), "");
    } else {
        for fault in names::dns_label(&container.name) {
            errors.invalid(&path.child("name"), container.name.as_str(), fault);
        }
    }
    image(errors, &path.child("image"), container);
    restart::restart_policy(errors, path, container);
    let policy = container.termination_message_policy.as_deref();
    pod::one_of(errors, &path.child("terminationMessagePolicy"), policy, &["File", "FallbackToLogsOnError"]);
    ports::ports(errors, &path.child("ports"), container.ports.as_deref().unwrap_or_default());
    env::env(errors, &path.child("env"), container.env.as_deref().unwrap_or_default());
    env::env_from(errors, &path.child("envFrom"), container.env_from.as_deref().unwrap_or_default());
    volume_mounts(errors, &path.child("volumeMounts"), container, volumes);
    let pull_policy = container.image_pull_policy.as_deref();
    pod::one_of(errors, &path.child("imagePullPolicy"), pull_policy, &["Always", "IfNotPresent", "Never"]);
    resize_policy(errors, &path.child("resizePolicy"), container);
    if let Some(requirements) = &container.resources {
        resources::container_resources(errors, &path.child("resources"), requirements);
    }
    if let Some(context) = &container.security_context {
        security::security_context(errors, &path.child("securityContext"), context);
    }
}

/// The form of the reference is the image store's to judge: a bad one is the state `InvalidImageName`.
pub(super) fn image(errors: &mut Errors, path: &Path<'_>, container: &Container) {
    let image = container.image.as_deref().unwrap_or_default();
    if image.is_empty() {
        errors.required(path, "");
    } else if image.trim() != image {
        errors.invalid(path, image, "must not have leading or trailing whitespace");
    }
}

fn forbid_lifecycle_and_probes(errors: &mut Errors, path: &Path<'_>, container: &Container) {
    let present = [
        ("lifecycle", container.lifecycle.is_some()),
        ("livenessProbe", container.liveness_probe.is_some()),
        ("readinessProbe", container.readiness_probe.is_some()),
        ("startupProbe", container.startup_probe.is_some()),
    ];
    for (field, _) in present.into_iter().filter(|(_, is_present)| *is_present) {
        errors.forbidden(&path.child(field), "may not be set for init containers without restartPolicy=Always");
    }
}

fn volume_mounts(errors: &mut Errors, path: &Path<'_>, container: &Container, volumes: &HashSet<&str>) {
    let mut targets = HashSet::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let mount_path = path.index(index);
        if mount.name.is_empty() {
            errors.required(&mount_path.child("name"), "");
        }
        if !volumes.contains(mount.name.as_str()) {
            errors.not_found(&mount_path.child("name"), mount.name.as_str());
        }
        if mount.mount_path.is_empty() {
            errors.required(&mount_path.child("mountPath"), "");
        }
        if !targets.insert(mount.mount_path.as_str()) {
            errors.invalid(&mount_path.child("mountPath"), mount.mount_path.as_str(), "must be unique");
        }
        sub_path(errors, &mount_path, mount);
        propagation(errors, &mount_path.child("mountPropagation"), container, mount);
        recursive_read_only(errors, &mount_path.child("recursiveReadOnly"), mount);
    }
}

fn recursive_read_only(errors: &mut Errors, path: &Path<'_>, mount: &VolumeMount) {
    match mount.recursive_read_only.as_deref() {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => {
            if mount.read_only != Some(true) {
                errors.forbidden(path, "may only be specified when readOnly is true");
            }
            if mount.mount_propagation.as_deref().is_some_and(|propagation| propagation != "None") {
                errors.forbidden(path, "may only be specified when mountPropagation is None or not specified");
            }
        }
        Some(other) => errors.not_supported(path, other, &["Disabled", "Enabled", "IfPossible"]),
    }
}

fn sub_path(errors: &mut Errors, path: &Path<'_>, mount: &VolumeMount) {
    let (plain, expression) = (mount.sub_path.as_deref(), mount.sub_path_expr.as_deref());
    let is_given = |text: Option<&str>| text.is_some_and(|text| !text.is_empty());
    if is_given(plain) && is_given(expression) {
        let fault = "subPathExpr and subPath are mutually exclusive";
        errors.invalid(&path.child("subPathExpr"), expression, fault);
    }
    for (field, text) in [("subPath", plain), ("subPathExpr", expression)] {
        let text = text.unwrap_or_default();
        for fault in names::descending_path(text) {
            errors.invalid(&path.child(field), text, fault);
        }
    }
}

fn propagation(errors: &mut Errors, path: &Path<'_>, container: &Container, mount: &VolumeMount) {
    let Some(propagation) = mount.mount_propagation.as_deref() else { return };
    let known = ["Bidirectional", "HostToContainer", "None"];
    if !known.contains(&propagation) {
        errors.not_supported(path, propagation, &known);
    }
    let is_privileged = container.security_context.as_ref().and_then(|context| context.privileged) == Some(true);
    if propagation == "Bidirectional" && !is_privileged {
        errors.forbidden(path, "Bidirectional mount propagation is available only to privileged containers");
    }
}

/// A Pod that never restarts a container cannot do so for a resize.
fn resize_of_pod(errors: &mut Errors, path: &Path<'_>, container: &Container, spec: &PodSpec) {
    if spec.restart_policy.as_deref() != Some("Never") {
        return;
    }
    let policies = container.resize_policy.iter().flatten().map(|policy| policy.restart_policy.as_str());
    for policy in policies.filter(|policy| *policy != "NotRequired") {
        errors.invalid(path, policy, "must be 'NotRequired' when pod `restartPolicy` is 'Never'");
    }
}

fn forbid_restart_on_resize(errors: &mut Errors, path: &Path<'_>, container: &Container) {
    for (index, policy) in container.resize_policy.iter().flatten().enumerate() {
        if policy.restart_policy == "RestartContainer" {
            let fault = "must not be set to 'RestartContainer' for non-sidecar initContainers";
            errors.invalid(&path.index(index).child("restartPolicy"), policy.restart_policy.as_str(), fault);
        }
    }
}

fn resize_policy(errors: &mut Errors, path: &Path<'_>, container: &Container) {
    let mut seen = Vec::new();
    for (index, policy) in container.resize_policy.iter().flatten().enumerate() {
        if seen.contains(&&policy.resource_name) {
            errors.duplicate(&path.index(index), policy.resource_name.as_str());
        }
        seen.push(&policy.resource_name);
        // The place that is named is the API server's: the list.
        pod::one_of(errors, path, Some(&policy.resource_name), &["cpu", "memory"]);
        pod::one_of(errors, path, Some(&policy.restart_policy), &["NotRequired", "RestartContainer"]);
    }
}
