//! All kinds that the daemon serves, as its discovery tells them, and the few that this program knows by heart.

use std::borrow::Cow;

use anyhow::Result;
use serde_json::Value;

use crate::client::Client;
use crate::errors::Failure;
use crate::fields::Fields as _;
use crate::resources::{RESOURCES, Resource, Target};

/// Kinds to find names in.
#[derive(Debug)]
pub struct Catalog(Vec<&'static Resource>);

impl Catalog {
    /// The kinds that need no question.
    pub fn built_in() -> Self {
        Self(RESOURCES.iter().collect())
    }

    /// The kinds that the daemon serves, in the order of discovery: the core group first.
    pub async fn served(client: &Client) -> Result<Self> {
        let mut kinds = Vec::new();
        for door in ["/api", "/apis"] {
            let groups = client.discover(door).await?;
            kinds.extend(resources_of(&groups));
        }
        Ok(Self(kinds))
    }

    /// The resource of a name that a person types: plural, singular, abbreviation or kind, in any case, also with its
    /// group or its version and group, as in `roles.rbac.authorization.k8s.io`.
    pub fn by_name(&self, name: &str) -> Result<&'static Resource, Failure> {
        let lower = name.to_lowercase();
        let (plain, rest) = lower.split_once('.').unwrap_or((&lower, ""));
        let matches = |resource: &&&'static Resource| {
            let group = resource.group();
            let version = resource.version();
            let is_named = plain == resource.plural
                || plain == resource.singular
                || plain == resource.kind.to_lowercase()
                || resource.short.iter().any(|short| *short == plain);
            let in_group = rest.is_empty() || rest == group || rest == version || rest == format!("{version}.{group}");
            is_named && (in_group || rest.trim_end_matches('.') == version)
        };
        self.0.iter().find(matches).copied().ok_or_else(|| {
            Failure::new(format!("the server doesn't have a resource type {name:?}"))
                .hint(format!("it has {}", self.names()))
        })
    }

    /// The resource of a manifest.
    pub fn by_kind(&self, api_version: &str, kind: &str) -> Result<&'static Resource, Failure> {
        let matches = |resource: &&&'static Resource| resource.api_version == api_version && resource.kind == kind;
        self.0.iter().find(matches).copied().ok_or_else(|| {
            let kinds: Vec<&str> = self.0.iter().map(|resource| resource.kind.as_ref()).collect();
            Failure::new(format!("no matches for kind {kind:?} in version {api_version:?}"))
                .hint(format!("monopod serves these kinds: {}", kinds.join(", ")))
        })
    }

    /// Reads `pods`, `pods,cm`, `all`, `pod web1 web2` and `pod/web cm/config`.
    pub fn parse_targets(&self, arguments: &[String]) -> Result<Vec<Target>, Failure> {
        let Some((first, rest)) = arguments.split_first() else {
            return Err(Failure::new("no resource is named").hint(format!("name one of {}", self.names())));
        };
        if arguments.iter().any(|argument| argument.contains('/')) {
            return arguments.iter().map(|argument| self.parse_pair(argument)).collect();
        }
        let resources = self.parse_resources(first)?;
        if rest.is_empty() {
            return Ok(resources.into_iter().map(|resource| Target { resource, name: None }).collect());
        }
        let of_one = |resource| rest.iter().map(move |name| Target { resource, name: Some(name.clone()) });
        Ok(resources.into_iter().flat_map(of_one).collect())
    }

    fn parse_pair(&self, argument: &str) -> Result<Target, Failure> {
        match argument.split_once('/') {
            Some((kind, name)) if !name.is_empty() && !name.contains('/') => {
                Ok(Target { resource: self.by_name(kind)?, name: Some(name.to_owned()) })
            }
            _ => Err(Failure::new(format!("{argument:?} is not of the form KIND/NAME"))
                .hint("either name the kind once (`pod web db`) or before each name (`pod/web cm/config`)")),
        }
    }

    fn parse_resources(&self, names: &str) -> Result<Vec<&'static Resource>, Failure> {
        let mut resources = Vec::new();
        for name in names.split(',').filter(|name| !name.is_empty()) {
            let of_category: Vec<&'static Resource> = self
                .0
                .iter()
                .copied()
                .filter(|resource| resource.categories.iter().any(|word| *word == name))
                .collect();
            let found = if of_category.is_empty() { vec![self.by_name(name)?] } else { of_category };
            for resource in found {
                if !resources.contains(&resource) {
                    resources.push(resource);
                }
            }
        }
        Ok(resources)
    }

    fn names(&self) -> String {
        let with_short = |resource: &&'static Resource| match resource.short.first() {
            Some(short) => format!("{} ({short})", resource.plural),
            None => resource.plural.to_string(),
        };
        self.0.iter().map(with_short).collect::<Vec<_>>().join(", ")
    }
}

