//! What most kinds have in common: the skeleton of a declaration, and the usual way of admission.

use serde_json::Value;
use spec::Timestamp;
use spec::decode::{Readable, Writable};
use spec::k8s_openapi::Metadata;
use spec::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use spec::validation::{FieldError, NameForm, validate_object_meta, validate_object_meta_update};

use crate::kinds::admission::{Admission, AdmissionError, Admitted, admit, stored};
use crate::kinds::{Kind, Removal};
use crate::table::{AGE, NAME, Row, age, name};

/// Decodes, completes and validates an object.
pub type Admit = fn(Value, &Admission<'_>) -> Result<Admitted, AdmissionError>;

impl Kind {
    /// A kind whose objects live in a namespace, go at once when they are deleted, and show name and age.
    pub const fn namespaced(
        group: &'static str,
        resource: &'static str,
        singular: &'static str,
        kind: &'static str,
        admit: Admit,
    ) -> Self {
        Self {
            group,
            version: "v1",
            resource,
            singular,
            kind,
            namespaced: true,
            short_names: &[],
            categories: &[],
            subresources: &[],
            fields: &[],
            columns: &[NAME, AGE],
            row: name_and_age,
            admit,
            removal: Removal::AtOnce,
            orphans_by_default: false,
            counts_generations: false,
            renames: &[],
        }
    }

    /// The same for a kind whose objects live in no namespace.
    pub const fn cluster(
        group: &'static str,
        resource: &'static str,
        singular: &'static str,
        kind: &'static str,
        admit: Admit,
    ) -> Self {
        Self { namespaced: false, ..Self::namespaced(group, resource, singular, kind, admit) }
    }
}

fn name_and_age(object: &Value, now: Timestamp) -> Row {
    Row::new(vec![name(object), age(object, now)])
}

/// How a kind's objects are judged beside their metadata.
pub struct Rules<T> {
    /// Where its objects live.
    pub namespaced: bool,
    /// What their names look like.
    pub names: NameForm,
    /// Fills in defaults.
    pub complete: fn(&mut T),
    /// Says what is wrong with a new object, or with an old one's next version.
    pub validate: fn(&T, Option<&T>) -> Vec<FieldError>,
}

impl<T> Rules<T> {
    /// No defaults and no rules but those of metadata.
    pub const NONE: Self =
        Self { namespaced: true, names: NameForm::Subdomain, complete: |_| {}, validate: |_, _| Vec::new() };
}

/// Admits an object by its kind's rules.
pub fn admit_by<T>(rules: &Rules<T>, value: Value, admission: &Admission<'_>) -> Result<Admitted, AdmissionError>
where
    T: Metadata<Ty = ObjectMeta> + Readable + Writable,
{
    let old = stored::<T>(admission.old)?;
    admit(value, rules.complete, |object: &T| {
        let mut errors = match &old {
            None => validate_object_meta(object.metadata(), rules.namespaced, rules.names),
            Some(old) => validate_object_meta_update(object.metadata(), old.metadata()),
        };
        errors.extend((rules.validate)(object, old.as_ref()));
        errors
    })
}
