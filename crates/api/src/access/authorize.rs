//! Whether somebody may do what they ask for.

use http::{Method, Request, StatusCode};

use crate::access::authenticate::unauthorized;
use crate::access::rbac::may;
use crate::access::rules::Action;
use crate::access::{Identity, MASTERS};
use crate::http::query::Query;
use crate::http::status::ApiError;
use crate::kinds::Kind;
use crate::metrics;
use crate::route::{Route, Target};
use store::Store;

/// Open to everybody, as upstream's role `system:public-info-viewer` has it.
const PUBLIC: [&str; 4] = ["/healthz", "/livez", "/readyz", "/version"];

const RBAC: &str = "rbac.authorization.k8s.io";

/// Refuses what `identity` may not do: 401 for somebody unknown, 403 for somebody known.
pub fn authorize<B>(store: &Store, identity: &Identity, route: &Route, request: &Request<B>) -> Result<(), ApiError> {
    let path = request.uri().path();
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if identity.is_in(MASTERS) || (reads && PUBLIC.contains(&path.trim_end_matches('/'))) {
        return Ok(());
    }
    let action = action_of(route, request);
    if identity.is_anonymous() {
        return Err(unauthorized());
    }
    if (reads && describes_the_api(route)) || (*request.method() == Method::POST && is_self_review(route)) {
        return Ok(());
    }
    if !may(store, identity, &action) {
        return Err(forbidden(identity, &action, ""));
    }
    match needed_besides(&action) {
        Some(besides) if !may(store, identity, &besides) => Err(forbidden(identity, &besides, "")),
        _ => Ok(()),
    }
}

/// Groups and versions, not objects: upstream's role `system:discovery`.
fn describes_the_api(route: &Route) -> bool {
    matches!(
        route,
        Route::CoreVersions
            | Route::Groups
            | Route::Group(_)
            | Route::Resources { .. }
            | Route::OpenApi
            | Route::OpenApiOf(_)
    )
}

/// Everybody may ask what they themselves may: upstream's role `system:basic-user`.
fn is_self_review(route: &Route) -> bool {
    matches!(route, Route::Review(review) if review.is_of_self())
}

/// Who writes roles gives rights, so `escalate` and `bind` are needed for it. Upstream also lets those give a right who
/// have it themselves.
fn needed_besides(action: &Action) -> Option<Action> {
    let Action::Resource { verb, group, resource, name, pod_namespace } = action else { return None };
    if group != RBAC || !matches!(verb.as_str(), "create" | "update" | "patch") {
        return None;
    }
    let (verb, resource) = match resource.as_str() {
        "roles" | "clusterroles" => ("escalate", resource.clone()),
        _ => ("bind", "clusterroles".to_owned()),
    };
    let (name, pod_namespace) = (name.clone(), pod_namespace.clone());
    Some(Action::Resource { verb: verb.to_owned(), group: group.clone(), resource, name, pod_namespace })
}

fn action_of<B>(route: &Route, request: &Request<B>) -> Action {
    let method = request.method();
    match route {
        Route::Objects { kind, pod_namespace, target } => {
            let query = Query::parse(request.uri().query());
            let (verb, resource, name) = verb_of(kind, target, method, query.flag("watch"));
            let group = kind.group.to_owned();
            // A namespace is in itself, so that its own administrators may look at it.
            let of_itself = (kind.resource == "namespaces" && !name.is_empty()).then(|| name.clone());
            let pod_namespace = pod_namespace.clone().or(of_itself).unwrap_or_default();
            Action::Resource { verb, group, resource, name, pod_namespace }
        }
        Route::Review(review) => Action::Resource {
            verb: "create".to_owned(),
            group: review.group().to_owned(),
            resource: review.resource().to_owned(),
            name: String::new(),
            pod_namespace: String::new(),
        },
        Route::Metrics(door) => {
            let (resource, pod_namespace, name) = door.parts();
            let verb = if name.is_empty() { "list" } else { "get" };
            Action::Resource {
                verb: verb.to_owned(),
                group: metrics::GROUP.to_owned(),
                resource: resource.to_owned(),
                name: name.to_owned(),
                pod_namespace: pod_namespace.to_owned(),
            }
        }
        _ => Action::Path { verb: method.as_str().to_lowercase(), path: request.uri().path().to_owned() },
    }
}

fn verb_of(kind: &Kind, target: &Target, method: &Method, watch: bool) -> (String, String, String) {
    let (resource, name, collection) = match target {
        Target::Collection => (kind.resource.to_owned(), String::new(), true),
        Target::Object(name) => (kind.resource.to_owned(), name.clone(), false),
        Target::Subresource(name, part) => (format!("{}/{part}", kind.resource), name.clone(), false),
    };
    // Whoever enters a Pod makes something happen there, however the connection is asked for.
    let enters = matches!(resource.as_str(), "pods/exec" | "pods/attach" | "pods/portforward");
    let verb = match (method.as_str(), collection) {
        _ if enters => "create",
        ("GET" | "HEAD", true) if watch => "watch",
        ("GET" | "HEAD", true) => "list",
        ("GET" | "HEAD", false) => "get",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", true) => "deletecollection",
        ("DELETE", false) => "delete",
        _ => "",
    };
    (verb.to_owned(), resource, name)
}

/// 403, in the words of the API server.
pub(super) fn forbidden(identity: &Identity, action: &Action, why: &str) -> ApiError {
    let user = &identity.name;
    let mut message = match action {
        Action::Path { verb, path } => format!("forbidden: User {user:?} cannot {verb} path {path:?}"),
        Action::Resource { verb, group, resource, name, pod_namespace } => {
            let kind = resource.split('/').next().unwrap_or_default();
            let subject = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
            let subject = if name.is_empty() { subject } else { format!("{subject} {name:?}") };
            let place = match pod_namespace.as_str() {
                "" => "at the cluster scope".to_owned(),
                name => format!("in the namespace {name:?}"),
            };
            format!(
                "{subject} is forbidden: User {user:?} cannot {verb} resource {resource:?} in API group {group:?} {place}"
            )
        }
    };
    if !why.is_empty() {
        message.push_str(": ");
        message.push_str(why);
    }
    ApiError::plain(StatusCode::FORBIDDEN, "Forbidden", message)
}
