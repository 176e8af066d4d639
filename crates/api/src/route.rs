//! What a path means.

use percent_encoding::percent_decode_str;

use crate::access::reviews::Review;
use crate::kinds::Kind;
use crate::metrics::{self, MetricsDoor};

/// A place in the API.
#[derive(Debug)]
pub enum Route {
    /// `/version`
    Version,
    /// `/`: what there is.
    Paths,
    /// `/healthz`, `/livez`, `/readyz`, and one of the checks that these make
    Health(&'static str, Option<String>),
    /// `/api`
    CoreVersions,
    /// `/apis`
    Groups,
    /// `/apis/<group>`
    Group(String),
    /// `/api/v1`, `/apis/<group>/<version>`
    Resources {
        /// Empty for the core group.
        group: String,
        /// Such as `v1`.
        version: String,
    },
    /// `/openapi/v3`
    OpenApi,
    /// `/openapi/v3/api/v1`, `/openapi/v3/apis/<group>/<version>`
    OpenApiOf(String),
    /// Objects of a kind.
    Objects {
        /// The kind.
        kind: &'static Kind,
        /// The namespace in the path.
        pod_namespace: Option<String>,
        /// Which of them.
        target: Target,
    },
    /// A question about rights or users, such as `/apis/authorization.k8s.io/v1/selfsubjectaccessreviews`.
    Review(Review),
    /// What Pods and the node use, below `/apis/metrics.k8s.io/v1beta1`.
    Metrics(MetricsDoor),
    /// `/metrics`
    MetricsPage,
    /// `/metrics/resource`
    ResourceMetricsPage,
    /// `/monopod/v1/images` and what is below it.
    Images(ImageDoor),
    /// `/monopod/v1/shutdown`
    Shutdown,
    /// `/monopod/v1/backup`
    Backup,
    /// `/monopod/v1/namespaces/<namespace>/pods/<name>/timeline`
    Timeline {
        /// The Pod's namespace.
        pod_namespace: String,
        /// The Pod.
        name: String,
    },
    /// `/monopod/v1/namespaces/<namespace>/pods/<name>/steps`
    Steps {
        /// The Pod's namespace.
        pod_namespace: String,
        /// The Pod.
        name: String,
    },
    /// A path of a known API, but nothing is there.
    NoSuchResource,
    /// Nothing at all.
    Unknown,
}

/// Which objects a path names.
#[derive(Debug, PartialEq, Eq)]
pub enum Target {
    /// All of the kind.
    Collection,
    /// One.
    Object(String),
    /// A part of one, or a door into it.
    Subresource(String, String),
}

/// Doors for images, beside Kubernetes' paths.
#[derive(Debug, PartialEq, Eq)]
pub enum ImageDoor {
    /// List, and remove one.
    Images,
    /// Take an archive.
    Load,
    /// Take a root file system.
    Import,
    /// Fetch one from its registry.
    Pull,
    /// Remove what nobody needs.
    Prune,
    /// Give some as an archive.
    Save,
}

impl Route {
    /// Reads a path. A slash at its end means nothing.
    pub fn parse(path: &str) -> Self {
        let segments: Option<Vec<String>> = path
            .split('/')
            .filter(|segment| !segment.is_empty())
            .map(|segment| percent_decode_str(segment).decode_utf8().ok().map(std::borrow::Cow::into_owned))
            .collect();
        let Some(segments) = segments else { return Self::Unknown };
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        match segments.as_slice() {
            ["version"] => Self::Version,
            [] => Self::Paths,
            [door] | [door, _] if health_door(door).is_some() => {
                Self::Health(health_door(door).unwrap_or_default(), segments.get(1).map(ToString::to_string))
            }
            ["api"] => Self::CoreVersions,
            ["apis"] => Self::Groups,
            ["apis", group] => Self::Group((*group).to_owned()),
            ["api", version] => Self::Resources { group: String::new(), version: (*version).to_owned() },
            ["apis", group, version] => Self::Resources { group: (*group).to_owned(), version: (*version).to_owned() },
            ["metrics"] => Self::MetricsPage,
            ["metrics", "resource"] => Self::ResourceMetricsPage,
            ["apis", metrics::GROUP, metrics::VERSION, rest @ ..] => {
                MetricsDoor::find(rest).map_or(Self::NoSuchResource, Self::Metrics)
            }
            ["api", version, rest @ ..] => objects("", version, rest),
            ["apis", group, version, rest @ ..] => objects(group, version, rest),
            ["openapi", "v3"] => Self::OpenApi,
            ["openapi", "v3", rest @ ..] => Self::OpenApiOf(rest.join("/")),
            ["monopod", "v1", "images"] => Self::Images(ImageDoor::Images),
            ["monopod", "v1", "images", "load"] => Self::Images(ImageDoor::Load),
            ["monopod", "v1", "images", "import"] => Self::Images(ImageDoor::Import),
            ["monopod", "v1", "images", "pull"] => Self::Images(ImageDoor::Pull),
            ["monopod", "v1", "images", "save"] => Self::Images(ImageDoor::Save),
            ["monopod", "v1", "images", "prune"] => Self::Images(ImageDoor::Prune),
            ["monopod", "v1", "shutdown"] => Self::Shutdown,
            ["monopod", "v1", "backup"] => Self::Backup,
            ["monopod", "v1", "namespaces", pod_namespace, "pods", name, "timeline"] => {
                Self::Timeline { pod_namespace: (*pod_namespace).to_owned(), name: (*name).to_owned() }
            }
            ["monopod", "v1", "namespaces", pod_namespace, "pods", name, "steps"] => {
                Self::Steps { pod_namespace: (*pod_namespace).to_owned(), name: (*name).to_owned() }
            }
            _ => Self::Unknown,
        }
    }
}

fn health_door(name: &str) -> Option<&'static str> {
    ["healthz", "livez", "readyz"].into_iter().find(|door| *door == name)
}

