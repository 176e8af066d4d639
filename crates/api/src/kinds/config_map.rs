//! ConfigMap.

use serde_json::{Value, json};
use spec::Timestamp;
use spec::defaults::default_config_map;
use spec::k8s_openapi::api::core::v1::ConfigMap;
use spec::validation::{validate_config_map, validate_config_map_update};

use crate::kinds::admission::{Admission, AdmissionError, Admitted, admit, stored};
use crate::kinds::{Kind, Removal};
use crate::table::{AGE, Column, NAME, Row, age, count, name};

/// `v1` ConfigMap.
pub static CONFIG_MAP: Kind = Kind {
    group: "",
    version: "v1",
    resource: "configmaps",
    singular: "configmap",
    kind: "ConfigMap",
    namespaced: true,
    short_names: &["cm"],
    categories: &[],
    subresources: &[],
    fields: &[],
    columns: &[NAME, Column::text("Data", "Number of its keys."), AGE],
    row,
    admit: admit_config_map,
    removal: Removal::AtOnce,
    orphans_by_default: false,
    counts_generations: false,
    renames: &[],
};

fn admit_config_map(value: Value, admission: &Admission<'_>) -> Result<Admitted, AdmissionError> {
    let old = stored::<ConfigMap>(admission.old)?;
    admit(value, default_config_map, |map| match &old {
        None => validate_config_map(map),
        Some(old) => validate_config_map_update(map, old),
    })
}

fn row(object: &Value, now: Timestamp) -> Row {
    let keys = count(object, "/data") + count(object, "/binaryData");
    Row::new(vec![name(object), json!(keys), age(object, now)])
}
