//! One kind of object: its names, and where the API keeps it.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::catalog::Catalog;

/// One kind of object and where the API keeps it.
#[derive(Debug, PartialEq, Eq)]
pub struct Resource {
    /// The plural, as paths have it.
    pub plural: Cow<'static, str>,
    /// The singular.
    pub singular: Cow<'static, str>,
    /// The abbreviations that kubectl knows.
    pub short: Cow<'static, [Cow<'static, str>]>,
    /// What it belongs to, as in `get all`.
    pub categories: Cow<'static, [Cow<'static, str>]>,
    /// `kind` in a manifest.
    pub kind: Cow<'static, str>,
    /// `apiVersion` in a manifest.
    pub api_version: Cow<'static, str>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
}

/// The kinds that are asked for most: of these no question to the daemon is needed. All are of the core group.
pub static RESOURCES: [Resource; 6] = [
    resource("pods", "pod", &[Cow::Borrowed("po")], "Pod", true),
    resource("configmaps", "configmap", &[Cow::Borrowed("cm")], "ConfigMap", true),
    resource("secrets", "secret", &[], "Secret", true),
    resource("namespaces", "namespace", &[Cow::Borrowed("ns")], "Namespace", false),
    resource("nodes", "node", &[Cow::Borrowed("no")], "Node", false),
    resource("events", "event", &[Cow::Borrowed("ev")], "Event", true),
];

/// Pods.
pub static PODS: &Resource = &resource("pods", "pod", &[Cow::Borrowed("po")], "Pod", true);
/// Events.
pub static EVENTS: &Resource = &resource("events", "event", &[Cow::Borrowed("ev")], "Event", true);

const fn resource(
    plural: &'static str,
    singular: &'static str,
    short: &'static [Cow<'static, str>],
    kind: &'static str,
    namespaced: bool,
) -> Resource {
    Resource {
        plural: Cow::Borrowed(plural),
        singular: Cow::Borrowed(singular),
        short: Cow::Borrowed(short),
        categories: Cow::Borrowed(&[]),
        kind: Cow::Borrowed(kind),
        api_version: Cow::Borrowed("v1"),
        namespaced,
    }
}

impl Resource {
    /// The path of the collection: of one namespace, or of all.
    pub fn collection(&self, namespace: Option<&str>) -> String {
        let root = if self.group().is_empty() { "api" } else { "apis" };
        match namespace.filter(|_| self.namespaced) {
            Some(namespace) => {
                format!("/{root}/{}/namespaces/{}/{}", self.api_version, encoded(namespace), self.plural)
            }
            None => format!("/{root}/{}/{}", self.api_version, self.plural),
        }
    }

    /// The path of one object.
    pub fn object(&self, namespace: &str, name: &str) -> String {
        format!("{}/{}", self.collection(Some(namespace)), encoded(name))
    }

    /// The API group; empty for the core group.
    pub fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }

    /// The API version without its group.
    pub fn version(&self) -> &str {
        self.api_version.split_once('/').map_or(&self.api_version, |(_, version)| version)
    }

    /// The singular with its group, as kubectl puts it before names: `pod`, `role.rbac.authorization.k8s.io`.
    pub fn named(&self) -> Cow<'_, str> {
        match self.group() {
            "" => Cow::Borrowed(&self.singular),
            group => Cow::Owned(format!("{}.{group}", self.singular)),
        }
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

/// The Pod that an argument names as one: `web`, `pod/web` or `pods/web`. Nothing for other kinds.
pub fn named_pod(argument: &str) -> Option<String> {
    let Some((kind, name)) = argument.split_once('/') else { return Some(argument.to_owned()) };
    let is_pod = Catalog::built_in().by_name(kind).is_ok_and(|resource| resource.kind == "Pod");
    is_pod.then(|| name.to_owned())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_hold_names_of_any_kind() {
        assert_eq!(PODS.object("default", "web"), "/api/v1/namespaces/default/pods/web");
        assert_eq!(PODS.object("a/../b", "x?y"), "/api/v1/namespaces/a%2F..%2Fb/pods/x%3Fy");
        assert_eq!(PODS.collection(None), "/api/v1/pods");
        let node = Catalog::built_in().by_name("no").unwrap();
        assert_eq!(node.object("default", "n1"), "/api/v1/nodes/n1");
        assert_eq!(with_query("/p", &[("a", "x=y,z"), ("b", "1")]), "/p?a=x%3Dy%2Cz&b=1");
        assert_eq!(named_pod("po/web").unwrap(), "web");
        assert_eq!(named_pod("cm/web"), None);
    }
}
