//! What went wrong, and how a person reads it: `error:`, each cause once, and what to do.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io;

use kube::core::Status;

use crate::escape;

/// A failure that this program finds itself, with the remedy if there is one.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    message: String,
    hint: Option<String>,
    #[source]
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Failure {
    /// A failure without a known remedy.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, cause: None }
    }

    /// Says what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Names what led to it.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }
}

/// The server's refusal.
#[derive(Debug, thiserror::Error)]
#[error("{}", headline(.status))]
pub struct Refusal {
    /// What the server answered.
    pub status: Status,
}

/// The program's own answer is an exit status: nothing more is to be said.
#[derive(Debug, thiserror::Error)]
#[error("exit status {0}")]
pub struct ExitStatus(pub u8);

/// Standard output was closed by its reader, as `| head` does it.
#[derive(Debug, thiserror::Error)]
#[error("standard output is closed")]
pub struct OutputClosed;

/// Names the failed write, or tells that nobody reads any more.
pub fn output_error(error: io::Error) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::BrokenPipe => OutputClosed.into(),
        _ => Failure::new("cannot write to standard output").because(error).into(),
    }
}

/// Whether the server says that there is no such object.
pub fn is_not_found(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Refusal>().is_some_and(|refusal| refusal.status.code == 404)
}

/// Whether the server says that the object has changed, or exists already.
pub fn is_conflict(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Refusal>().is_some_and(|refusal| refusal.status.is_conflict())
}

/// One error is returned; of several, each is shown, and the exit status tells that something failed.
pub fn joined(mut errors: Vec<anyhow::Error>) -> anyhow::Result<()> {
    if errors.len() < 2 {
        return errors.pop().map_or(Ok(()), Err);
    }
    for error in &errors {
        crate::output::note(&render(error));
    }
    Err(ExitStatus(1).into())
}

/// The whole error as it is shown on standard error.
pub fn render(error: &anyhow::Error) -> String {
    let mut lines = String::new();
    let mut hint = None;
    let mut shown: Option<String> = None;
    for cause in error.chain() {
        let message = cause.to_string();
        // Some libraries repeat their source in their own message.
        if shown.as_ref().is_some_and(|above| above.ends_with(&message)) {
            continue;
        }
        let label = if shown.is_none() { "error: " } else { "  caused by: " };
        push_line(&mut lines, label, &message);
        shown = Some(message);
        if let Some(refusal) = cause.downcast_ref::<Refusal>() {
            for field in field_causes(&refusal.status) {
                push_line(&mut lines, "  caused by: ", &field);
            }
            hint = hint.or_else(|| hint_of(&refusal.status).map(Cow::into_owned));
        }
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            hint = hint.or_else(|| failure.hint.clone());
        }
    }
    if let Some(hint) = hint {
        push_line(&mut lines, "  hint: ", &hint);
    }
    lines
}

fn push_line(lines: &mut String, label: &str, message: &str) {
    let indented = escape::multi_line(message.trim_end()).replace('\n', "\n    ");
    let _infallible = writeln!(lines, "{label}{indented}");
}

/// The message without the list of causes, which have their own lines.
fn headline(status: &Status) -> String {
    let message = status.message.trim();
    if !field_causes(status).is_empty()
        && let Some((subject, _causes)) = message.split_once(" is invalid: ")
    {
        return format!("{subject} is invalid");
    }
    match (message.is_empty(), status.reason.is_empty()) {
        (false, _) => message.to_owned(),
        (true, false) => format!("the server refused the request: {} (HTTP {})", status.reason, status.code),
        (true, true) => format!("the server refused the request with HTTP {}", status.code),
    }
}

/// One line per field that the server complains about. Causes that do not name a field are in the message already.
fn field_causes(status: &Status) -> Vec<String> {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let with_field = causes.filter(|cause| !cause.field.is_empty());
    with_field
        .map(|cause| {
            if cause.message.starts_with(&cause.field) {
                cause.message.clone()
            } else {
                format!("{}: {}", cause.field, cause.message)
            }
        })
        .collect()
}

fn hint_of(status: &Status) -> Option<Cow<'static, str>> {
    let fields = field_causes(status);
    if fields.iter().any(|field| field.contains("monopod does not support")) {
        return Some("remove the field, or run this Pod on a Kubernetes cluster".into());
    }
    if fields.iter().any(|field| field.contains("pod updates may not change fields")) {
        return Some("a Pod is replaced, not changed: `monopod delete -f FILE` and apply it again".into());
    }
    if status.is_already_exists() {
        return Some("`monopod apply -f FILE` updates what exists; `monopod delete` removes it first".into());
    }
    if status.code == http::StatusCode::INSUFFICIENT_STORAGE.as_u16() {
        return Some("free space on that disk; what runs goes on, and deleting works".into());
    }
    unknown_field(&status.message).map(|path| match spec::support::nearest_pod_field(&path) {
        Some(field) => format!("did you mean {field:?}?").into(),
        None => "check the field's spelling and its indentation".into(),
    })
}

/// The first path that `unknown field "spec.foo"` names.
fn unknown_field(message: &str) -> Option<String> {
    let (_, rest) = message.split_once("unknown field \"")?;
    Some(rest.split('"').next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(json: &str) -> anyhow::Error {
        Refusal { status: serde_json::from_str(json).unwrap() }.into()
    }

    #[test]
    fn each_field_has_one_line() {
        let error = refusal(
            r#"{"kind":"Status","status":"Failure","reason":"Invalid","code":422,
            "message":"Pod \"web\" is invalid: [spec.containers[0].image: Required value, spec.containers[0].livenessProbe: Forbidden: monopod does not support this field yet]",
            "details":{"causes":[
              {"reason":"FieldValueRequired","message":"Required value","field":"spec.containers[0].image"},
              {"reason":"FieldValueForbidden","message":"Forbidden: monopod does not support this field yet","field":"spec.containers[0].livenessProbe"}]}}"#,
        );
        insta::assert_snapshot!(render(&error), @r#"
        error: Pod "web" is invalid
          caused by: spec.containers[0].image: Required value
          caused by: spec.containers[0].livenessProbe: Forbidden: monopod does not support this field yet
          hint: remove the field, or run this Pod on a Kubernetes cluster
        "#);
    }

    #[test]
    fn causes_stand_once_and_foreign_text_is_harmless() {
        let error =
            anyhow::Error::new(Failure::new("cannot read \u{1b}[31mfile").because(io::Error::other("disk on fire")))
                .context("cannot apply");
        insta::assert_snapshot!(render(&error), @r"
        error: cannot apply
          caused by: cannot read \x1b[31mfile
          caused by: disk on fire
        ");
        let error = refusal(r#"{"status":"Failure","message":"pods \"x\" not found","reason":"NotFound","code":404}"#);
        assert_eq!(render(&error), "error: pods \"x\" not found\n");
        assert!(is_not_found(&error) && !is_conflict(&error));
        let error = refusal(r#"{"status":"Failure","code":503}"#);
        assert_eq!(render(&error), "error: the server refused the request with HTTP 503\n");
    }
}
