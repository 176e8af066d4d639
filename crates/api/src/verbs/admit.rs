//! The one way from a client's object to one that may be stored.

use serde_json::Value;
use spec::decode::{duplicate_field, strict_decoding_faults, unknown_field};
use spec::k8s_openapi::api::core::v1::Pod;

use crate::context::{Call, Context};
use crate::http::status::ApiError;
use crate::kinds::{Admission, AdmissionError, Admitted, Submitted};
use crate::quotas;
use crate::verbs::metadata;
use crate::verbs::options::UnknownFields;
use crate::verbs::update::Part;

/// An object that may be stored.
pub struct Accepted {
    /// It.
    pub object: Value,
    /// What its client owns of it, where that is less.
    pub submitted: Option<Submitted>,
    /// A new Pod in its type.
    pub pod: Option<Box<Pod>>,
    /// What the client should know.
    pub warnings: Vec<String>,
}

/// Decodes, completes and judges `value`.
pub fn admit(
    call: &Call,
    value: Value,
    old: Option<&Value>,
    part: Part,
    unknown: UnknownFields,
) -> Result<Accepted, ApiError> {
    let name = metadata::text(&value, "name").to_owned();
    let Context { node_name, service_network, store, .. } = &*call.context;
    let admission = Admission { old, part, node_name, service_network: *service_network, store };
    let mut admitted = (call.kind.admit)(value, &admission).map_err(|error| inadmissible(call, &name, &error))?;
    let faults = if unknown == UnknownFields::Drop { Vec::new() } else { strict_faults(call, &admitted.unknown) };
    if unknown == UnknownFields::Refuse && !faults.is_empty() {
        return Err(cannot_handle(call, &strict_decoding_faults(faults)));
    }
    if !admitted.errors.is_empty() {
        return Err(ApiError::invalid_object(call.kind, &name, &admitted.errors));
    }
    let mut warnings = std::mem::take(&mut admitted.warnings);
    warnings.extend(faults);
    quotas::judge(call, part, old, &mut admitted.object)?;
    let Admitted { object, submitted, pod, .. } = admitted;
    Ok(Accepted { object, submitted, pod, warnings })
}

/// What a strict reader objects to. A field that is unknown is not said to stand twice as well, nor is what stands in it
/// (sigs.k8s.io/json, `UnmarshalStrict`).
fn strict_faults(call: &Call, unknown: &[String]) -> Vec<String> {
    let within = |field: &str, outer: &String| {
        field.strip_prefix(outer.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    let twice = call.twice.get().into_iter().flatten();
    let twice = twice.filter(|field| !unknown.iter().any(|outer| within(field, outer)));
    unknown.iter().map(|field| unknown_field(field)).chain(twice.map(|field| duplicate_field(field))).collect()
}

fn inadmissible(call: &Call, name: &str, error: &AdmissionError) -> ApiError {
    match error {
        AdmissionError::Forbidden(why) => ApiError::forbidden(call.kind, name, why),
        AdmissionError::Decode(error) => cannot_handle(call, &error.to_string()),
        AdmissionError::Encode(_) => ApiError::internal(error),
    }
}

fn cannot_handle(call: &Call, why: &str) -> ApiError {
    let (kind, version) = (call.kind.kind, call.kind.version);
    ApiError::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: {why}"))
}
