//! ServiceAccount.

use serde_json::json;
use spec::k8s_openapi::api::core::v1::ServiceAccount;

use crate::kinds::plain::{Rules, admit_by};
use crate::kinds::{Kind, Subresource};
use crate::table::{AGE, Column, NAME, Row, age, count, name};

/// `v1` ServiceAccount.
pub static SERVICE_ACCOUNT: Kind = Kind {
    short_names: &["sa"],
    subresources: &[Subresource { name: "token", kind: "TokenRequest", verbs: &["create"] }],
    columns: &[NAME, Column::integer("Secrets", "Number of the Secrets that it may use."), AGE],
    row: |object, now| Row::new(vec![name(object), json!(count(object, "/secrets")), age(object, now)]),
    ..Kind::namespaced("", "serviceaccounts", "serviceaccount", "ServiceAccount", |value, admission| {
        admit_by::<ServiceAccount>(&Rules::NONE, value, admission)
    })
};
