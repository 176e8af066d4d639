//! What is wrong with which field, in Kubernetes' words.
//!
//! Source: the messages of `k8s.io/apimachinery/pkg/util/validation/field`, which clients show and scripts match.

use std::fmt;

use serde_json::Value;

/// One fault of one field.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldError {
    /// Where: `spec.containers[0].image`.
    pub field: String,
    /// What kind of fault.
    pub reason: FieldReason,
    /// The value at fault, where the message shows it.
    pub value: Value,
    /// What would be right; may be empty.
    pub detail: String,
}

/// The kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldReason {
    /// The field must be given.
    Required,
    /// The value breaks a rule.
    Invalid,
    /// The field must not be given.
    Forbidden,
    /// The value is not one of a list.
    NotSupported,
    /// The value may stand only once.
    Duplicate,
    /// The value has too many bytes.
    TooLong,
    /// The list has too many items.
    TooMany,
    /// What the value names does not exist.
    NotFound,
}

impl FieldReason {
    /// The reason in `details.causes` of a `Status`.
    pub fn cause(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::Forbidden => "FieldValueForbidden",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::NotFound => "FieldValueNotFound",
        }
    }
}

impl FieldError {
    /// The message without the field, as in `details.causes[].message`.
    pub fn message(&self) -> String {
        let head = match self.reason {
            FieldReason::Required => "Required value".to_owned(),
            FieldReason::Forbidden => "Forbidden".to_owned(),
            FieldReason::TooLong => "Too long".to_owned(),
            FieldReason::TooMany => format!("Too many: {}", self.value),
            FieldReason::Invalid => format!("Invalid value: {}", self.value),
            FieldReason::NotSupported => format!("Unsupported value: {}", self.value),
            FieldReason::Duplicate => format!("Duplicate value: {}", self.value),
            FieldReason::NotFound => format!("Not found: {}", self.value),
        };
        if self.detail.is_empty() { head } else { format!("{head}: {}", self.detail) }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message())
    }
}

/// The way to a field, kept on the stack and written out only when something is wrong.
#[derive(Clone, Copy)]
pub(crate) struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Child(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> Path<'a> {
    pub(crate) fn root(name: &'a str) -> Self {
        Self { parent: None, step: Step::Child(name) }
    }

    pub(crate) fn child<'b>(&'b self, name: &'b str) -> Path<'b> {
        Path { parent: Some(self), step: Step::Child(name) }
    }

    pub(crate) fn index(&self, index: usize) -> Path<'_> {
        Path { parent: Some(self), step: Step::Index(index) }
    }

    pub(crate) fn key<'b>(&'b self, key: &'b str) -> Path<'b> {
        Path { parent: Some(self), step: Step::Key(key) }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            write!(f, "{parent}")?;
        }
        match self.step {
            Step::Child(name) if self.parent.is_some() => write!(f, ".{name}"),
            Step::Child(name) => f.write_str(name),
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Key(key) => write!(f, "[{key}]"),
        }
    }
}

/// The faults found so far.
#[derive(Default)]
pub(crate) struct Errors(Vec<FieldError>);

impl Errors {
    pub(crate) fn into_vec(self) -> Vec<FieldError> {
        self.0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn add(&mut self, path: &Path<'_>, reason: FieldReason, value: Value, detail: impl Into<String>) {
        self.0.push(FieldError { field: path.to_string(), reason, value, detail: detail.into() });
    }

    pub(crate) fn push(&mut self, error: FieldError) {
        self.0.push(error);
    }

    pub(crate) fn required(&mut self, path: &Path<'_>, detail: impl Into<String>) {
        self.add(path, FieldReason::Required, Value::Null, detail);
    }

    pub(crate) fn forbidden(&mut self, path: &Path<'_>, detail: impl Into<String>) {
        self.add(path, FieldReason::Forbidden, Value::Null, detail);
    }

    pub(crate) fn invalid(&mut self, path: &Path<'_>, value: impl Into<Value>, detail: impl Into<String>) {
        self.add(path, FieldReason::Invalid, value.into(), detail);
    }

    pub(crate) fn duplicate(&mut self, path: &Path<'_>, value: impl Into<Value>) {
        self.add(path, FieldReason::Duplicate, value.into(), "");
    }

    pub(crate) fn not_found(&mut self, path: &Path<'_>, value: impl Into<Value>) {
        self.add(path, FieldReason::NotFound, value.into(), "");
    }

    pub(crate) fn too_long(&mut self, path: &Path<'_>, max: usize) {
        self.add(path, FieldReason::TooLong, Value::Null, format!("may not be more than {max} bytes"));
    }

    pub(crate) fn too_many(&mut self, path: &Path<'_>, count: usize, max: usize) {
        self.add(path, FieldReason::TooMany, Value::from(count), format!("must have at most {max} items"));
    }

    pub(crate) fn not_supported(&mut self, path: &Path<'_>, value: impl Into<Value>, supported: &[&str]) {
        let supported: Vec<String> = supported.iter().map(|word| format!("{word:?}")).collect();
        let detail = format!("supported values: {}", supported.join(", "));
        self.add(path, FieldReason::NotSupported, value.into(), detail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_read_as_kubernetes_writes_them() {
        let spec = Path::root("spec");
        let containers = spec.child("containers");
        let container = containers.index(0);
        let labels = spec.child("nodeSelector");
        let mut errors = Errors::default();
        errors.required(&container.child("image"), "");
        errors.required(&container.child("name"), "must be given");
        errors.invalid(&container.child("name"), "A", "must be b");
        errors.invalid(&spec.child("activeDeadlineSeconds"), -1, "must be greater than or equal to 0");
        errors.forbidden(&spec.child("x"), "may not be set");
        errors.duplicate(&container.child("name"), "a");
        errors.not_found(&container.child("name"), "v");
        errors.too_long(&container.child("name"), 63);
        errors.not_supported(&spec.child("restartPolicy"), "x", &["Never", "Always"]);
        errors.invalid(&labels.key("a/b"), "", "no");
        let texts: Vec<String> = errors.into_vec().iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "spec.containers[0].image: Required value",
                "spec.containers[0].name: Required value: must be given",
                "spec.containers[0].name: Invalid value: \"A\": must be b",
                "spec.activeDeadlineSeconds: Invalid value: -1: must be greater than or equal to 0",
                "spec.x: Forbidden: may not be set",
                "spec.containers[0].name: Duplicate value: \"a\"",
                "spec.containers[0].name: Not found: \"v\"",
                "spec.containers[0].name: Too long: may not be more than 63 bytes",
                "spec.restartPolicy: Unsupported value: \"x\": supported values: \"Never\", \"Always\"",
                "spec.nodeSelector[a/b]: Invalid value: \"\": no",
            ]
        );
    }
}
