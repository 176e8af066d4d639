//! Rules for annotations that mean something to Kubernetes.

use k8s_openapi::api::core::v1::{Pod, PodSpec, SeccompProfile};

use super::names;
use crate::field::{Errors, Path};

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const SECCOMP_OF_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_OF_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const LOCALHOST: &str = "localhost/";

/// Of a new Pod; nothing reads the seccomp ones any more, but who writes them is told if they are wrong.
pub(super) fn annotations(errors: &mut Errors, pod: &Pod, spec: &PodSpec) {
    let path = Path::root("metadata");
    let path = path.child("annotations");
    for (name, value) in pod.metadata.annotations.iter().flatten() {
        if name == DELETION_COST && !is_cost(value) {
            errors.invalid(&path.key(name), value.as_str(), "must be a 32bit integer");
        }
        if name == SECCOMP_OF_POD || name.starts_with(SECCOMP_OF_CONTAINER) {
            seccomp(errors, &path.child(name), value);
        }
        if name == SECCOMP_OF_POD {
            let own = spec.security_context.as_ref().and_then(|context| context.seccomp_profile.as_ref());
            let path = Path::root("spec");
            let path = path.child("securityContext");
            agrees(errors, &path.child("seccompProfile"), value, own);
        }
    }
    let containers = Path::root("spec");
    let lists = [("containers", Some(&spec.containers)), ("initContainers", spec.init_containers.as_ref())];
    for (field, list) in lists {
        let path = containers.child(field);
        for (index, container) in list.into_iter().flatten().enumerate() {
            let name = format!("{SECCOMP_OF_CONTAINER}{}", container.name);
            let Some(value) = pod.metadata.annotations.as_ref().and_then(|all| all.get(&name)) else { continue };
            let own = container.security_context.as_ref().and_then(|context| context.seccomp_profile.as_ref());
            let path = path.index(index);
            let path = path.child("securityContext");
            agrees(errors, &path.child("seccompProfile"), value, own);
        }
    }
}

/// As Go reads it: without a plus sign and leading zeros.
fn is_cost(value: &str) -> bool {
    value.parse::<i32>().is_ok_and(|cost| cost.to_string() == value)
}

fn seccomp(errors: &mut Errors, path: &Path<'_>, profile: &str) {
    if ["runtime/default", "docker/default", "unconfined"].contains(&profile) {
        return;
    }
    match profile.strip_prefix(LOCALHOST) {
        Some(file) => {
            for fault in names::descending_path(file) {
                errors.invalid(path, file, fault);
            }
        }
        None => errors.invalid(path, profile, "must be a valid seccomp profile"),
    }
}

/// An annotation and the field that took its place.
fn agrees(errors: &mut Errors, path: &Path<'_>, annotation: &str, field: Option<&SeccompProfile>) {
    let Some(field) = field else { return };
    let file = annotation.strip_prefix(LOCALHOST);
    let is_same = match field.type_.as_str() {
        "Unconfined" => annotation == "unconfined",
        "RuntimeDefault" => ["runtime/default", "docker/default"].contains(&annotation),
        "Localhost" => file.is_some(),
        _ => true,
    };
    if !is_same {
        errors.forbidden(&path.child("type"), "seccomp type in annotation and field must match");
    } else if field.type_ == "Localhost" && file != field.localhost_profile.as_deref() {
        errors.forbidden(&path.child("localhostProfile"), "seccomp profile in annotation and field must match");
    }
}
