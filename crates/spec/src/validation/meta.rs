//! Rules for the metadata of every object.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::names;
use crate::field::{Errors, FieldError, Path};

/// All annotations of an object together, keys and values, in bytes.
const MAX_ANNOTATIONS: usize = 256 * 1024;

/// Which form the name of an object has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameForm {
    /// `example.com`, up to 253 characters: Pods, `ConfigMaps`, Secrets.
    Subdomain,
    /// `my-name`, up to 63 characters: Namespaces.
    Label,
    /// Anything that can stand in a path: Roles and their bindings.
    PathSegment,
}

impl NameForm {
    fn faults(self, name: &str) -> Vec<String> {
        match self {
            Self::Subdomain => names::dns_subdomain(name),
            Self::Label => names::dns_label(name),
            Self::PathSegment => names::path_segment(name),
        }
    }
}

/// Checks `metadata` of a new object whose name has been generated already, if it is to be.
pub fn validate_object_meta(meta: &ObjectMeta, is_namespaced: bool, form: NameForm) -> Vec<FieldError> {
    let mut errors = Errors::default();
    object_meta(&mut errors, meta, is_namespaced, form);
    errors.into_vec()
}

/// Checks that an update leaves alone what identifies the object.
pub fn validate_object_meta_update(new: &ObjectMeta, old: &ObjectMeta) -> Vec<FieldError> {
    let mut errors = Errors::default();
    object_meta_update(&mut errors, new, old);
    errors.into_vec()
}

pub(super) fn object_meta(errors: &mut Errors, meta: &ObjectMeta, is_namespaced: bool, form: NameForm) {
    let path = Path::root("metadata");
    if let Some(prefix) = meta.generate_name.as_deref().filter(|prefix| !prefix.is_empty()) {
        // What follows is a letter or digit, so the prefix may end in what a name may not end in.
        let masked = match prefix.strip_suffix('-') {
            Some(rest) => format!("{rest}a"),
            None => prefix.to_owned(),
        };
        for fault in form.faults(&masked) {
            errors.invalid(&path.child("generateName"), prefix, fault);
        }
    }
    match meta.name.as_deref() {
        None | Some("") => errors.required(&path.child("name"), "name or generateName is required"),
        Some(name) => {
            for fault in form.faults(name) {
                errors.invalid(&path.child("name"), name, fault);
            }
        }
    }
    match meta.namespace.as_deref().filter(|namespace| !namespace.is_empty()) {
        None if is_namespaced => errors.required(&path.child("namespace"), ""),
        Some(_) if !is_namespaced => errors.forbidden(&path.child("namespace"), "not allowed on this type"),
        Some(namespace) => {
            for fault in names::dns_label(namespace) {
                errors.invalid(&path.child("namespace"), namespace, fault);
            }
        }
        None => {}
    }
    labels_and_annotations(errors, meta);
    finalizers(errors, meta);
    owners(errors, meta);
}

pub(super) fn object_meta_update(errors: &mut Errors, new: &ObjectMeta, old: &ObjectMeta) {
    let path = Path::root("metadata");
    let mut same = |field: &str, new: &Option<String>, old: &Option<String>| {
        if new != old {
            errors.invalid(&path.child(field), new.as_deref().unwrap_or_default(), "field is immutable");
        }
    };
    same("name", &new.name, &old.name);
    same("namespace", &new.namespace, &old.namespace);
    same("uid", &new.uid, &old.uid);
    labels_and_annotations(errors, new);
    finalizers(errors, new);
    owners(errors, new);
    if old.deletion_timestamp.is_some() {
        let held = old.finalizers.as_deref().unwrap_or_default();
        let added: Vec<_> = new.finalizers.iter().flatten().filter(|name| !held.contains(name)).cloned().collect();
        if !added.is_empty() {
            let fault = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers {added:?}"
            );
            errors.forbidden(&path.child("finalizers"), fault);
        }
    }
}

/// Finalizers whose names need no prefix.
const OWN_FINALIZERS: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];

/// `ValidateFinalizers`, and `validateKubeFinalizerName` for kinds of Kubernetes' own.
fn finalizers(errors: &mut Errors, meta: &ObjectMeta) {
    let path = Path::root("metadata");
    let path = path.child("finalizers");
    let finalizers = meta.finalizers.as_deref().unwrap_or_default();
    for name in finalizers {
        for fault in names::qualified_name(name) {
            errors.invalid(&path, name.as_str(), fault);
        }
    }
    let has = |wanted: &str| finalizers.iter().any(|name| name == wanted);
    if has("orphan") && has("foregroundDeletion") {
        errors.invalid(&path, finalizers.to_vec(), "finalizer foregroundDeletion and orphan cannot be both set");
    }
    for (index, name) in finalizers.iter().enumerate() {
        if !name.contains('/') && !OWN_FINALIZERS.contains(&name.as_str()) {
            let fault = "name is neither a standard finalizer name nor is it fully qualified";
            errors.invalid(&path.index(index), name.as_str(), fault);
        }
    }
}

/// `ValidateOwnerReferences`, which names the list, not the reference.
fn owners(errors: &mut Errors, meta: &ObjectMeta) {
    let path = Path::root("metadata");
    let path = path.child("ownerReferences");
    let owners = meta.owner_references.as_deref().unwrap_or_default();
    let mut controller = None;
    for owner in owners {
        if owner.api_version.rsplit('/').next().is_none_or(str::is_empty) {
            errors.invalid(&path.child("apiVersion"), owner.api_version.as_str(), "version must not be empty");
        }
        for (field, text) in [("kind", &owner.kind), ("name", &owner.name), ("uid", &owner.uid)] {
            if text.is_empty() {
                errors.invalid(&path.child(field), "", "must not be empty");
            }
        }
        if (owner.api_version.as_str(), owner.kind.as_str()) == ("v1", "Event") {
            let shown = serde_json::to_value(owner).unwrap_or_default();
            errors.invalid(&path, shown, "/v1, Kind=Event is disallowed from being an owner");
        }
        if owner.controller != Some(true) {
            continue;
        }
        match controller {
            None => controller = Some(owner),
            Some(first) => {
                let fault = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {}/{} and {}/{}",
                    first.kind, first.name, owner.kind, owner.name
                );
                errors.invalid(&path, serde_json::to_value(owners).unwrap_or_default(), fault);
            }
        }
    }
}

/// Labels, and maps of the same form.
pub(super) fn labels(errors: &mut Errors, path: &Path<'_>, labels: &BTreeMap<String, String>) {
    for (key, value) in labels {
        for fault in names::qualified_name(key) {
            errors.invalid(path, key.as_str(), fault);
        }
        for fault in names::label_value(value) {
            errors.invalid(path, value.as_str(), fault);
        }
    }
}

fn labels_and_annotations(errors: &mut Errors, meta: &ObjectMeta) {
    let path = Path::root("metadata");
    if let Some(of_object) = &meta.labels {
        labels(errors, &path.child("labels"), of_object);
    }
    let Some(annotations) = &meta.annotations else { return };
    let path = path.child("annotations");
    for key in annotations.keys() {
        // Keys of annotations may have capitals in the prefix.
        for fault in names::qualified_name(&key.to_lowercase()) {
            errors.invalid(&path, key.as_str(), fault);
        }
    }
    if annotations.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > MAX_ANNOTATIONS {
        errors.too_long(&path, MAX_ANNOTATIONS);
    }
}
