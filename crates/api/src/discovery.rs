//! Discovery: which kinds there are, in the aggregated form and in the older one, both from the same table.

use http::HeaderMap;
use http::header::ACCEPT;
use http::{StatusCode, header::CONTENT_TYPE};
use serde_json::{Value, json};

use crate::access::reviews::Review;
use crate::http::reply::{Reply, json as json_reply, whole};
use crate::http::status::ApiError;
use crate::kinds::{KINDS, Kind, Subresource};
use crate::metrics;
use crate::render::encode;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// `/api`: the versions of the core group.
pub fn core_versions(headers: &HeaderMap) -> Reply {
    if wants_aggregated(headers) {
        return aggregated(str::is_empty);
    }
    json_reply(encode(&json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})))
}

/// `/apis`: all named groups.
pub fn groups(headers: &HeaderMap) -> Reply {
    if wants_aggregated(headers) {
        return aggregated(|group| !group.is_empty());
    }
    let groups: Vec<Value> =
        group_versions().into_iter().filter(|(group, _)| !group.is_empty()).map(group_of).collect();
    json_reply(encode(&json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})))
}

/// `/apis/<group>`: one named group.
pub fn group(name: &str) -> Result<Reply, ApiError> {
    let found = group_versions().into_iter().find(|(group, _)| !group.is_empty() && *group == name);
    let mut group = group_of(found.ok_or_else(ApiError::no_such_resource)?);
    if let Some(group) = group.as_object_mut() {
        group.extend([("kind".to_owned(), json!("APIGroup")), ("apiVersion".to_owned(), json!("v1"))]);
    }
    Ok(json_reply(encode(&group)))
}

/// `/api/v1`, `/apis/<group>/<version>`: the resources of one version.
pub fn resources(group: &str, version: &str) -> Result<Reply, ApiError> {
    let kinds: Vec<&Kind> = KINDS.into_iter().filter(|kind| (kind.group, kind.version) == (group, version)).collect();
    let reviews: Vec<Review> = reviews_of(group, version).collect();
    let measured = metrics_of(group, version);
    if kinds.is_empty() && reviews.is_empty() && measured.is_empty() {
        return Err(ApiError::no_such_resource());
    }
    let resources: Vec<Value> = kinds
        .iter()
        .flat_map(|kind| {
            let below = kind.subresources.iter().map(|part| {
                let mut door = json!({
                    "name": format!("{}/{}", kind.resource, part.name), "singularName": "",
                    "namespaced": kind.namespaced, "kind": part.kind, "verbs": part.verbs,
                });
                if let (Some((group, version)), Some(door)) = (part.group_version(), door.as_object_mut()) {
                    door.extend([("group".to_owned(), json!(group)), ("version".to_owned(), json!(version))]);
                }
                door
            });
            std::iter::once(resource(kind)).chain(below)
        })
        .chain(reviews.into_iter().map(review_resource))
        .chain(measured.iter().map(metrics_resource))
        .collect();
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let list =
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources});
    Ok(json_reply(encode(&list)))
}

/// All paths that lead somewhere, for a person who looks around.
pub fn paths() -> Reply {
    let mut paths: Vec<String> = [
        "/api",
        "/api/v1",
        "/apis",
        "/healthz",
        "/livez",
        "/metrics",
        "/metrics/resource",
        "/openapi/v3",
        "/readyz",
        "/version",
    ]
    .map(str::to_owned)
    .to_vec();
    for check in ["ping", "store"] {
        paths.extend(["healthz", "livez", "readyz"].map(|door| format!("/{door}/{check}")));
    }
    for (group, versions) in group_versions().into_iter().filter(|(group, _)| !group.is_empty()) {
        paths.push(format!("/apis/{group}"));
        paths.extend(versions.into_iter().map(|version| format!("/apis/{group}/{version}")));
    }
    paths.sort();
    json_reply(encode(&json!({ "paths": paths })))
}

fn resource(kind: &Kind) -> Value {
    let mut resource = json!({
        "name": kind.resource, "singularName": kind.singular, "namespaced": kind.namespaced, "kind": kind.kind,
        "verbs": VERBS,
    });
    for (field, names) in [("shortNames", kind.short_names), ("categories", kind.categories)] {
        if let Some(resource) = resource.as_object_mut().filter(|_| !names.is_empty()) {
            resource.insert(field.to_owned(), json!(names));
        }
    }
    resource
}

