//! Selectors: which objects a list, a watch or a delete is about.

mod field;
mod label;

use serde_json::Value;
use store::StoredObject;

pub use field::FieldSelector;
pub use label::LabelSelector;

use crate::http::query::Query;
use crate::http::status::ApiError;
use crate::kinds::Kind;

/// All that narrows a collection: its namespace, labels and fields.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pod_namespace: Option<String>,
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Filter {
    /// Reads `labelSelector` and `fieldSelector`.
    pub fn parse(kind: &Kind, pod_namespace: Option<&str>, query: &Query) -> Result<Self, ApiError> {
        Ok(Self {
            pod_namespace: pod_namespace.map(str::to_owned),
            labels: LabelSelector::parse(query.get("labelSelector").unwrap_or_default())?,
            fields: FieldSelector::parse(kind, query.get("fieldSelector").unwrap_or_default())?,
        })
    }

    /// Whether labels and fields are left open.
    pub fn is_open(&self) -> bool {
        self.labels == LabelSelector::default() && self.fields.is_empty()
    }

    /// Whether `object` is meant. It is read only where labels or fields are asked for.
    pub fn matches(&self, object: &StoredObject) -> bool {
        let in_namespace = self.pod_namespace.is_none() || self.pod_namespace == object.key.namespace;
        in_namespace && (self.is_open() || (self.labels.may_match(object) && self.selects(&object.value.tree())))
    }

    fn selects(&self, object: &Value) -> bool {
        self.labels.matches(object) && self.fields.matches(object)
    }
}
