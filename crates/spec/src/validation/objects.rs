//! Rules for ConfigMaps, Secrets and Namespaces.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use k8s_openapi::api::events::v1::Event;

use super::meta::{self, NameForm};
use super::names;
use crate::field::{Errors, FieldError, Path};

/// The keys and values of a `ConfigMap` or Secret, in bytes.
const MAX_DATA: usize = 1024 * 1024;

/// Checks a new `ConfigMap`.
pub fn validate_config_map(config_map: &ConfigMap) -> Vec<FieldError> {
    let mut errors = Errors::default();
    meta::object_meta(&mut errors, &config_map.metadata, true, NameForm::Subdomain);
    config_map_data(&mut errors, config_map);
    errors.into_vec()
}

/// Checks an update of a `ConfigMap`.
pub fn validate_config_map_update(new: &ConfigMap, old: &ConfigMap) -> Vec<FieldError> {
    let mut errors = Errors::default();
    meta::object_meta_update(&mut errors, &new.metadata, &old.metadata);
    if old.immutable == Some(true) {
        still_immutable(&mut errors, new.immutable);
        same(&mut errors, "data", pairs(new.data.as_ref()) == pairs(old.data.as_ref()));
        same(&mut errors, "binaryData", pairs(new.binary_data.as_ref()) == pairs(old.binary_data.as_ref()));
    }
    config_map_data(&mut errors, new);
    errors.into_vec()
}

/// Checks a new Secret, after `stringData` has been folded into `data`.
pub fn validate_secret(secret: &Secret) -> Vec<FieldError> {
    let mut errors = Errors::default();
    meta::object_meta(&mut errors, &secret.metadata, true, NameForm::Subdomain);
    secret_data(&mut errors, secret);
    errors.into_vec()
}

/// Checks an update of a Secret.
pub fn validate_secret_update(new: &Secret, old: &Secret) -> Vec<FieldError> {
    let mut errors = Errors::default();
    meta::object_meta_update(&mut errors, &new.metadata, &old.metadata);
    if new.type_ != old.type_ {
        errors.invalid(&Path::root("type"), new.type_.as_deref().unwrap_or_default(), "field is immutable");
    }
    if old.immutable == Some(true) {
        still_immutable(&mut errors, new.immutable);
        same(&mut errors, "data", pairs(new.data.as_ref()) == pairs(old.data.as_ref()));
    }
    secret_data(&mut errors, new);
    errors.into_vec()
}

/// Checks a new Namespace.
pub fn validate_namespace(namespace: &Namespace) -> Vec<FieldError> {
    let mut errors = Errors::default();
    meta::object_meta(&mut errors, &namespace.metadata, false, NameForm::Label);
    errors.into_vec()
}

/// Checks an update of a Namespace.
pub fn validate_namespace_update(new: &Namespace, old: &Namespace) -> Vec<FieldError> {
    let mut errors = Errors::default();
    meta::object_meta_update(&mut errors, &new.metadata, &old.metadata);
    errors.into_vec()
}

/// Checks a new Event of `events.k8s.io`, which must say more than one of `v1`.
pub fn validate_new_event(event: &Event) -> Vec<FieldError> {
    let mut errors = Errors::default();
    if event.event_time.is_none() {
        errors.required(&Path::root("eventTime"), "");
    }
    let texts = [
        ("reportingController", &event.reporting_controller),
        ("reportingInstance", &event.reporting_instance),
        ("action", &event.action),
        ("reason", &event.reason),
    ];
    for (field, text) in texts {
        match text.as_deref().unwrap_or_default() {
            "" => errors.required(&Path::root(field), ""),
            text if text.len() > 128 => errors.too_long(&Path::root(field), 128),
            _ => {}
        }
    }
    match event.type_.as_deref() {
        Some("Normal" | "Warning") => {}
        other => errors.invalid(&Path::root("type"), other.unwrap_or_default(), "has invalid value"),
    }
    if event.note.as_ref().is_some_and(|note| note.len() > 1024) {
        errors.invalid(&Path::root("message"), "", "can have at most 1024 characters");
    }
    errors.into_vec()
}

fn config_map_data(errors: &mut Errors, config_map: &ConfigMap) {
    let mut size = 0;
    for (key, value) in config_map.data.iter().flatten() {
        key_rules(errors, "data", key);
        if config_map.binary_data.as_ref().is_some_and(|data| data.contains_key(key)) {
            errors.invalid(&Path::root("data").key(key), key.as_str(), "duplicate of key present in binaryData");
        }
        size += value.len();
    }
    for (key, value) in config_map.binary_data.iter().flatten() {
        key_rules(errors, "binaryData", key);
        size += value.0.len();
    }
    if size > MAX_DATA {
        errors.too_long(&Path::root(""), MAX_DATA);
    }
}

fn secret_data(errors: &mut Errors, secret: &Secret) {
    let none = BTreeMap::new();
    let data = secret.data.as_ref().unwrap_or(&none);
    for key in data.keys() {
        key_rules(errors, "data", key);
    }
    if data.values().map(|value| value.0.len()).sum::<usize>() > MAX_DATA {
        errors.too_long(&Path::root("data"), MAX_DATA);
    }
    secret_type(errors, secret, data);
}

/// What each built-in type of Secret must hold (kubernetes.io "Types of Secret").
fn secret_type(errors: &mut Errors, secret: &Secret, data: &BTreeMap<String, ByteString>) {
    let mut require = |key: &str| {
        if !data.contains_key(key) {
            errors.required(&Path::root("data").key(key), "");
        }
    };
    match secret.type_.as_deref().unwrap_or_default() {
        "kubernetes.io/tls" => {
            require("tls.crt");
            require("tls.key");
        }
        "kubernetes.io/ssh-auth" => require("ssh-privatekey"),
        "kubernetes.io/basic-auth" if !data.contains_key("username") && !data.contains_key("password") => {
            require("username");
            require("password");
        }
        "kubernetes.io/dockerconfigjson" => registry_config(errors, data, ".dockerconfigjson"),
        "kubernetes.io/dockercfg" => registry_config(errors, data, ".dockercfg"),
        "kubernetes.io/service-account-token" => {
            let annotation = "kubernetes.io/service-account.name";
            let name = secret.metadata.annotations.as_ref().and_then(|annotations| annotations.get(annotation));
            if name.is_none_or(String::is_empty) {
                errors.required(&Path::root("metadata").child("annotations").key(annotation), "");
            }
        }
        _ => {}
    }
}

fn registry_config(errors: &mut Errors, data: &BTreeMap<String, ByteString>, key: &str) {
    let path = Path::root("data");
    let path = path.key(key);
    match data.get(key) {
        None => errors.required(&path, ""),
        Some(content) => {
            if let Err(error) = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&content.0) {
                // The content is secret: it is not shown.
                errors.invalid(&path, "<secret contents redacted>", error.to_string());
            }
        }
    }
}

fn key_rules(errors: &mut Errors, field: &str, key: &str) {
    for fault in names::config_key(key) {
        errors.invalid(&Path::root(field).key(key), key, fault);
    }
}

fn still_immutable(errors: &mut Errors, immutable: Option<bool>) {
    if immutable != Some(true) {
        errors.forbidden(&Path::root("immutable"), "field is immutable when `immutable` is set");
    }
}

fn same(errors: &mut Errors, field: &str, is_same: bool) {
    if !is_same {
        errors.forbidden(&Path::root(field), "field is immutable when `immutable` is set");
    }
}

/// An absent map is an empty one.
fn pairs<V>(map: Option<&BTreeMap<String, V>>) -> Vec<(&String, &V)> {
    map.into_iter().flatten().collect()
}
