//! list: the objects of a collection that a selector chooses.

use http::StatusCode;
use store::ObjectList;

use crate::context::{Call, Context};
use crate::http::reply::{Reply, whole};
use crate::http::status::ApiError;
use crate::selector::Filter;

/// Answers with all of them at once: `limit` is a wish, and an answer without `continue` is a whole one.
pub fn list(call: &Call) -> Result<Reply, ApiError> {
    let renderer = call.renderer()?;
    let filter = Filter::parse(call.kind, call.pod_namespace.as_deref(), &call.query)?;
    if call.query.get("continue").is_some() {
        return Err(ApiError::gone("the provided continue parameter is not known: start the list anew"));
    }
    let objects = select(call, &filter);
    check_revision(call, objects.revision)?;
    Ok(whole(StatusCode::OK, renderer.content_type(), renderer.list(&objects, Context::now())))
}

/// The objects that `filter` chooses, at one revision.
pub fn select(call: &Call, filter: &Filter) -> ObjectList {
    let mut list = call.context.store.list(call.kind.resource, call.pod_namespace.as_deref());
    list.objects.retain(|object| filter.matches(&object.value));
    list
}

/// The revision that the client asks for; `None` for "whatever is newest".
pub fn wanted_revision(call: &Call) -> Result<Option<u64>, ApiError> {
    let Some(text) = call.query.get("resourceVersion") else { return Ok(None) };
    let Ok(revision) = text.parse::<u64>() else {
        return Err(ApiError::bad_request(format!("resourceVersion: Invalid value: {text:?}: must be a whole number")));
    };
    Ok((revision != 0).then_some(revision))
}

fn check_revision(call: &Call, current: u64) -> Result<(), ApiError> {
    let exact = match call.query.get("resourceVersionMatch") {
        None | Some("NotOlderThan") => false,
        Some("Exact") => true,
        Some(other) => {
            let supported = r#"supported values: "Exact", "NotOlderThan""#;
            let message = format!("resourceVersionMatch: Unsupported value: {other:?}: {supported}");
            return Err(ApiError::unprocessable(message));
        }
    };
    match wanted_revision(call)? {
        Some(wanted) if wanted > current => Err(ApiError::too_large_resource_version(wanted, current)),
        // Past states are not kept.
        Some(wanted) if exact && wanted < current => Err(ApiError::expired(wanted, current)),
        _ => Ok(()),
    }
}
