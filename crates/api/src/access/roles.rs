//! The roles that are always there, and who has them.

use serde_json::{Value, json};

use crate::access::MASTERS;
use crate::metrics;

const WRITE: [&str; 5] = ["create", "delete", "deletecollection", "patch", "update"];
const READ: [&str; 3] = ["get", "list", "watch"];

/// Objects of the core group that everybody who works in a namespace sees; secrets are not among them.
const VISIBLE: [&str; 14] = [
    "bindings",
    "configmaps",
    "endpoints",
    "events",
    "limitranges",
    "namespaces",
    "persistentvolumeclaims",
    "pods",
    "pods/log",
    "pods/status",
    "resourcequotas",
    "resourcequotas/status",
    "serviceaccounts",
    "services",
];

/// Those that may be changed, with the doors into Pods.
const CHANGEABLE: [&str; 12] = [
    "configmaps",
    "events",
    "persistentvolumeclaims",
    "pods",
    "pods/attach",
    "pods/eviction",
    "pods/exec",
    "pods/portforward",
    "pods/proxy",
    "secrets",
    "serviceaccounts",
    "services",
];

/// ClusterRoles by name, with their rules. Who may make Pods may do on the machine what Pods may.
pub fn cluster_roles() -> Vec<(&'static str, Value)> {
    let paths = |paths: &[&str]| json!({"verbs": ["get"], "nonResourceURLs": paths});
    let core = |verbs: &[&str], resources: &[&str]| json!({"verbs": verbs, "apiGroups": [""], "resources": resources});
    let groups = |verbs: &[&str]| {
        [
            json!({"verbs": verbs, "apiGroups": ["policy"], "resources": ["poddisruptionbudgets"]}),
            json!({"verbs": verbs, "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"]}),
            json!({"verbs": verbs, "apiGroups": ["coordination.k8s.io"], "resources": ["leases"]}),
            json!({"verbs": verbs, "apiGroups": ["events.k8s.io"], "resources": ["events"]}),
        ]
    };
    let reviews =
        |group: &str, resources: &[&str]| json!({"verbs": ["create"], "apiGroups": [group], "resources": resources});
    let used = json!({"verbs": READ, "apiGroups": [metrics::GROUP], "resources": ["nodes", "pods"]});
    let view: Vec<Value> = [core(&READ, &VISIBLE), used].into_iter().chain(groups(&READ)).collect();
    let change = [core(&WRITE, &CHANGEABLE), core(&READ, &["pods/proxy", "secrets"])];
    let edit: Vec<Value> = view.iter().cloned().chain(change).chain(groups(&WRITE)).collect();
    let roles = json!({
        "verbs": READ, "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["rolebindings", "roles"],
    });
    let admin: Vec<Value> = edit.iter().cloned().chain([roles]).collect();
    let everything = json!([
        {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}, {"verbs": ["*"], "nonResourceURLs": ["*"]},
    ]);
    let basic = json!([
        reviews("authorization.k8s.io", &["selfsubjectaccessreviews", "selfsubjectrulesreviews"]),
        reviews("authentication.k8s.io", &["selfsubjectreviews"]),
    ]);
    let health = ["/healthz", "/livez", "/readyz", "/version", "/version/"];
    let discovery = ["/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*"];
    vec![
        ("admin", json!(admin)),
        ("cluster-admin", everything),
        ("edit", json!(edit)),
        ("system:basic-user", basic),
        ("system:discovery", json!([paths(&[&health[..], &discovery[..]].concat())])),
        ("system:public-info-viewer", json!([paths(&health)])),
        ("view", json!(view)),
    ]
}

/// ClusterRoleBindings: the role, which is also their name, and groups.
pub fn cluster_role_bindings() -> [(&'static str, Vec<&'static str>); 4] {
    let known = "system:authenticated";
    [
        ("cluster-admin", vec![MASTERS]),
        ("system:basic-user", vec![known]),
        ("system:discovery", vec![known]),
        ("system:public-info-viewer", vec![known, "system:unauthenticated"]),
    ]
}
