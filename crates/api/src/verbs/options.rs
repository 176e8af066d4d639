//! Parameters of writes: dry run, and what to do with unknown fields.

use serde_json::Value;
use spec::validation::{FieldError, FieldReason};

use crate::context::Call;
use crate::http::query::Query;
use crate::http::status::ApiError;

/// `dryRun`, `fieldValidation` and `fieldManager`.
#[derive(Debug, Clone, Copy)]
pub struct WriteOptions {
    /// Judge and complete, but store nothing.
    pub dry_run: bool,
    /// What to do with unknown fields.
    pub unknown: UnknownFields,
}

/// `fieldValidation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownFields {
    /// `Ignore`: drop them.
    Drop,
    /// `Warn`, the default: drop them and say so.
    Warn,
    /// `Strict`: refuse them.
    Refuse,
}

impl WriteOptions {
    /// Reads them.
    pub fn parse(query: &Query) -> Result<Self, ApiError> {
        let unknown = match query.get("fieldValidation") {
            None | Some("Warn") => UnknownFields::Warn,
            Some("Ignore") => UnknownFields::Drop,
            Some("Strict") => UnknownFields::Refuse,
            Some(other) => return Err(unsupported("fieldValidation", other, r#""Ignore", "Strict", "Warn""#)),
        };
        if query.get("fieldManager").is_some_and(|manager| manager.len() > 128) {
            return Err(ApiError::unprocessable("fieldManager: Too long: may not be more than 128 bytes"));
        }
        Ok(Self { dry_run: dry_run(query)?, unknown })
    }
}

/// Who writes: `fieldManager`, else the program that the User-Agent names.
pub fn field_manager(call: &Call) -> String {
    if let Some(manager) = call.query.get("fieldManager") {
        return manager.to_owned();
    }
    let agent = call.headers.get(http::header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    let program = agent.split('/').next().unwrap_or_default();
    if program.is_empty() { "unknown".to_owned() } else { program.chars().take(128).collect() }
}

/// 422 of a parameter of patch.
pub fn patch_option(field: &str, reason: FieldReason, detail: &str) -> ApiError {
    let error = FieldError { field: field.to_owned(), reason, value: Value::Null, detail: detail.to_owned() };
    ApiError::invalid("PatchOptions", "meta.k8s.io", "", &[error], "PatchOptions")
}

/// `dryRun=All`.
pub fn dry_run(query: &Query) -> Result<bool, ApiError> {
    match query.get("dryRun") {
        None => Ok(false),
        Some("All") => Ok(true),
        Some(other) => Err(unsupported("dryRun", other, r#""All""#)),
    }
}

fn unsupported(field: &str, value: &str, supported: &str) -> ApiError {
    ApiError::unprocessable(format!("{field}: Unsupported value: {value:?}: supported values: {supported}"))
}
