//! Objects that are always there: the system's PriorityClasses and roles, and what each namespace is furnished with.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use spec::placement::SYSTEM_CLASSES;
use store::{Change, ObjectKey, StoreError, StoredObject, WatchEvent, WatchKind, WriteError};

use crate::access::roles;
use crate::context::Context;
use crate::kinds::{CLUSTER_ROLE, CLUSTER_ROLE_BINDING, CONFIG_MAP, NAMESPACE, PRIORITY_CLASS, SERVICE_ACCOUNT};
use crate::verbs::metadata;

const RBAC: &str = "rbac.authorization.k8s.io/v1";

/// The ServiceAccount of Pods that name none.
const DEFAULT_ACCOUNT: &str = "default";

/// The ConfigMap with the certificate by which Pods know this server.
pub const ROOT_CA: &str = "kube-root-ca.crt";

/// Makes what is missing, and from then on what is removed or comes to lack it.
pub async fn keep_standing_objects(context: &Arc<Context>) -> Result<(), StoreError> {
    for (name, value) in SYSTEM_CLASSES {
        make(context, ObjectKey::cluster(PRIORITY_CLASS.resource, name), system_priority(name, value)).await?;
    }
    for (name, rules) in roles::cluster_roles() {
        let mut role = object(RBAC, "ClusterRole", &json!({"name": name}));
        if let Some(role) = role.as_object_mut() {
            role.insert("rules".to_owned(), rules);
        }
        make(context, ObjectKey::cluster(CLUSTER_ROLE.resource, name), role).await?;
    }
    for (name, groups) in roles::cluster_role_bindings() {
        let binding = binding(name, &groups);
        make(context, ObjectKey::cluster(CLUSTER_ROLE_BINDING.resource, name), binding).await?;
    }
    furnish_all(context).await?;
    let context = Arc::clone(context);
    tokio::spawn(async move {
        let shutdown = context.shutdown.clone();
        shutdown.run_until_cancelled(keep_furnished(&context)).await;
    });
    Ok(())
}

/// Gives a namespace what each has; nothing to one that is going away or gone.
pub async fn furnish(context: &Context, pod_namespace: &str) -> Result<(), StoreError> {
    let found = context.store.get(&ObjectKey::cluster(NAMESPACE.resource, pod_namespace));
    if found.is_none_or(|namespace| !metadata::text(&namespace.value, "deletionTimestamp").is_empty()) {
        return Ok(());
    }
    let key = ObjectKey::namespaced(SERVICE_ACCOUNT.resource, pod_namespace, DEFAULT_ACCOUNT);
    let account = object("v1", "ServiceAccount", &json!({"name": DEFAULT_ACCOUNT, "namespace": pod_namespace}));
    make(context, key, account).await?;
    let Some(ca) = &context.ca else { return Ok(()) };
    let key = ObjectKey::namespaced(CONFIG_MAP.resource, pod_namespace, ROOT_CA);
    let mut map = object("v1", "ConfigMap", &json!({"name": ROOT_CA, "namespace": pod_namespace}));
    let data = json!({"ca.crt": ca});
    if let Some(map) = map.as_object_mut() {
        map.insert("data".to_owned(), data.clone());
    }
    let decide = move |present: Option<&StoredObject>| {
        let Some(present) = present else { return Change::Put(map) };
        let mut next = present.value.as_ref().clone();
        if let Some(next) = next.as_object_mut() {
            next.insert("data".to_owned(), data);
        }
        Change::Put(next)
    };
    write(context, key, decide).await
}

async fn furnish_all(context: &Context) -> Result<(), StoreError> {
    for namespace in context.store.list(NAMESPACE.resource, None).objects {
        furnish(context, &namespace.key.name).await?;
    }
    Ok(())
}

