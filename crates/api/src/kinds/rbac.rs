//! Role, ClusterRole and their bindings.

use serde_json::{Value, json};
use spec::Timestamp;
use spec::defaults::{default_cluster_role_binding, default_role_binding};
use spec::k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use spec::validation::{
    NameForm, validate_cluster_role, validate_cluster_role_binding, validate_role, validate_role_binding,
};

use crate::fields::{items_at, text_at};
use crate::kinds::Kind;
use crate::kinds::plain::{Rules, admit_by};
use crate::table::{AGE, CREATED_AT, Column, NAME, Row, age, name, text};

const GROUP: &str = "rbac.authorization.k8s.io";

const ROLE_COLUMNS: &[Column] = &[NAME, CREATED_AT];

const BINDING_COLUMNS: &[Column] = &[
    NAME,
    Column::text("Role", "What it grants."),
    AGE,
    Column::wide("Users", "Who gets it."),
    Column::wide("Groups", "Who gets it."),
    Column::wide("ServiceAccounts", "Who gets it."),
];

/// `rbac.authorization.k8s.io/v1` Role.
pub static ROLE: Kind = Kind {
    columns: ROLE_COLUMNS,
    row: role_row,
    ..Kind::namespaced(GROUP, "roles", "role", "Role", |value, admission| {
        let rules = Rules { names: NameForm::PathSegment, validate: validate_role, ..Rules::NONE };
        admit_by::<Role>(&rules, value, admission)
    })
};

/// `rbac.authorization.k8s.io/v1` ClusterRole.
pub static CLUSTER_ROLE: Kind = Kind {
    columns: ROLE_COLUMNS,
    row: role_row,
    ..Kind::cluster(GROUP, "clusterroles", "clusterrole", "ClusterRole", |value, admission| {
        let (names, validate) = (NameForm::PathSegment, validate_cluster_role);
        admit_by::<ClusterRole>(&Rules { namespaced: false, names, validate, ..Rules::NONE }, value, admission)
    })
};

/// `rbac.authorization.k8s.io/v1` RoleBinding.
pub static ROLE_BINDING: Kind = Kind {
    columns: BINDING_COLUMNS,
    row: binding_row,
    ..Kind::namespaced(GROUP, "rolebindings", "rolebinding", "RoleBinding", |value, admission| {
        let rules = Rules {
            namespaced: true,
            names: NameForm::PathSegment,
            complete: default_role_binding,
            validate: validate_role_binding,
        };
        admit_by::<RoleBinding>(&rules, value, admission)
    })
};

/// `rbac.authorization.k8s.io/v1` ClusterRoleBinding.
pub static CLUSTER_ROLE_BINDING: Kind = Kind {
    columns: BINDING_COLUMNS,
    row: binding_row,
    ..Kind::cluster(GROUP, "clusterrolebindings", "clusterrolebinding", "ClusterRoleBinding", |value, admission| {
        let rules = Rules {
            namespaced: false,
            names: NameForm::PathSegment,
            complete: default_cluster_role_binding,
            validate: validate_cluster_role_binding,
        };
        admit_by::<ClusterRoleBinding>(&rules, value, admission)
    })
};

fn role_row(object: &Value, _now: Timestamp) -> Row {
    Row::new(vec![name(object), text(object, "/metadata/creationTimestamp")])
}

fn binding_row(object: &Value, now: Timestamp) -> Row {
    let role = format!("{}/{}", text_at(object, "/roleRef/kind"), text_at(object, "/roleRef/name"));
    let subjects = |kind: &str| {
        let of_kind = items_at(object, "/subjects").filter(|subject| text_at(subject, "/kind") == kind);
        let names: Vec<String> = of_kind
            .map(|subject| match (kind, text_at(subject, "/namespace"), text_at(subject, "/name")) {
                ("ServiceAccount", namespace, name) if !namespace.is_empty() => format!("{namespace}/{name}"),
                (_, _, name) => name.to_owned(),
            })
            .collect();
        json!(names.join(", "))
    };
    Row::new(vec![
        name(object),
        json!(role),
        age(object, now),
        subjects("User"),
        subjects("Group"),
        subjects("ServiceAccount"),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binding_shows_who_gets_what() {
        let binding = json!({
            "metadata": {"name": "b", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "roleRef": {"kind": "ClusterRole", "name": "view"},
            "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "namespace": "n", "name": "s"},
                         {"kind": "User", "name": "v"}],
        });
        let cells = binding_row(&binding, "2026-01-01T00:00:05Z".parse().unwrap()).cells;
        assert_eq!(cells, ["b", "ClusterRole/view", "5s", "u, v", "", "n/s"]);
    }
}
