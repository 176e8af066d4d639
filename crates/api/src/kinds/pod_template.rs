//! PodTemplate.

use serde_json::{Value, json};
use spec::Timestamp;
use spec::defaults::default_pod_template;
use spec::k8s_openapi::api::core::v1::PodTemplate;
use spec::validation::validate_pod_template;

use crate::fields::{at, items_at, text_at};
use crate::kinds::Kind;
use crate::kinds::plain::{Rules, admit_by};
use crate::table::{Column, NAME, Row, name};

/// `v1` PodTemplate.
pub static POD_TEMPLATE: Kind = Kind {
    columns: &[
        NAME,
        Column::text("Containers", "Of its Pods."),
        Column::text("Images", "Of its Pods."),
        Column::text("Pod Labels", "Of its Pods."),
    ],
    row,
    counts_generations: true,
    ..Kind::namespaced("", "podtemplates", "podtemplate", "PodTemplate", |value, admission| {
        let (complete, validate) = (default_pod_template, validate_pod_template);
        admit_by::<PodTemplate>(&Rules { complete, validate, ..Rules::NONE }, value, admission)
    })
};

fn row(object: &Value, _now: Timestamp) -> Row {
    let of_containers = |path: &str| {
        let texts: Vec<&str> =
            items_at(object, "/template/spec/containers").map(|container| text_at(container, path)).collect();
        json!(texts.join(","))
    };
    let labels: Vec<String> = at(object, "/template/metadata/labels")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    let labels = if labels.is_empty() { "<none>".to_owned() } else { labels.join(",") };
    Row::new(vec![name(object), of_containers("/name"), of_containers("/image"), json!(labels)])
}
