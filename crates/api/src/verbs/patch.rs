//! patch: a change instead of a whole object.

use bytes::Bytes;
use json_patch::{Patch, PatchErrorKind};
use serde_json::Value;
use spec::validation::FieldReason;

use crate::context::Call;
use crate::http::body::{self, media_type};
use crate::http::reply::Reply;
use crate::http::status::ApiError;
use crate::patch::strategic;
use crate::schema::TypeName;
use crate::verbs::apply::apply;
use crate::verbs::options::patch_option;
use crate::verbs::update::{Next, Part, revise};

/// What a patch may be written in.
const TYPES: &str = "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml";

/// As upstream: more operations would keep the server busy for nothing.
const MAX_OPERATIONS: usize = 10_000;

/// A patch, decoded.
pub enum Change {
    /// RFC 6902.
    Operations(Patch),
    /// RFC 7386.
    Merge(Value),
    /// Kubernetes' own, which knows the keys of lists.
    Strategic(Value),
}

/// Applies the patch to the present object and stores the outcome.
pub async fn patch(call: &Call, name: &str, part: Part, bytes: &Bytes) -> Result<Reply, ApiError> {
    if media_type(&call.headers) == "application/apply-patch+yaml" {
        return apply(call, name, part, bytes).await;
    }
    if call.query.get("force").is_some() {
        return Err(patch_option("force", FieldReason::Forbidden, "may not be specified for non-apply patch"));
    }
    let change = Change::decode(call, bytes)?;
    revise(call, name, part, |present| change.apply(call.kind.type_name(), present).map(Next::changed)).await
}

impl Change {
    /// Reads it.
    pub fn decode(call: &Call, bytes: &Bytes) -> Result<Self, ApiError> {
        let value = match media_type(&call.headers).as_str() {
            "application/json-patch+json" => return decode_operations(bytes).map(Self::Operations),
            kind @ ("application/merge-patch+json" | "application/strategic-merge-patch+json") => {
                let value = call.note_twice(body::json(bytes)?);
                if kind.contains("strategic") { Self::Strategic(value) } else { Self::Merge(value) }
            }
            _ => return Err(ApiError::unsupported_media_type(TYPES)),
        };
        match &value {
            Self::Merge(patch) | Self::Strategic(patch) if !patch.is_object() => {
                Err(ApiError::bad_request("the patch is not a JSON object"))
            }
            _ => Ok(value),
        }
    }

    /// An object of a type after it.
    pub fn apply(&self, of: TypeName, present: &Value) -> Result<Value, ApiError> {
        let mut next = present.clone();
        match self {
            Self::Operations(patch) => json_patch::patch(&mut next, patch).map_err(|error| match error.kind {
                PatchErrorKind::TestFailed => {
                    ApiError::unprocessable(format!("the test of operation {} failed", error.operation))
                }
                _ => ApiError::unprocessable(format!("the JSON patch cannot be applied: {error}")),
            })?,
            Self::Merge(patch) => json_patch::merge(&mut next, patch),
            Self::Strategic(patch) => strategic::merge(of, &mut next, patch)
                .map_err(|error| ApiError::bad_request(format!("the patch cannot be applied: {error}")))?,
        }
        Ok(next)
    }
}

fn decode_operations(bytes: &Bytes) -> Result<Patch, ApiError> {
    let patch: Patch = serde_json::from_slice(bytes)
        .map_err(|error| ApiError::bad_request(format!("error decoding JSON patch: {error}")))?;
    if patch.0.len() > MAX_OPERATIONS {
        return Err(ApiError::bad_request(format!("a JSON patch has at most {MAX_OPERATIONS} operations")));
    }
    Ok(patch)
}