fn aggregated(wanted: impl Fn(&str) -> bool) -> Reply {
    let items: Vec<Value> = group_versions()
        .into_iter()
        .filter(|(group, _)| wanted(group))
        .map(|(group, versions)| {
            let metadata = if group.is_empty() { json!({}) } else { json!({"name": group}) };
            let versions: Vec<Value> = versions
                .into_iter()
                .map(|version| {
                    let kinds = KINDS.into_iter().filter(|kind| (kind.group, kind.version) == (group, version));
                    let reviews = reviews_of(group, version).map(aggregated_review);
                    let measured = metrics_of(group, version).iter().map(aggregated_metrics);
                    let resources: Vec<Value> = kinds.map(aggregated_resource).chain(reviews).chain(measured).collect();
                    json!({"version": version, "freshness": "Current", "resources": resources})
                })
                .collect();
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    let list = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items,
    });
    let mut reply = whole(StatusCode::OK, AGGREGATED, encode(&list));
    reply.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(AGGREGATED));
    reply
}

fn aggregated_resource(kind: &'static Kind) -> Value {
    let own = (kind.group, kind.version);
    let response_kind =
        |(group, version): (&str, &str), name: &str| json!({"group": group, "version": version, "kind": name});
    let below = |part: &Subresource| {
        let response_kind = response_kind(part.group_version().unwrap_or(own), part.kind);
        json!({"subresource": part.name, "responseKind": response_kind, "verbs": part.verbs})
    };
    json!({
        "resource": kind.resource,
        "responseKind": response_kind(own, kind.kind),
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": VERBS,
        "shortNames": kind.short_names,
        "categories": kind.categories,
        "subresources": kind.subresources.iter().map(below).collect::<Vec<_>>(),
    })
}

fn reviews_of(group: &str, version: &str) -> impl Iterator<Item = Review> {
    Review::ALL.into_iter().filter(move |review| (review.group(), "v1") == (group, version))
}

fn review_resource(review: Review) -> Value {
    let singular = review.kind().to_lowercase();
    json!({
        "name": review.resource(), "singularName": singular, "namespaced": false, "kind": review.kind(),
        "verbs": ["create"],
    })
}

fn aggregated_review(review: Review) -> Value {
    json!({
        "resource": review.resource(),
        "responseKind": {"group": review.group(), "version": "v1", "kind": review.kind()},
        "scope": "Cluster",
        "singularResource": review.kind().to_lowercase(),
        "verbs": ["create"],
    })
}

fn metrics_of(group: &str, version: &str) -> &'static [(&'static str, &'static str, bool)] {
    if (group, version) == (metrics::GROUP, metrics::VERSION) { &metrics::RESOURCES } else { &[] }
}

fn metrics_resource((name, kind, namespaced): &(&str, &str, bool)) -> Value {
    json!({
        "name": name, "singularName": name.trim_end_matches('s'), "namespaced": namespaced, "kind": kind,
        "verbs": ["get", "list"],
    })
}

fn aggregated_metrics((name, kind, namespaced): &(&str, &str, bool)) -> Value {
    json!({
        "resource": name,
        "responseKind": {"group": metrics::GROUP, "version": metrics::VERSION, "kind": kind},
        "scope": if *namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": name.trim_end_matches('s'),
        "verbs": ["get", "list"],
    })
}

/// Groups and their versions, in the order of the table of kinds.
fn group_versions() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut groups: Vec<(&'static str, Vec<&'static str>)> = Vec::new();
    for kind in KINDS {
        match groups.iter_mut().find(|(group, _)| *group == kind.group) {
            Some((_, versions)) if versions.contains(&kind.version) => {}
            Some((_, versions)) => versions.push(kind.version),
            None => groups.push((kind.group, vec![kind.version])),
        }
    }
    for review in Review::ALL {
        if !groups.iter().any(|(group, _)| *group == review.group()) {
            groups.push((review.group(), vec!["v1"]));
        }
    }
    groups.push((metrics::GROUP, vec![metrics::VERSION]));
    groups
}

fn group_of((group, versions): (&str, Vec<&str>)) -> Value {
    let versions: Vec<Value> = versions
        .into_iter()
        .map(|version| json!({"groupVersion": format!("{group}/{version}"), "version": version}))
        .collect();
    json!({"name": group, "preferredVersion": versions.first(), "versions": versions})
}

fn wants_aggregated(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|range| {
        let parts: Vec<&str> = range.split(';').map(str::trim).collect();
        ["g=apidiscovery.k8s.io", "v=v2", "as=APIGroupDiscoveryList"].iter().all(|part| parts.contains(part))
    })
}
