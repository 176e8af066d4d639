//! Rules for Roles, ClusterRoles and their bindings (`pkg/apis/rbac/validation` of Kubernetes).

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject};

use super::names;
use crate::field::{Errors, FieldError, Path};

const GROUP: &str = "rbac.authorization.k8s.io";

/// Checks a Role.
pub fn validate_role(role: &Role, _old: Option<&Role>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    rules(&mut errors, role.rules.as_deref().unwrap_or_default(), true);
    errors.into_vec()
}

/// Checks a ClusterRole.
pub fn validate_cluster_role(role: &ClusterRole, _old: Option<&ClusterRole>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    rules(&mut errors, role.rules.as_deref().unwrap_or_default(), false);
    if role.aggregation_rule.is_some() {
        errors.forbidden(&Path::root("aggregationRule"), "monopod does not support this field yet");
    }
    errors.into_vec()
}

/// Checks a RoleBinding.
pub fn validate_role_binding(new: &RoleBinding, old: Option<&RoleBinding>) -> Vec<FieldError> {
    binding(&new.role_ref, old.map(|old| &old.role_ref), new.subjects.as_deref(), &["Role", "ClusterRole"])
}

/// Checks a ClusterRoleBinding.
pub fn validate_cluster_role_binding(new: &ClusterRoleBinding, old: Option<&ClusterRoleBinding>) -> Vec<FieldError> {
    binding(&new.role_ref, old.map(|old| &old.role_ref), new.subjects.as_deref(), &["ClusterRole"])
}

fn rules(errors: &mut Errors, rules: &[PolicyRule], is_namespaced: bool) {
    let path = Path::root("rules");
    for (index, rule) in rules.iter().enumerate() {
        let path = path.index(index);
        let is_empty = |list: &Option<Vec<String>>| list.as_ref().is_none_or(Vec::is_empty);
        if rule.verbs.is_empty() {
            errors.required(&path.child("verbs"), "verbs must contain at least one value");
        }
        let urls = rule.non_resource_urls.clone().unwrap_or_default();
        if urls.is_empty() {
            if is_empty(&rule.api_groups) {
                errors.required(&path.child("apiGroups"), "resource rules must supply at least one api group");
            }
            if is_empty(&rule.resources) {
                errors.required(&path.child("resources"), "resource rules must supply at least one resource");
            }
        } else if is_namespaced {
            let fault = "namespaced rules cannot apply to non-resource URLs";
            errors.invalid(&path.child("nonResourceURLs"), urls, fault);
        } else if !is_empty(&rule.api_groups) || !is_empty(&rule.resources) || !is_empty(&rule.resource_names) {
            let fault = "rules cannot apply to both regular resources and non-resource URLs";
            errors.invalid(&path.child("nonResourceURLs"), urls, fault);
        }
    }
}

fn binding(new: &RoleRef, old: Option<&RoleRef>, subjects: Option<&[Subject]>, kinds: &[&str]) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let path = Path::root("roleRef");
    if new.api_group.as_deref() != Some(GROUP) {
        errors.not_supported(&path.child("apiGroup"), new.api_group.as_deref(), &[GROUP]);
    }
    if !kinds.contains(&new.kind.as_str()) {
        errors.not_supported(&path.child("kind"), new.kind.as_str(), kinds);
    }
    if new.name.is_empty() {
        errors.required(&path.child("name"), "");
    }
    for fault in names::path_segment(&new.name) {
        errors.invalid(&path.child("name"), new.name.as_str(), fault);
    }
    if old.is_some_and(|old| old != new) {
        errors.invalid(&path, serde_json::to_value(new).unwrap_or_default(), "cannot change roleRef");
    }
    let path = Path::root("subjects");
    for (index, who) in subjects.unwrap_or_default().iter().enumerate() {
        subject(&mut errors, &path.index(index), who);
    }
    errors.into_vec()
}

fn subject(errors: &mut Errors, path: &Path<'_>, subject: &Subject) {
    if subject.name.is_empty() {
        errors.required(&path.child("name"), "");
    }
    let group = subject.api_group.as_deref().unwrap_or_default();
    let expected = match subject.kind.as_str() {
        "ServiceAccount" => {
            for fault in names::dns_subdomain(&subject.name) {
                errors.invalid(&path.child("name"), subject.name.as_str(), fault);
            }
            if subject.namespace.as_deref().unwrap_or_default().is_empty() {
                errors.required(&path.child("namespace"), "");
            }
            ""
        }
        "User" | "Group" => GROUP,
        other => return errors.not_supported(&path.child("kind"), other, &["Group", "ServiceAccount", "User"]),
    };
    if group != expected {
        errors.not_supported(&path.child("apiGroup"), group, &[expected]);
    }
}