/// Follows namespaces that others than the API make (the agent at its start), and what is removed from them.
async fn keep_furnished(context: &Context) {
    loop {
        let resources = [NAMESPACE.resource, SERVICE_ACCOUNT.resource, CONFIG_MAP.resource];
        let Ok(mut watches) = context.store.watch_all(resources) else { continue };
        // What came before these watches is made up for; what they miss by falling behind, too.
        let mut outcome = furnish_all(context).await;
        while outcome.is_ok() {
            let Some(event) = watches.next().await else { break };
            if let Some(pod_namespace) = lacking(&event) {
                outcome = furnish(context, pod_namespace).await;
            }
        }
        match outcome {
            // The store is closed: nothing will come.
            Ok(()) if !watches.is_expired() => return,
            Ok(()) => {}
            Err(StoreError::Closed { .. }) => return,
            Err(error) => {
                tracing::warn!(error = crate::http::status::chain(&error), "cannot furnish a namespace");
                tokio::time::sleep(Duration::from_secs(10)).await;
            }
        }
    }
}

/// The namespace that may lack something after a change.
fn lacking(event: &WatchEvent) -> Option<&str> {
    let ObjectKey { resource, namespace, name } = &*event.object.key;
    match (resource.as_str(), event.kind, name.as_str()) {
        ("namespaces", WatchKind::Added, _) => Some(name),
        ("serviceaccounts", WatchKind::Deleted, DEFAULT_ACCOUNT)
        | ("configmaps", WatchKind::Deleted | WatchKind::Modified, ROOT_CA) => namespace.as_deref(),
        _ => None,
    }
}

async fn make(context: &Context, key: ObjectKey, value: Value) -> Result<(), StoreError> {
    write(context, key, |present| if present.is_some() { Change::Keep } else { Change::Put(value) }).await
}

async fn write(
    context: &Context,
    key: ObjectKey,
    decide: impl FnOnce(Option<&StoredObject>) -> Change + Send + 'static,
) -> Result<(), StoreError> {
    match context.store.write(key, |present| Ok::<_, Infallible>((decide(present), ()))).await {
        Ok(_) => Ok(()),
        Err(WriteError::Refused(never)) => match never {},
        Err(WriteError::Store(error)) => Err(error),
    }
}

/// A ClusterRoleBinding of the role of the same name.
fn binding(name: &str, groups: &[&str]) -> Value {
    let group = RBAC.split('/').next();
    let subjects: Vec<Value> =
        groups.iter().map(|name| json!({"apiGroup": group, "kind": "Group", "name": name})).collect();
    let mut binding = object(RBAC, "ClusterRoleBinding", &json!({"name": name}));
    if let Some(binding) = binding.as_object_mut() {
        binding.insert("roleRef".to_owned(), json!({"apiGroup": group, "kind": "ClusterRole", "name": name}));
        binding.insert("subjects".to_owned(), json!(subjects));
    }
    binding
}

fn system_priority(name: &str, value: i32) -> Value {
    let mut class = object("scheduling.k8s.io/v1", "PriorityClass", &json!({"name": name, "generation": 1}));
    if let Some(class) = class.as_object_mut() {
        let description = match name {
            "system-node-critical" => "Used for system critical pods that must not be moved from their current node.",
            _ => {
                "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary."
            }
        };
        class.extend([
            ("value".to_owned(), json!(value)),
            ("preemptionPolicy".to_owned(), json!("PreemptLowerPriority")),
            ("description".to_owned(), json!(description)),
        ]);
    }
    class
}

fn object(api_version: &str, kind: &str, metadata: &Value) -> Value {
    let mut metadata = metadata.clone();
    if let Some(metadata) = metadata.as_object_mut() {
        metadata.insert("uid".to_owned(), json!(uuid::Uuid::new_v4().to_string()));
        metadata.insert("creationTimestamp".to_owned(), json!(metadata::seconds(Context::now())));
    }
    json!({"apiVersion": api_version, "kind": kind, "metadata": metadata})
}
