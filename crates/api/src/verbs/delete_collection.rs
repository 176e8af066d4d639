//! deletecollection: all objects that a selector chooses.

use http::StatusCode;

use crate::context::{Call, Context};
use crate::http::reply::{Reply, whole};
use crate::http::status::ApiError;
use crate::render::Rest;
use crate::selector::Filter;
use crate::verbs::delete::{DeleteOptions, delete_one};
use crate::verbs::list::select;

/// Deletes them one by one and answers with their list.
pub async fn delete_collection(call: &Call, options: &DeleteOptions) -> Result<Reply, ApiError> {
    let renderer = call.renderer()?;
    let filter = Filter::parse(call.kind, call.pod_namespace.as_deref(), &call.query)?;
    let mut list = select(call, &filter);
    let mut removed = Vec::with_capacity(list.objects.len());
    for present in &list.objects {
        match delete_one(call, &present.key.name, options).await {
            Ok(object) => removed.push(object),
            // Another client was faster.
            Err(gone) if gone.code == StatusCode::NOT_FOUND => {}
            Err(error) => return Err(error),
        }
    }
    list.objects = removed;
    Ok(whole(StatusCode::OK, renderer.content_type(), renderer.list(&list, &Rest::default(), Context::now())))
}