/// Whether all kinds of these arguments are known by heart.
pub fn needs_no_question(arguments: &[String]) -> bool {
    let built_in = Catalog::built_in();
    let has_slash = arguments.iter().any(|argument| argument.contains('/'));
    let words: Vec<&str> = match arguments.first() {
        _ if has_slash => arguments.iter().filter_map(|argument| Some(argument.split_once('/')?.0)).collect(),
        Some(first) => first.split(',').filter(|name| !name.is_empty()).collect(),
        None => Vec::new(),
    };
    words.iter().all(|word| built_in.by_name(word).is_ok())
}

/// What one answer of discovery lists and can be read.
fn resources_of(groups: &Value) -> Vec<&'static Resource> {
    let mut found = Vec::new();
    for group in groups.items("/items") {
        for version in group.items("/versions") {
            let api_version = match group.name() {
                "" => version.text("/version").to_owned(),
                name => format!("{name}/{}", version.text("/version")),
            };
            let readable = version
                .items("/resources")
                .iter()
                .filter(|resource| words(resource, "/verbs").contains(&"get".to_owned()));
            found.extend(readable.map(|resource| leaked(resource, &api_version)));
        }
    }
    found
}

/// The kinds are the same until this short program ends, as if they were written in it.
fn leaked(resource: &Value, api_version: &str) -> &'static Resource {
    let text = |place: &str| Cow::Owned(resource.text(place).to_owned());
    let list = |place: &str| words(resource, place).into_iter().map(Cow::Owned).collect();
    Box::leak(Box::new(Resource {
        plural: text("/resource"),
        singular: text("/singularResource"),
        short: Cow::Owned(list("/shortNames")),
        categories: Cow::Owned(list("/categories")),
        kind: text("/responseKind/kind"),
        api_version: Cow::Owned(api_version.to_owned()),
        namespaced: resource.text("/scope") == "Namespaced",
    }))
}

fn words(resource: &Value, place: &str) -> Vec<String> {
    resource.items(place).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(catalog: &Catalog, arguments: &[&str]) -> String {
        let arguments: Vec<_> = arguments.iter().map(ToString::to_string).collect();
        match catalog.parse_targets(&arguments) {
            Ok(targets) => {
                let one = |target: &Target| match &target.name {
                    Some(name) => format!("{}/{name}", target.resource.plural),
                    None => target.resource.plural.to_string(),
                };
                targets.iter().map(one).collect::<Vec<_>>().join(" ")
            }
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn targets_are_read_as_kubectl_reads_them() {
        for (arguments, targets) in [
            (&["po"][..], "pods"),
            (&["Pods"], "pods"),
            (&["pods,cm,po"], "pods configmaps"),
            (&["pod", "a", "b"], "pods/a pods/b"),
            (&["pod,ns", "a"], "pods/a namespaces/a"),
            (&["pod/a", "cm/b"], "pods/a configmaps/b"),
            (&["pods.v1.", "a"], "pods/a"),
            (&["pod/a", "b"], "error: \"b\" is not of the form KIND/NAME"),
            (&["pod/"], "error: \"pod/\" is not of the form KIND/NAME"),
            (&["deploy"], "error: the server doesn't have a resource type \"deploy\""),
            (&[], "error: no resource is named"),
        ] {
            assert_eq!(shown(&Catalog::built_in(), arguments), targets, "{arguments:?}");
        }
    }

    #[test]
    fn discovery_tells_kinds_of_any_group() {
        let resource = |plural: &str, kind: &str, verbs: &[&str]| {
            json!({"resource": plural, "singularResource": kind.to_lowercase(), "responseKind": {"kind": kind},
                "scope": "Namespaced", "verbs": verbs, "shortNames": ["x"], "categories": ["all"]})
        };
        let group = |name: &str, resources: Value| json!({"metadata": {"name": name}, "versions": [{"version": "v1", "resources": resources}]});
        let groups = json!({"items": [
            group("a.io", json!([resource("roles", "Role", &["get"]), resource("reviews", "Review", &["create"])])),
            group("b.io", json!([resource("roles", "Role", &["get"])])),
        ]});
        let catalog = Catalog(resources_of(&groups));
        assert_eq!(catalog.by_name("role").unwrap().api_version, "a.io/v1");
        assert_eq!(catalog.by_name("roles.b.io").unwrap().api_version, "b.io/v1");
        assert_eq!(catalog.by_name("roles.v1.b.io").unwrap().api_version, "b.io/v1");
        assert_eq!(catalog.by_kind("b.io/v1", "Role").unwrap().object("n", "r"), "/apis/b.io/v1/namespaces/n/roles/r");
        assert_eq!(catalog.by_name("x").unwrap().named(), "role.a.io");
        assert!(catalog.by_name("reviews").is_err(), "nothing to be read");
        assert_eq!(shown(&catalog, &["all"]), "roles roles");
        assert!(!needs_no_question(&["role/a".to_owned()]) && needs_no_question(&["pod/a".to_owned()]));
    }
}
