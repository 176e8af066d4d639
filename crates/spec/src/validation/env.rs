//! Rules for environment variables and where they come from.

use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, EnvVarSource, ObjectFieldSelector, ResourceFieldSelector};

use super::names;
use crate::downward::{FieldPath, ResourceField};
use crate::field::{Errors, Path};
use crate::quantity::Quantity;

pub(super) fn env(errors: &mut Errors, path: &Path<'_>, variables: &[EnvVar]) {
    for (index, variable) in variables.iter().enumerate() {
        let path = path.index(index);
        if variable.name.is_empty() {
            errors.required(&path.child("name"), "");
        } else {
            for fault in names::environment_name(&variable.name) {
                errors.invalid(&path.child("name"), variable.name.as_str(), fault);
            }
        }
        if let Some(source) = &variable.value_from {
            value_from(errors, &path.child("valueFrom"), variable, source);
        }
    }
}

pub(super) fn env_from(errors: &mut Errors, whole: &Path<'_>, sources: &[EnvFromSource]) {
    for (index, source) in sources.iter().enumerate() {
        let path = whole.index(index);
        if let Some(prefix) = source.prefix.as_deref().filter(|prefix| !prefix.is_empty()) {
            for fault in names::environment_name(prefix) {
                errors.invalid(&path.child("prefix"), prefix, fault);
            }
        }
        let named = [
            ("configMapRef", source.config_map_ref.as_ref().map(|r| r.name.as_str())),
            ("secretRef", source.secret_ref.as_ref().map(|r| r.name.as_str())),
        ];
        for (field, name) in named {
            match name {
                Some("") => errors.required(&path.child(field).child("name"), ""),
                Some(name) => object_name(errors, &path.child(field), name),
                None => {}
            }
        }
        match named.iter().filter(|(_, name)| name.is_some()).count() {
            // The place that is named is the API server's: the list.
            0 => errors.invalid(whole, "", "must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => errors.invalid(whole, "", "may not have more than one field specified at a time"),
        }
    }
}

fn value_from(errors: &mut Errors, path: &Path<'_>, variable: &EnvVar, source: &EnvVarSource) {
    if let Some(selector) = &source.field_ref {
        field_ref(errors, &path.child("fieldRef"), selector, &FieldPath::FOR_ENVIRONMENT);
    }
    if let Some(selector) = &source.resource_field_ref {
        resource_field_ref(errors, &path.child("resourceFieldRef"), selector);
    }
    if let Some(selector) = &source.config_map_key_ref {
        key_ref(errors, &path.child("configMapKeyRef"), &selector.name, &selector.key);
    }
    if let Some(selector) = &source.secret_key_ref {
        key_ref(errors, &path.child("secretKeyRef"), &selector.name, &selector.key);
    }
    let present = [
        source.field_ref.is_some(),
        source.resource_field_ref.is_some(),
        source.config_map_key_ref.is_some(),
        source.secret_key_ref.is_some(),
        source.file_key_ref.is_some(),
    ];
    let count = present.iter().filter(|is_present| **is_present).count();
    if count == 0 {
        let fault = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`";
        errors.invalid(path, "", fault);
    } else if variable.value.as_deref().is_some_and(|value| !value.is_empty()) {
        errors.invalid(path, "", "may not be specified when `value` is not empty");
    } else if count > 1 {
        errors.invalid(path, "", "may not have more than one field specified at a time");
    }
}

/// `supported` are the fields that may be taken here, single keys of labels and annotations aside.
pub(super) fn field_ref(
    errors: &mut Errors,
    path: &Path<'_>,
    selector: &ObjectFieldSelector,
    supported: &[&'static str],
) {
    if selector.field_path.is_empty() {
        errors.required(&path.child("fieldPath"), "");
        return;
    }
    let text = selector.field_path.as_str();
    if let Some(version) = selector.api_version.as_deref().filter(|version| !matches!(*version, "" | "v1")) {
        let fault = format!("error converting fieldPath: unsupported pod version: {version}");
        return errors.invalid(&path.child("fieldPath"), text, fault);
    }
    match FieldPath::parse(text) {
        Ok(FieldPath::Label(key)) => {
            for fault in names::qualified_name(key) {
                errors.invalid(path, key, fault);
            }
        }
        Ok(FieldPath::Annotation(key)) => {
            for fault in names::qualified_name(&key.to_lowercase()) {
                errors.invalid(path, key, fault);
            }
        }
        Ok(_) if supported.contains(&text) => {}
        Ok(_) => errors.not_supported(&path.child("fieldPath"), text, supported),
        Err(_) if is_subscripted(text, supported) => {
            errors.invalid(path, text.split('[').next().unwrap_or_default(), "does not support subscript");
        }
        Err(_) => {
            let fault = format!("error converting fieldPath: field label not supported: {text}");
            errors.invalid(&path.child("fieldPath"), text, fault);
        }
    }
}

/// A key is taken from a field that has none.
fn is_subscripted(text: &str, supported: &[&str]) -> bool {
    text.strip_suffix("']").and_then(|text| text.split_once("['")).is_some_and(|(field, _)| supported.contains(&field))
}

pub(super) fn resource_field_ref(errors: &mut Errors, path: &Path<'_>, selector: &ResourceFieldSelector) {
    let resource = selector.resource.as_str();
    if resource.is_empty() {
        errors.required(&path.child("resource"), "");
        return;
    }
    let Some(field) = ResourceField::parse(resource) else {
        errors.not_supported(&path.child("resource"), resource, &ResourceField::ALL);
        return;
    };
    let Some(divisor) = selector.divisor.as_ref().filter(|divisor| !divisor.0.is_empty()) else { return };
    match Quantity::parse(&divisor.0) {
        Err(error) => errors.invalid(&path.child("divisor"), divisor.0.as_str(), error.to_string()),
        Ok(divisor) if divisor.is_zero() => {}
        Ok(divisor) => {
            if let Err(fault) = field.check_divisor(&divisor.to_string()) {
                errors.invalid(&path.child("divisor"), resource, fault);
            }
        }
    }
}

fn key_ref(errors: &mut Errors, path: &Path<'_>, name: &str, key: &str) {
    object_name(errors, path, name);
    if key.is_empty() {
        errors.required(&path.child("key"), "");
        return;
    }
    for fault in names::config_key(key) {
        errors.invalid(&path.child("key"), key, fault);
    }
}

fn object_name(errors: &mut Errors, path: &Path<'_>, name: &str) {
    for fault in names::dns_subdomain(name) {
        errors.invalid(&path.child("name"), name, fault);
    }
}
