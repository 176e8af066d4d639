//! The kinds of objects by all their names, and what a command line such as `pod/web cm` points at.

use std::fmt::Write as _;

use crate::errors::Failure;

/// One kind of object and where the API keeps it.
#[derive(Debug, PartialEq, Eq)]
pub struct Resource {
    /// The plural, as paths have it.
    pub plural: &'static str,
    /// The singular, as `-o name` prints it.
    pub singular: &'static str,
    /// The abbreviations that kubectl knows.
    pub short: &'static [&'static str],
    /// `kind` in a manifest.
    pub kind: &'static str,
    /// `apiVersion` in a manifest.
    pub api_version: &'static str,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
}

/// What the daemon serves. All are of the core group, below `/api/v1`.
pub const RESOURCES: &[Resource] = &[
    resource("pods", "pod", &["po"], "Pod", true),
    resource("configmaps", "configmap", &["cm"], "ConfigMap", true),
    resource("secrets", "secret", &[], "Secret", true),
    resource("namespaces", "namespace", &["ns"], "Namespace", false),
    resource("nodes", "node", &["no"], "Node", false),
    resource("events", "event", &["ev"], "Event", true),
];

/// Pods.
pub const PODS: &Resource = &resource("pods", "pod", &["po"], "Pod", true);
/// Events.
pub const EVENTS: &Resource = &resource("events", "event", &["ev"], "Event", true);

const fn resource(
    plural: &'static str,
    singular: &'static str,
    short: &'static [&'static str],
    kind: &'static str,
    namespaced: bool,
) -> Resource {
    Resource { plural, singular, short, kind, api_version: "v1", namespaced }
}

impl Resource {
    /// The path of the collection: of one namespace, or of all.
    pub fn collection(&self, namespace: Option<&str>) -> String {
        match namespace.filter(|_| self.namespaced) {
            Some(namespace) => format!("/api/{}/namespaces/{}/{}", self.api_version, encoded(namespace), self.plural),
            None => format!("/api/{}/{}", self.api_version, self.plural),
        }
    }

    /// The path of one object.
    pub fn object(&self, namespace: &str, name: &str) -> String {
        format!("{}/{}", self.collection(Some(namespace)), encoded(name))
    }

    /// The resource of a name that a person types: plural, singular, abbreviation or kind, in any case.
    pub fn by_name(name: &str) -> Result<&'static Self, Failure> {
        let lower = name.to_lowercase();
        let core = lower.trim_end_matches(".v1").trim_end_matches('.');
        let matches =
            |resource: &&Self| core == resource.plural || core == resource.singular || resource.short.contains(&core);
        RESOURCES.iter().find(matches).ok_or_else(|| {
            Failure::new(format!("the server doesn't have a resource type {name:?}"))
                .hint(format!("it has {}", all_names()))
        })
    }

    /// The resource of a manifest.
    pub fn by_kind(api_version: &str, kind: &str) -> Result<&'static Self, Failure> {
        let matches = |resource: &&Self| resource.api_version == api_version && resource.kind == kind;
        RESOURCES.iter().find(matches).ok_or_else(|| {
            let kinds = RESOURCES.iter().map(|resource| resource.kind).collect::<Vec<_>>().join(", ");
            Failure::new(format!("no matches for kind {kind:?} in version {api_version:?}"))
                .hint(format!("monopod serves these kinds of version \"v1\": {kinds}"))
        })
    }
}

/// What one argument points at: all objects of a resource, or one.
#[derive(Debug, PartialEq, Eq)]
pub struct Target {
    /// The resource.
    pub resource: &'static Resource,
    /// The object's name, if one is meant.
    pub name: Option<String>,
}

/// Reads `pods`, `pods,cm`, `pod web1 web2` and `pod/web cm/config`.
pub fn parse_targets(arguments: &[String]) -> Result<Vec<Target>, Failure> {
    let Some((first, rest)) = arguments.split_first() else {
        return Err(Failure::new("no resource is named").hint(format!("name one of {}", all_names())));
    };
    if arguments.iter().any(|argument| argument.contains('/')) {
        return arguments.iter().map(|argument| parse_pair(argument)).collect();
    }
    let resources = parse_resources(first)?;
    if rest.is_empty() {
        return Ok(resources.into_iter().map(|resource| Target { resource, name: None }).collect());
    }
    let of_one = |resource| rest.iter().map(move |name| Target { resource, name: Some(name.clone()) });
    Ok(resources.into_iter().flat_map(of_one).collect())
}

