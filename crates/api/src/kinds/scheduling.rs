//! PriorityClass and RuntimeClass.

use serde_json::{Value, json};
use spec::defaults::default_priority_class;
use spec::k8s_openapi::api::node::v1::RuntimeClass;
use spec::k8s_openapi::api::scheduling::v1::PriorityClass;
use spec::validation::{NameForm, validate_priority_class, validate_runtime_class};

use crate::fields::{flag_at, number_at};
use crate::kinds::Kind;
use crate::kinds::plain::{Rules, admit_by};
use crate::table::{AGE, Column, NAME, Row, age, name, text};

/// `scheduling.k8s.io/v1` PriorityClass.
pub static PRIORITY_CLASS: Kind = Kind {
    short_names: &["pc"],
    columns: &[
        NAME,
        Column::integer("Value", "The priority that its Pods get."),
        Column::flag("Global-Default", "Whether Pods without a class get it."),
        AGE,
        Column::text("PreemptionPolicy", "Whether its Pods may displace others."),
    ],
    row: |object, now| {
        Row::new(vec![
            name(object),
            json!(number_at(object, "/value").unwrap_or_default()),
            Value::from(flag_at(object, "/globalDefault")),
            age(object, now),
            text(object, "/preemptionPolicy"),
        ])
    },
    ..Kind::cluster("scheduling.k8s.io", "priorityclasses", "priorityclass", "PriorityClass", |value, admission| {
        let (complete, validate) = (default_priority_class, validate_priority_class);
        let rules = Rules { namespaced: false, complete, validate, ..Rules::NONE };
        admit_by::<PriorityClass>(&rules, value, admission)
    })
};

/// `node.k8s.io/v1` RuntimeClass.
pub static RUNTIME_CLASS: Kind = Kind {
    columns: &[NAME, Column::text("Handler", "The runtime that it names."), AGE],
    row: |object, now| Row::new(vec![name(object), text(object, "/handler"), age(object, now)]),
    ..Kind::cluster("node.k8s.io", "runtimeclasses", "runtimeclass", "RuntimeClass", |value, admission| {
        let rules =
            Rules { namespaced: false, names: NameForm::Subdomain, complete: |_| {}, validate: validate_runtime_class };
        admit_by::<RuntimeClass>(&rules, value, admission)
    })
};
