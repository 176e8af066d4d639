//! Errors as gRPC statuses: the code says what kind, the message is the whole chain of causes.

use image::RemoveImageError;
use runtime::RuntimeError;
use tonic::Status;

/// An error and its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Of the runtime. The kubelet looks for `NotFound`.
pub fn runtime(error: &RuntimeError) -> Status {
    let text = chain(error);
    match error {
        RuntimeError::NoSuchSandbox(_) | RuntimeError::NoSuchContainer(_) => Status::not_found(text),
        RuntimeError::NotRunning { .. } | RuntimeError::SandboxNotReady { .. } => Status::failed_precondition(text),
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
