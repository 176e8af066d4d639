//! Which rules somebody has: their bindings, and the roles that these name.

use spec::decode::{Readable, read};
use spec::k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef};
use store::{ObjectKey, Store};

use crate::access::rules::{Action, allows, is_meant};
use crate::access::{Identity, MASTERS};
use crate::kinds::{CLUSTER_ROLE, CLUSTER_ROLE_BINDING, ROLE, ROLE_BINDING};

/// Whether some rule allows it. Members of `system:masters` need none.
pub fn may(store: &Store, identity: &Identity, action: &Action) -> bool {
    if identity.is_in(MASTERS) {
        return true;
    }
    let pod_namespace = match action {
        Action::Resource { pod_namespace, .. } => pod_namespace.as_str(),
        Action::Path { .. } => "",
    };
    rules(store, identity, pod_namespace).iter().any(|rule| allows(rule, action))
}

/// The rules of cluster-wide bindings, and of those in a namespace if one is named.
pub fn rules(store: &Store, identity: &Identity, pod_namespace: &str) -> Vec<PolicyRule> {
    let mut rules = Vec::new();
    for binding in all::<ClusterRoleBinding>(store, CLUSTER_ROLE_BINDING.resource, None) {
        if binding.subjects.iter().flatten().any(|subject| is_meant(subject, identity, "")) {
            rules.extend(of_role(store, &binding.role_ref, ""));
        }
    }
    if pod_namespace.is_empty() {
        return rules;
    }
    for binding in all::<RoleBinding>(store, ROLE_BINDING.resource, Some(pod_namespace)) {
        if binding.subjects.iter().flatten().any(|subject| is_meant(subject, identity, pod_namespace)) {
            rules.extend(of_role(store, &binding.role_ref, pod_namespace));
        }
    }
    rules
}

/// A role that is not there grants nothing.
fn of_role(store: &Store, role: &RoleRef, pod_namespace: &str) -> Vec<PolicyRule> {
    let rules = match role.kind.as_str() {
        "ClusterRole" => get::<ClusterRole>(store, &ObjectKey::cluster(CLUSTER_ROLE.resource, role.name.as_str()))
            .and_then(|role| role.rules),
        "Role" if !pod_namespace.is_empty() => {
            get::<Role>(store, &ObjectKey::namespaced(ROLE.resource, pod_namespace, role.name.as_str()))
                .and_then(|role| role.rules)
        }
        _ => None,
    };
    rules.unwrap_or_default()
}

/// What cannot be read grants nothing: it was validated when it was stored.
fn all<T: Readable>(store: &Store, resource: &str, pod_namespace: Option<&str>) -> Vec<T> {
    let list = store.list(resource, pod_namespace);
    list.objects.iter().filter_map(|object| read(&object.value).ok()).collect()
}

fn get<T: Readable>(store: &Store, key: &ObjectKey) -> Option<T> {
    read(&store.get(key)?.value).ok()
}
