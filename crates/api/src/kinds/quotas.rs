//! LimitRange and ResourceQuota: what a namespace may use. What they do to other objects is in `limit_ranges` and
//! [`crate::quotas`].

use serde_json::{Value, json};
use spec::Timestamp;
use spec::defaults::default_limit_range;
use spec::k8s_openapi::api::core::v1::{LimitRange, ResourceQuota};
use spec::validation::{validate_limit_range, validate_resource_quota};

use crate::fields::{at, text_at};
use crate::kinds::plain::{Rules, admit_by};
use crate::kinds::{Kind, Subresource};
use crate::table::{AGE, CREATED_AT, Column, NAME, Row, age, name, text};

/// `v1` LimitRange.
pub static LIMIT_RANGE: Kind = Kind {
    short_names: &["limits"],
    columns: &[NAME, CREATED_AT],
    row: |object, _now| Row::new(vec![name(object), text(object, "/metadata/creationTimestamp")]),
    ..Kind::namespaced("", "limitranges", "limitrange", "LimitRange", |value, admission| {
        let (complete, validate) = (default_limit_range, validate_limit_range);
        admit_by::<LimitRange>(&Rules { complete, validate, ..Rules::NONE }, value, admission)
    })
};

/// `v1` ResourceQuota.
pub static RESOURCE_QUOTA: Kind = Kind {
    short_names: &["quota"],
    subresources: &[Subresource::status("ResourceQuota")],
    columns: &[
        NAME,
        Column::text("Request", "What is used and what may be, of all but limits."),
        Column::text("Limit", "What the limits are together, and what they may be."),
        AGE,
    ],
    row: quota_row,
    ..Kind::namespaced("", "resourcequotas", "resourcequota", "ResourceQuota", |value, admission| {
        admit_by::<ResourceQuota>(&Rules { validate: validate_resource_quota, ..Rules::NONE }, value, admission)
    })
};

fn quota_row(object: &Value, now: Timestamp) -> Row {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (resource, hard) in at(object, "/status/hard").and_then(Value::as_object).into_iter().flatten() {
        let used = at(object, "/status/used").and_then(|used| used.get(resource)).and_then(Value::as_str);
        let shown = format!("{resource}: {}/{}", used.unwrap_or("0"), hard.as_str().unwrap_or_default());
        if resource.starts_with("limits.") { limits.push(shown) } else { requests.push(shown) }
    }
    let own = text_at(object, "/metadata/name");
    Row::new(vec![json!(own), json!(requests.join(", ")), json!(limits.join(", ")), age(object, now)])
}
