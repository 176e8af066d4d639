//! From what a client has sent to what may be stored: decoded, completed with defaults, validated.

use serde_json::Value;
use spec::decode::{DecodeError, Readable, Writable, decode_strict, read};
use spec::k8s_openapi::api::core::v1::Pod;
use spec::service_network::ServiceNetwork;
use spec::validation::FieldError;
use store::Store;

use crate::kinds::submitted::Submitted;
use crate::verbs::Part;

/// What an admission may look at beside the object.
#[derive(Clone, Copy)]
pub struct Admission<'a> {
    /// The object as it is stored, when it is being changed.
    pub old: Option<&'a Value>,
    /// Which door the object came through.
    pub part: Part,
    /// The name of this machine's Node.
    pub node_name: &'a str,
    /// Where Services get their addresses from.
    pub service_network: ServiceNetwork,
    /// The objects that there are.
    pub store: &'a Store,
}

/// An object that was decoded and completed; it may be stored if `errors` is empty.
#[derive(Debug)]
pub struct Admitted {
    /// The object in canonical form.
    pub object: Value,
    /// What a new object was before admission completed it, where it does: its client owns no more than this.
    pub submitted: Option<Submitted>,
    /// A new Pod in its type, for whoever runs it.
    pub pod: Option<Box<Pod>>,
    /// Paths of fields that Kubernetes does not know; they are not in `object`.
    pub unknown: Vec<String>,
    /// What is wrong with it.
    pub errors: Vec<FieldError>,
    /// What the client should know.
    pub warnings: Vec<String>,
}

/// Why there is no object to judge.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    /// It does not have the shape of its kind.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A rule beyond its own fields forbids it.
    #[error("{0}")]
    Forbidden(String),
    /// It cannot be written as JSON again.
    #[error("cannot encode the object")]
    Encode(#[from] serde_json::Error),
}

/// Decodes `value` as a `T`, lets the kind complete it, and validates what came out.
pub fn admit<T: Readable + Writable>(
    value: Value,
    complete: impl FnOnce(&mut T),
    validate: impl FnOnce(&T) -> Vec<FieldError>,
) -> Result<Admitted, AdmissionError> {
    let (mut object, unknown) = decode_strict::<T>(value)?;
    complete(&mut object);
    let errors = validate(&object);
    Ok(Admitted { object: object.write()?, submitted: None, pod: None, unknown, errors, warnings: Vec::new() })
}

/// The stored object in its type, for checks of what may change.
pub fn stored<T: Readable>(old: Option<&Value>) -> Result<Option<T>, AdmissionError> {
    Ok(old.map(read).transpose()?)
}
