//! Secret.

use serde_json::{Value, json};
use spec::Timestamp;
use spec::defaults::default_secret;
use spec::k8s_openapi::api::core::v1::Secret;
use spec::validation::{validate_secret, validate_secret_update};

use crate::kinds::admission::{Admission, AdmissionError, Admitted, admit, stored};
use crate::kinds::{FieldReader, Kind, Removal};
use crate::table::{AGE, Column, NAME, Row, age, count, name, text};

/// `v1` Secret.
pub static SECRET: Kind = Kind {
    group: "",
    version: "v1",
    resource: "secrets",
    singular: "secret",
    kind: "Secret",
    namespaced: true,
    short_names: &[],
    categories: &[],
    subresources: &[],
    fields: &[("type", FieldReader::Text("/type"))],
    columns: &[
        NAME,
        Column::text("Type", "What it is for; decides which keys it must have."),
        Column::text("Data", "Number of its keys."),
        AGE,
    ],
    row,
    admit: admit_secret,
    removal: Removal::AtOnce,
    orphans_by_default: false,
    counts_generations: false,
    renames: &[],
};

fn admit_secret(value: Value, admission: &Admission<'_>) -> Result<Admitted, AdmissionError> {
    let old = stored::<Secret>(admission.old)?;
    admit(value, default_secret, |secret| match &old {
        None => validate_secret(secret),
        Some(old) => validate_secret_update(secret, old),
    })
}

fn row(object: &Value, now: Timestamp) -> Row {
    let keys = count(object, "/data");
    Row::new(vec![name(object), text(object, "/type"), json!(keys), age(object, now)])
}