/// Reads the Pod that a command acts on: `web`, `pod/web` or `pods/web`.
pub fn parse_pod(argument: &str) -> Result<String, Failure> {
    match argument.split_once('/') {
        None => Ok(argument.to_owned()),
        Some((kind, name)) if Resource::by_name(kind)?.kind == "Pod" => Ok(name.to_owned()),
        Some((kind, _)) => Err(Failure::new(format!("a Pod is needed here, not a {kind}"))),
    }
}

/// Encodes one path segment or query value (RFC 3986: all but unreserved characters).
pub fn encoded(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut output, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => output.push(char::from(byte)),
            _ => {
                let _infallible = write!(output, "%{byte:02X}");
            }
        }
        output
    })
}

/// Appends query parameters to a path.
pub fn with_query(path: &str, parameters: &[(&str, &str)]) -> String {
    let mut output = path.to_owned();
    for (index, (key, value)) in parameters.iter().enumerate() {
        let mark = if index == 0 { '?' } else { '&' };
        let _infallible = write!(output, "{mark}{key}={}", encoded(value));
    }
    output
}

fn parse_pair(argument: &str) -> Result<Target, Failure> {
    match argument.split_once('/') {
        Some((kind, name)) if !name.is_empty() && !name.contains('/') => {
            Ok(Target { resource: Resource::by_name(kind)?, name: Some(name.to_owned()) })
        }
        _ => Err(Failure::new(format!("{argument:?} is not of the form KIND/NAME"))
            .hint("either name the kind once (`pod web db`) or before each name (`pod/web cm/config`)")),
    }
}

fn parse_resources(names: &str) -> Result<Vec<&'static Resource>, Failure> {
    let mut resources = Vec::new();
    for name in names.split(',').filter(|name| !name.is_empty()) {
        // What `kubectl get all` means by "all" is the kinds that run something.
        let resource = if name == "all" { PODS } else { Resource::by_name(name)? };
        if !resources.contains(&resource) {
            resources.push(resource);
        }
    }
    Ok(resources)
}

fn all_names() -> String {
    let with_short = |resource: &Resource| match resource.short.first() {
        Some(short) => format!("{} ({short})", resource.plural),
        None => resource.plural.to_owned(),
    };
    RESOURCES.iter().map(with_short).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(arguments: &[&str]) -> String {
        let arguments: Vec<_> = arguments.iter().map(ToString::to_string).collect();
        match parse_targets(&arguments) {
            Ok(targets) => {
                let one = |target: &Target| match &target.name {
                    Some(name) => format!("{}/{name}", target.resource.plural),
                    None => target.resource.plural.to_owned(),
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
            (&["all"], "pods"),
            (&["pod", "a", "b"], "pods/a pods/b"),
            (&["pod,ns", "a"], "pods/a namespaces/a"),
            (&["pod/a", "cm/b"], "pods/a configmaps/b"),
            (&["pod/a", "b"], "error: \"b\" is not of the form KIND/NAME"),
            (&["pod/"], "error: \"pod/\" is not of the form KIND/NAME"),
            (&["deploy"], "error: the server doesn't have a resource type \"deploy\""),
            (&[], "error: no resource is named"),
        ] {
            assert_eq!(shown(arguments), targets, "{arguments:?}");
        }
    }

    #[test]
    fn paths_hold_names_of_any_kind() {
        assert_eq!(PODS.object("default", "web"), "/api/v1/namespaces/default/pods/web");
        assert_eq!(PODS.object("a/../b", "x?y"), "/api/v1/namespaces/a%2F..%2Fb/pods/x%3Fy");
        assert_eq!(PODS.collection(None), "/api/v1/pods");
        let node = Resource::by_name("no").unwrap();
        assert_eq!(node.object("default", "n1"), "/api/v1/nodes/n1");
        assert_eq!(with_query("/p", &[("a", "x=y,z"), ("b", "1")]), "/p?a=x%3Dy%2Cz&b=1");
        assert_eq!(parse_pod("po/web").unwrap(), "web");
        assert!(parse_pod("cm/web").is_err());
    }
}