fn objects(group: &str, version: &str, rest: &[&str]) -> Route {
    if let [resource] = rest
        && let Some(review) = Review::find(group, version, resource)
    {
        return Route::Review(review);
    }
    let (pod_namespace, resource, target) = match rest {
        // Parts of a namespace have the shape of collections in it.
        ["namespaces", name, part @ ("status" | "finalize")] => (None, "namespaces", subresource(name, part)),
        ["namespaces", pod_namespace, resource, rest @ ..] => {
            let target = match rest {
                [] => Target::Collection,
                [name] => Target::Object((*name).to_owned()),
                [name, part] => subresource(name, part),
                [name, "proxy", ..] => subresource(name, "proxy"),
                _ => return Route::NoSuchResource,
            };
            (Some((*pod_namespace).to_owned()), *resource, target)
        }
        [resource] => (None, *resource, Target::Collection),
        [resource, name] => (None, *resource, Target::Object((*name).to_owned())),
        [resource, name, part] => (None, *resource, subresource(name, part)),
        [resource, name, "proxy", ..] => (None, *resource, subresource(name, "proxy")),
        _ => return Route::NoSuchResource,
    };
    match Kind::find(group, version, resource) {
        // One object of a namespaced kind needs its namespace; an object without one is in none.
        Some(kind)
            if kind.namespaced == pod_namespace.is_some() || (kind.namespaced && target == Target::Collection) =>
        {
            Route::Objects { kind, pod_namespace, target }
        }
        _ => Route::NoSuchResource,
    }
}

fn subresource(name: &str, part: &str) -> Target {
    Target::Subresource(name.to_owned(), part.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_mean_places() {
        let table = [
            ("/version", "Version"),
            ("/version/", "Version"),
            ("/healthz", "Health(\"healthz\", None)"),
            ("/readyz/ping", "Health(\"readyz\", Some(\"ping\"))"),
            ("/api/v1/nodes/n/proxy/stats/summary", "nodes None Subresource(\"n\", \"proxy\")"),
            ("/api", "CoreVersions"),
            ("/api/v1", "Resources { group: \"\", version: \"v1\" }"),
            ("/apis/apps", "Group(\"apps\")"),
            ("/api/v1/pods", "pods None Collection"),
            ("/api/v1/namespaces/default/pods", "pods Some(\"default\") Collection"),
            ("/api/v1/namespaces/default/pods/a%2Db", "pods Some(\"default\") Object(\"a-b\")"),
            ("/api/v1/namespaces/d/pods/a/log", "pods Some(\"d\") Subresource(\"a\", \"log\")"),
            ("/api/v1/namespaces", "namespaces None Collection"),
            ("/api/v1/namespaces/x", "namespaces None Object(\"x\")"),
            ("/api/v1/namespaces/x/status", "namespaces None Subresource(\"x\", \"status\")"),
            ("/api/v1/nodes/n", "nodes None Object(\"n\")"),
            ("/api/v1/namespaces/x/nodes", "NoSuchResource"),
            ("/api/v1/pods/a", "NoSuchResource"),
            ("/api/v1/things", "NoSuchResource"),
            ("/apis/apps/v1/deployments", "deployments None Collection"),
            ("/apis/apps/v1/daemonsets", "NoSuchResource"),
            ("/monopod/v1/images/load", "Images(Load)"),
            ("/monopod/v1/images/save", "Images(Save)"),
            ("/monopod/v1/shutdown", "Shutdown"),
            ("/openapi/v3", "OpenApi"),
            ("/openapi/v3/apis/apps/v1", "OpenApiOf(\"apis/apps/v1\")"),
            ("/openapi/v2", "Unknown"),
            ("/apis/authorization.k8s.io/v1/subjectaccessreviews", "Review(SubjectAccess)"),
            ("/apis/authorization.k8s.io/v1/subjectaccessreviews/x", "NoSuchResource"),
            ("/", "Paths"),
            ("/healthz/a/b", "Unknown"),
            ("/%ff", "Unknown"),
        ];
        for (path, want) in table {
            let found = match Route::parse(path) {
                Route::Objects { kind, pod_namespace, target } => {
                    format!("{} {pod_namespace:?} {target:?}", kind.resource)
                }
                other => format!("{other:?}"),
            };
            assert_eq!(found, want, "{path}");
        }
    }
}
