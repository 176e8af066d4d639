//! Which fields of a Pod this engine honours. What it does not honour is refused by name, never ignored.
//!
//! One table ([`table::POD`]) is the truth: the check below and `docs/pod-fields.md` both come from it. To support a
//! field, give its row another [`Support`].

#[cfg(test)]
mod discover;
#[cfg(test)]
mod document;
mod nearest;
mod table;

pub use nearest::nearest_pod_field;
use serde_json::Value;

use crate::field::{Errors, FieldError, Path};

/// One field, and what becomes of it.
#[derive(Debug)]
struct Row {
    field: &'static str,
    support: Support,
    /// What a reader of `docs/pod-fields.md` should know.
    note: &'static str,
}

#[derive(Debug)]
enum Support {
    /// Honoured, with all that is below it.
    Yes,
    /// An object whose fields have rows of their own.
    Fields(&'static [Row]),
    /// A list of such objects.
    Items(&'static [Row]),
    /// A map of which only these keys are honoured.
    Keys(&'static [Row]),
    /// Honoured, unless this says why not, of the value and the object it stands in.
    Unless(fn(&Value, &Value) -> Option<&'static str>),
    /// Set by the server: read and dropped.
    Dropped,
    /// Refused, unless it is empty.
    No,
    /// Refused also when empty, since naming it already chooses something.
    NotEvenEmpty,
}

/// The fields of a Pod's document that this engine does not honour; empty if it honours all.
///
/// Takes the document as the client sent it or the Pod after defaulting. Fields that Kubernetes does not know are not
/// refused here: [`crate::decode::decode_strict`] names them, and decoding drops them.
pub fn unsupported_pod_fields(pod: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let Value::Object(fields) = pod else { return Vec::new() };
    for (name, value) in fields {
        if let Some(row) = row_named(table::POD, name) {
            check(&mut errors, &Path::root(name), row, value, pod);
        }
    }
    errors.into_vec()
}

fn check(errors: &mut Errors, path: &Path<'_>, row: &Row, value: &Value, parent: &Value) {
    if value.is_null() {
        return;
    }
    match row.support {
        Support::Yes | Support::Dropped => {}
        Support::Fields(rows) => check_fields(errors, path, rows, value),
        Support::Items(rows) => {
            for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                check_fields(errors, &path.index(index), rows, item);
            }
        }
        Support::Keys(rows) => check_keys(errors, path, rows, value),
        Support::Unless(objection) => {
            if let Some(why) = objection(value, parent) {
                errors.forbidden(path, format!("monopod does not support this yet: {why}"));
            }
        }
        Support::No if is_empty(value) => {}
        Support::No | Support::NotEvenEmpty => refuse(errors, path, row.note),
    }
}

fn check_fields(errors: &mut Errors, path: &Path<'_>, rows: &[Row], object: &Value) {
    for (name, value) in object.as_object().into_iter().flatten() {
        if let Some(row) = row_named(rows, name) {
            check(errors, &path.child(name), row, value, object);
        }
    }
}

fn check_keys(errors: &mut Errors, path: &Path<'_>, rows: &[Row], map: &Value) {
    for (key, value) in map.as_object().into_iter().flatten() {
        let of_a_vendor = || row_named(rows, "*/*").filter(|_| key.contains('/'));
        let of_huge_pages = || row_named(rows, "hugepages-*").filter(|_| crate::huge_pages::is_huge_pages(key));
        match row_named(rows, key).or_else(of_a_vendor).or_else(of_huge_pages) {
            Some(row) => check(errors, &path.key(key), row, value, map),
            None => refuse(errors, &path.key(key), ""),
        }
    }
}

fn refuse(errors: &mut Errors, path: &Path<'_>, note: &str) {
    let comma = if note.is_empty() { "" } else { ": " };
    errors.forbidden(path, format!("monopod does not support this field yet{comma}{note}"));
}

fn row_named<'a>(rows: &'a [Row], name: &str) -> Option<&'a Row> {
    rows.iter().find(|row| row.field == name)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(pod: &Value) -> Vec<String> {
        unsupported_pod_fields(pod).iter().map(ToString::to_string).collect()
    }

    #[expect(clippy::needless_pass_by_value, reason = "`json!` is easier to read without a borrow")]
    fn in_spec(field: &str, value: Value) -> Value {
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}], field: value}})
    }

    #[expect(clippy::needless_pass_by_value, reason = "`json!` is easier to read without a borrow")]
    fn in_container(field: &str, value: Value) -> Value {
        json!({"spec": {"containers": [{"name": "c", "image": "i"}, {"name": "d", field: value}]}})
    }

    #[test]
    fn default_and_empty_values_pass() {
        let table = [
            in_spec("hostNetwork", json!(true)),
            in_spec("hostUsers", json!(true)),
            in_spec("nodeSelector", json!({"disk": "fast"})),
            in_spec("affinity", json!({})),
            in_container("resources", json!({"limits": {"nvidia.com/gpu": "1"}})),
            in_spec("imagePullSecrets", json!([])),
            in_spec("imagePullSecrets", json!([{"name": "s"}])),
            in_spec("priorityClassName", json!("")),
            in_spec("priority", json!(0)),
            in_spec("serviceAccountName", json!("default")),
            in_spec("serviceAccountName", json!("")),
            in_spec("runtimeClassName", json!(null)),
            in_spec("automountServiceAccountToken", json!(true)),
            in_spec(
                "volumes",
                json!([{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]),
            ),
            in_spec("securityContext", json!({"seccompProfile": {"type": "Unconfined"}, "runAsUser": 0})),
            in_spec("tolerations", json!([{"operator": "Exists"}])),
            in_spec("volumes", json!([{"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}])),
            in_spec("volumes", json!([{"name": "v", "emptyDir": {"medium": "HugePages-2Mi"}}])),
            in_container("resources", json!({"limits": {"hugepages-2Mi": "2Mi"}})),
            in_container("ports", json!([{"containerPort": 1, "hostPort": 0, "hostIP": ""}])),
            in_container("resources", json!({"limits": {"cpu": "1", "memory": "1"}, "claims": []})),
            json!({"status": {"phase": "Running"}, "metadata": {"uid": "u", "managedFields": [{}]}}),
        ];
        for pod in table {
            assert_eq!(refused(&pod), Vec::<String>::new(), "{pod}");
        }
    }

    #[test]
    fn what_is_not_honoured_is_refused_by_name() {
        let not_yet = "Forbidden: monopod does not support this field yet";
        let table = [
            (
                in_spec("affinity", json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{}]}})),
                format!("spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution: {not_yet}"),
            ),
            (in_spec("volumes", json!([{"name": "v", "csi": {}}])), format!("spec.volumes[0].csi: {not_yet}")),
            (
                in_spec("volumes", json!([{"name": "v", "emptyDir": {"medium": "Disk"}}])),
                "spec.volumes[0].emptyDir.medium: Forbidden: monopod does not support this yet: only `Memory`, `HugePages` and `HugePages-<size>`".to_owned(),
            ),
            (
                in_container("resources", json!({"limits": {"hugepages": "1"}})),
                format!("spec.containers[1].resources.limits[hugepages]: {not_yet}"),
            ),
            (
                in_container("ports", json!([{"containerPort": 1, "hostPort": 80, "protocol": "SCTP"}])),
                "spec.containers[1].ports[0].hostPort: Forbidden: monopod does not support this yet: only TCP and UDP ports are published".to_owned(),
            ),
            (
                in_container("ports", json!([{"containerPort": 1, "hostPort": 80, "hostIP": "::1"}])),
                "spec.containers[1].ports[0].hostIP: Forbidden: monopod does not support this yet: Pods have IPv4 addresses only".to_owned(),
            ),
            (
                in_container("volumeMounts", json!([{"name": "v", "mountPath": "/v", "bindMountOptions": ["noexec"]}])),
                format!("spec.containers[1].volumeMounts[0].bindMountOptions: {not_yet}"),
            ),
            (
                in_container("env", json!([{"name": "A", "valueFrom": {"fileKeyRef": {}}}])),
                format!("spec.containers[1].env[0].valueFrom.fileKeyRef: {not_yet}"),
            ),
            (
                in_container("livenessProbe", json!({"grpc": {"port": 1, "mode": "TLS"}})),
                format!("spec.containers[1].livenessProbe.grpc.mode: {not_yet}"),
            ),
        ];
        for (pod, message) in table {
            assert_eq!(refused(&pod), [message], "{pod}");
        }
    }

    #[test]
    fn the_defaults_of_a_pod_are_all_supported() {
        let mut pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {
            "containers": [{"name": "c", "image": "i"}],
            "volumes": [{"name": "v"}, {"name": "h", "hostPath": {"path": "/"}}],
        }}))
        .unwrap();
        crate::defaults::default_pod(&mut pod);
        assert_eq!(refused(&serde_json::to_value(pod).unwrap()), Vec::<String>::new());
    }
}
