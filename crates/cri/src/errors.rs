//! Errors as gRPC statuses: the code says what kind, the message is the whole chain of causes.

use image::RemoveImageError;
use runtime::RuntimeError;
pub use spec::chain;
use tonic::Status;

/// Of the runtime. The kubelet looks for `NotFound`.
pub fn runtime(error: &RuntimeError) -> Status {
    let text = chain(error);
    match error {
        RuntimeError::NoSuchSandbox(_) | RuntimeError::NoSuchContainer(_) => Status::not_found(text),
        RuntimeError::NotRunning { .. } | RuntimeError::SandboxNotReady { .. } | RuntimeError::SandboxSilent { .. } => {
            Status::failed_precondition(text)
        }
        RuntimeError::ContainerConfig { .. } => Status::invalid_argument(text),
        RuntimeError::RunSandbox { .. }
        | RuntimeError::CreateContainer { .. }
        | RuntimeError::StartContainer { .. }
        | RuntimeError::Exec { .. }
        | RuntimeError::Connect { .. }
        | RuntimeError::Remove { .. }
        | RuntimeError::Store(_) => Status::unknown(text),
    }
}

/// Of the removal of an image.
pub fn remove_image(error: &RemoveImageError) -> Status {
    let text = chain(error);
    match error {
        RemoveImageError::Held { .. } => Status::failed_precondition(text),
        _ => Status::unknown(text),
    }
}

/// A part of the protocol that is not built, by the name of its field.
pub fn unsupported(field: &str, why: &str) -> Status {
    Status::unimplemented(format!("{field}: {why}"))
}

/// A field that makes no sense.
pub fn invalid(field: &str, why: impl std::fmt::Display) -> Status {
    Status::invalid_argument(format!("{field}: {why}"))
}
