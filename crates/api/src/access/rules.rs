//! What rules allow: RBAC's meaning of `PolicyRule` and `Subject`, pure.

use spec::k8s_openapi::api::rbac::v1::{PolicyRule, Subject};

use crate::access::Identity;

/// What somebody wants to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Something with objects.
    Resource {
        /// Such as `get` or `create`.
        verb: String,
        /// API group; empty for the core group.
        group: String,
        /// Plural name; with the subresource behind a slash, such as `pods/log`.
        resource: String,
        /// Which object; empty for all, and for one that gets its name by being made.
        name: String,
        /// The namespace; empty for all, and for kinds that are in none.
        pod_namespace: String,
    },
    /// Something with a path that is no object's.
    Path {
        /// The method in lower case.
        verb: String,
        /// The path.
        path: String,
    },
}

/// Whether a rule allows it.
pub fn allows(rule: &PolicyRule, action: &Action) -> bool {
    match action {
        Action::Resource { verb, group, resource, name, .. } => {
            has(Some(&rule.verbs), verb)
                && has(rule.api_groups.as_deref(), group)
                && names_resource(rule.resources.as_deref().unwrap_or_default(), resource)
                && rule.resource_names.as_deref().is_none_or(|names| names.is_empty() || names.contains(name))
        }
        Action::Path { verb, path } => {
            has(Some(&rule.verbs), verb)
                && rule.non_resource_urls.iter().flatten().any(|pattern| match pattern.strip_suffix('*') {
                    Some(prefix) => path.starts_with(prefix),
                    None => path == pattern,
                })
        }
    }
}

/// Whether a binding's subject is this user. ServiceAccounts are users with a name of their own.
pub fn is_meant(subject: &Subject, identity: &Identity, binding_namespace: &str) -> bool {
    match subject.kind.as_str() {
        "User" => subject.name == identity.name,
        "Group" => identity.is_in(&subject.name),
        "ServiceAccount" => {
            let pod_namespace = subject.namespace.as_deref().unwrap_or(binding_namespace);
            !pod_namespace.is_empty()
                && identity.name == format!("system:serviceaccount:{pod_namespace}:{}", subject.name)
        }
        _ => false,
    }
}

fn has(list: Option<&[String]>, wanted: &str) -> bool {
    list.unwrap_or_default().iter().any(|one| one == "*" || one == wanted)
}

/// `*` is all, `*/scale` a subresource of all; `pods` does not mean `pods/log`.
fn names_resource(list: &[String], wanted: &str) -> bool {
    let below = wanted.split_once('/').map(|(_, part)| format!("*/{part}"));
    list.iter().any(|one| one == "*" || one == wanted || Some(one) == below.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(verbs: &[&str], groups: &[&str], resources: &[&str], names: &[&str]) -> PolicyRule {
        let list = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        PolicyRule {
            verbs: list(verbs),
            api_groups: Some(list(groups)),
            resources: Some(list(resources)),
            resource_names: (!names.is_empty()).then(|| list(names)),
            non_resource_urls: None,
        }
    }

    fn action(verb: &str, group: &str, resource: &str, name: &str) -> Action {
        Action::Resource {
            verb: verb.to_owned(),
            group: group.to_owned(),
            resource: resource.to_owned(),
            name: name.to_owned(),
            pod_namespace: "default".to_owned(),
        }
    }

    #[test]
    fn a_rule_allows_what_it_names() {
        let pods = rule(&["get", "list"], &[""], &["pods"], &[]);
        let one = rule(&["get"], &[""], &["configmaps"], &["a"]);
        let all = rule(&["*"], &["*"], &["*"], &[]);
        let logs = rule(&["get"], &[""], &["*/log"], &[]);
        let table = [
            (&pods, action("get", "", "pods", "x"), true),
            (&pods, action("delete", "", "pods", "x"), false),
            (&pods, action("get", "", "pods/log", "x"), false),
            (&pods, action("get", "apps", "pods", "x"), false),
            (&pods, action("get", "", "secrets", "x"), false),
            (&one, action("get", "", "configmaps", "a"), true),
            (&one, action("get", "", "configmaps", "b"), false),
            (&one, action("get", "", "configmaps", ""), false),
            (&all, action("escalate", "rbac.authorization.k8s.io", "roles", ""), true),
            (&all, Action::Path { verb: "get".into(), path: "/metrics".into() }, false),
            (&logs, action("get", "", "pods/log", "x"), true),
            (&logs, action("get", "", "pods", "x"), false),
        ];
        for (rule, action, want) in table {
            assert_eq!(allows(rule, &action), want, "{rule:?} {action:?}");
        }
        let paths = PolicyRule {
            verbs: vec!["get".into()],
            non_resource_urls: Some(vec!["/api".into(), "/api/*".into()]),
            ..PolicyRule::default()
        };
        for (verb, path, want) in
            [("get", "/api", true), ("get", "/api/v1", true), ("post", "/api", false), ("get", "/apis", false)]
        {
            let action = Action::Path { verb: verb.to_owned(), path: path.to_owned() };
            assert_eq!(allows(&paths, &action), want, "{verb} {path}");
        }
    }

    #[test]
    fn a_subject_is_a_user_a_group_or_an_account() {
        let jane = Identity::authenticated("jane", ["dev".to_owned()]);
        let robot = Identity::authenticated("system:serviceaccount:a:robot", ["system:serviceaccounts".to_owned()]);
        let subject = |kind: &str, name: &str, pod_namespace: Option<&str>| Subject {
            kind: kind.to_owned(),
            name: name.to_owned(),
            namespace: pod_namespace.map(str::to_owned),
            api_group: None,
        };
        let table = [
            (subject("User", "jane", None), true, false),
            (subject("Group", "dev", None), true, false),
            (subject("Group", "system:authenticated", None), true, true),
            (subject("Group", "jane", None), false, false),
            (subject("ServiceAccount", "robot", Some("a")), false, true),
            (subject("ServiceAccount", "robot", Some("b")), false, false),
            (subject("ServiceAccount", "robot", None), false, true),
            (subject("Robot", "jane", None), false, false),
        ];
        for (subject, is_jane, is_robot) in table {
            assert_eq!(is_meant(&subject, &jane, "a"), is_jane, "{subject:?}");
            assert_eq!(is_meant(&subject, &robot, "a"), is_robot, "{subject:?}");
        }
    }
}
