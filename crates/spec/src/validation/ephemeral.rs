//! Rules for ephemeral containers, and for the one door through which they come.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec};

use super::{container, pod};
use crate::ephemeral::as_container;
use crate::field::{Errors, FieldError, Path};

const NOT_HERE: &str = "cannot be set for an Ephemeral Container";

/// Checks a change through a Pod's `ephemeralcontainers` subresource: they are only added.
pub fn validate_ephemeral_containers_update(new: &Pod, old: &Pod) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let empty = PodSpec::default();
    let (new, old) = (new.spec.as_ref().unwrap_or(&empty), old.spec.as_ref().unwrap_or(&empty));
    let path = Path::root("spec");
    pod::pod_spec(&mut errors, &path, new);
    let path = path.child("ephemeralContainers");
    let present = new.ephemeral_containers.as_deref().unwrap_or_default();
    for old in old.ephemeral_containers.iter().flatten() {
        match present.iter().find(|new| new.name == old.name) {
            None => {
                errors.forbidden(&path, format!("existing ephemeral containers {:?} may not be removed\n", old.name));
            }
            Some(new) if new != old => {
                errors.forbidden(&path, format!("existing ephemeral containers {:?} may not be changed\n", old.name));
            }
            Some(_) => {}
        }
    }
    errors.into_vec()
}

/// What holds for the list as it stands in a spec.
pub(super) fn ephemeral_containers(errors: &mut Errors, spec_path: &Path<'_>, spec: &PodSpec, volumes: &HashSet<&str>) {
    let list = spec_path.child("ephemeralContainers");
    let others: HashSet<&str> =
        spec.containers.iter().chain(spec.init_containers.iter().flatten()).map(|other| other.name.as_str()).collect();
    let mut names = others.clone();
    for (index, ephemeral) in spec.ephemeral_containers.iter().flatten().enumerate() {
        let path = list.index(index);
        let own = as_container(ephemeral);
        container::common(errors, &path, &own, volumes);
        if !names.insert(ephemeral.name.as_str()) {
            errors.duplicate(&path.child("name"), ephemeral.name.as_str());
        }
        target(errors, &path, ephemeral, &others);
        not_here(errors, &path, &own);
    }
}

fn target(errors: &mut Errors, path: &Path<'_>, ephemeral: &EphemeralContainer, others: &HashSet<&str>) {
    let target = ephemeral.target_container_name.as_deref().filter(|target| !target.is_empty());
    if let Some(target) = target.filter(|target| !others.contains(target)) {
        errors.not_found(&path.child("targetContainerName"), target);
    }
}

fn not_here(errors: &mut Errors, path: &Path<'_>, own: &Container) {
    let resources = own.resources.as_ref().is_some_and(|resources| {
        resources.limits.as_ref().is_some_and(|limits| !limits.is_empty())
            || resources.requests.as_ref().is_some_and(|requests| !requests.is_empty())
            || resources.claims.as_ref().is_some_and(|claims| !claims.is_empty())
    });
    let present = [
        ("ports", own.ports.as_ref().is_some_and(|ports| !ports.is_empty())),
        ("resources", resources),
        ("resizePolicy", own.resize_policy.as_ref().is_some_and(|policies| !policies.is_empty())),
        ("restartPolicy", own.restart_policy.is_some()),
        ("restartPolicyRules", own.restart_policy_rules.as_ref().is_some_and(|rules| !rules.is_empty())),
        ("livenessProbe", own.liveness_probe.is_some()),
        ("readinessProbe", own.readiness_probe.is_some()),
        ("startupProbe", own.startup_probe.is_some()),
        ("lifecycle", own.lifecycle.is_some()),
    ];
    for (field, _) in present.into_iter().filter(|(_, is_present)| *is_present) {
        errors.forbidden(&path.child(field), NOT_HERE);
    }
    let path = path.child("volumeMounts");
    for (index, mount) in own.volume_mounts.iter().flatten().enumerate() {
        let is_given = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        let given = [("subPath", is_given(&mount.sub_path)), ("subPathExpr", is_given(&mount.sub_path_expr))];
        for (field, _) in given.into_iter().filter(|(_, is_given)| *is_given) {
            errors.forbidden(&path.index(index).child(field), NOT_HERE);
        }
    }
}
