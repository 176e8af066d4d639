//! Namespace.

use serde_json::Value;
use spec::Timestamp;
use spec::defaults::default_namespace;
use spec::k8s_openapi::api::core::v1::Namespace;
use spec::validation::{validate_namespace, validate_namespace_update};

use crate::kinds::admission::{Admission, AdmissionError, Admitted, admit, stored};
use crate::kinds::{FieldReader, Kind, Removal, Subresource};
use crate::table::{AGE, Column, NAME, Row, age, name, text};

/// `v1` Namespace.
pub static NAMESPACE: Kind = Kind {
    group: "",
    version: "v1",
    resource: "namespaces",
    singular: "namespace",
    kind: "Namespace",
    namespaced: false,
    short_names: &["ns"],
    categories: &[],
    subresources: &[Subresource { name: "status", kind: "Namespace", verbs: &["get", "patch", "update"] }],
    fields: &[("status.phase", FieldReader::Text("/status/phase"))],
    columns: &[NAME, Column::text("Status", "Active, or Terminating while its objects go."), AGE],
    row,
    admit: admit_namespace,
    removal: Removal::Cascade,
    orphans_by_default: false,
    counts_generations: false,
    renames: &[],
};

fn admit_namespace(value: Value, admission: &Admission<'_>) -> Result<Admitted, AdmissionError> {
    let old = stored::<Namespace>(admission.old)?;
    let complete = |namespace: &mut Namespace| {
        if old.is_none() {
            namespace.status = None;
        }
        default_namespace(namespace);
    };
    admit(value, complete, |namespace| match &old {
        None => validate_namespace(namespace),
        Some(old) => validate_namespace_update(namespace, old),
    })
}

fn row(object: &Value, now: Timestamp) -> Row {
    Row::new(vec![name(object), text(object, "/status/phase"), age(object, now)])
}
