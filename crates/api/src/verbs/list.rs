//! list: the objects of a collection that a selector chooses, whole or page by page.

use http::StatusCode;
use spec::validation::FieldReason;
use store::{ObjectList, StoredObject};

use crate::context::{Call, Context};
use crate::http::reply::{Reply, whole};
use crate::http::status::ApiError;
use crate::render::Rest;
use crate::selector::Filter;
use crate::verbs::page::{Continue, Start};

/// Answers with all of them, or with as many as `limit` says and where the next page begins.
pub fn list(call: &Call) -> Result<Reply, ApiError> {
    let renderer = call.renderer()?;
    let filter = Filter::parse(call.kind, call.pod_namespace.as_deref(), &call.query)?;
    let limit: usize = call.query.number("limit")?.unwrap_or_default();
    let start = Start::parse(call, limit > 0)?;
    let mut list = read(call, &start)?;
    if let Some(after) = start.after() {
        list.objects.retain(|object| (object.key.namespace.as_deref(), object.key.name.as_str()) > after);
    }
    list.objects.retain(|object| filter.matches(object));
    let rest = cut(&mut list, limit, &filter);
    Ok(whole(StatusCode::OK, renderer.content_type(), renderer.list(&list, &rest, Context::now())))
}

fn read(call: &Call, start: &Start) -> Result<ObjectList, ApiError> {
    let (resource, pod_namespace) = (call.kind.resource, call.pod_namespace.as_deref());
    let (at, token) = match start {
        Start::Newest => return Ok(call.context.store.list(resource, pod_namespace)),
        Start::NotOlderThan(wanted) => {
            let list = call.context.store.list(resource, pod_namespace);
            if *wanted > list.revision {
                return Err(ApiError::too_large_resource_version(*wanted, list.revision));
            }
            return Ok(list);
        }
        Start::At(revision) => (*revision, None),
        // The client goes on with what it has been given in a 410: what has changed since may be missing or doubled.
        Start::Continue(Continue { revision: None, .. }) => {
            return Ok(call.context.store.list(resource, pod_namespace));
        }
        Start::Continue(token @ Continue { revision: Some(revision), .. }) => (*revision, Some(token)),
    };
    let current = call.context.store.revision();
    if at > current {
        return Err(ApiError::too_large_resource_version(at, current));
    }
    call.context.store.list_at(resource, pod_namespace, at).map_err(|expired| match token {
        None => ApiError::expired(at, expired.oldest),
        Some(token) => ApiError::continue_expired(token.inconsistent().encode()),
    })
}

/// Keeps the first `limit` objects and tells of the others.
fn cut(list: &mut ObjectList, limit: usize, filter: &Filter) -> Rest {
    if limit == 0 || list.objects.len() <= limit {
        return Rest::default();
    }
    let remaining = list.objects.len() - limit;
    list.objects.truncate(limit);
    let Some(StoredObject { key, .. }) = list.objects.last() else { return Rest::default() };
    let token = Continue {
        revision: Some(list.revision),
        pod_namespace: key.namespace.clone().unwrap_or_default(),
        name: key.name.clone(),
    };
    // As upstream: with a selector nobody knows how many of the others it would choose.
    Rest { token: Some(token.encode()), remaining: filter.is_open().then_some(remaining) }
}

/// The objects that `filter` chooses, at one revision.
pub fn select(call: &Call, filter: &Filter) -> ObjectList {
    let mut list = call.context.store.list(call.kind.resource, call.pod_namespace.as_deref());
    list.objects.retain(|object| filter.matches(object));
    list
}

/// The revision that the client asks for; `None` for "whatever is newest".
pub fn wanted_revision(call: &Call) -> Result<Option<u64>, ApiError> {
    let Some(text) = call.query.get("resourceVersion") else { return Ok(None) };
    let Ok(revision) = text.parse::<u64>() else {
        let why = "must be a whole number";
        return Err(ApiError::invalid_option("resourceVersion", FieldReason::Invalid, Some(text), why));
    };
    Ok((revision != 0).then_some(revision))
}
