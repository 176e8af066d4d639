//! Rules for volumes.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, EmptyDirVolumeSource, HostPathVolumeSource, KeyToPath, ProjectedVolumeSource,
    ServiceAccountTokenProjection, Volume,
};

use super::{env, names, pod};
use crate::claims;
use crate::downward::FieldPath;
use crate::field::{Errors, Path};
use crate::quantity::Quantity;

const HOST_PATH_TYPES: [&str; 8] =
    ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

const LEAST_TOKEN_SECONDS: i64 = 600;
const MOST_TOKEN_SECONDS: i64 = 1 << 32;

/// Checks all volumes; returns the names that mounts may use.
pub(super) fn volumes<'a>(errors: &mut Errors, path: &Path<'_>, volumes: &'a [Volume]) -> HashSet<&'a str> {
    let mut names_seen = HashSet::new();
    for (index, volume) in volumes.iter().enumerate() {
        let path = path.index(index);
        source(errors, &path, volume);
        if volume.name.is_empty() {
            errors.required(&path.child("name"), "");
            continue;
        }
        for fault in names::dns_label(&volume.name) {
            errors.invalid(&path.child("name"), volume.name.as_str(), fault);
        }
        if !names_seen.insert(volume.name.as_str()) {
            errors.duplicate(&path.child("name"), volume.name.as_str());
        }
    }
    names_seen
}

fn source(errors: &mut Errors, path: &Path<'_>, volume: &Volume) {
    let present = [
        ("emptyDir", volume.empty_dir.is_some()),
        ("hostPath", volume.host_path.is_some()),
        ("secret", volume.secret.is_some()),
        ("configMap", volume.config_map.is_some()),
        ("downwardAPI", volume.downward_api.is_some()),
        ("projected", volume.projected.is_some()),
        ("image", volume.image.is_some()),
        ("persistentVolumeClaim", volume.persistent_volume_claim.is_some()),
    ];
    for (field, _) in present.into_iter().filter(|(_, is_present)| *is_present).skip(1) {
        errors.forbidden(&path.child(field), "may not specify more than 1 volume type");
    }
    if let Some(empty_dir) = &volume.empty_dir {
        empty_dir_source(errors, &path.child("emptyDir"), empty_dir);
    }
    if let Some(host_path) = &volume.host_path {
        host_path_source(errors, &path.child("hostPath"), host_path);
    }
    if let Some(secret) = &volume.secret {
        let path = path.child("secret");
        if secret.secret_name.as_deref().unwrap_or_default().is_empty() {
            errors.required(&path.child("secretName"), "");
        }
        files(errors, &path, secret.default_mode, secret.items.as_deref().unwrap_or_default());
    }
    if let Some(config_map) = &volume.config_map {
        let path = path.child("configMap");
        if config_map.name.is_empty() {
            errors.required(&path.child("name"), "");
        }
        files(errors, &path, config_map.default_mode, config_map.items.as_deref().unwrap_or_default());
    }
    if let Some(downward_api) = &volume.downward_api {
        let path = path.child("downwardAPI");
        mode(errors, &path.child("defaultMode"), downward_api.default_mode);
        downward_files(errors, &path.child("items"), downward_api.items.as_deref().unwrap_or_default());
    }
    if let Some(projected) = &volume.projected {
        projected_source(errors, &path.child("projected"), projected);
    }
    if claims::claim_name(volume).is_some_and(str::is_empty) {
        errors.required(&path.child("persistentVolumeClaim").child("claimName"), "");
    }
    if let Some(image) = &volume.image {
        let path = path.child("image");
        if image.reference.as_deref().unwrap_or_default().is_empty() {
            errors.required(&path.child("reference"), "");
        }
        let policy = image.pull_policy.as_deref();
        pod::one_of(errors, &path.child("pullPolicy"), policy, &["Always", "IfNotPresent", "Never"]);
    }
}

fn projected_source(errors: &mut Errors, path: &Path<'_>, projected: &ProjectedVolumeSource) {
    mode(errors, &path.child("defaultMode"), projected.default_mode);
    let mut targets = HashSet::new();
    let list_path = path.child("sources");
    for (index, source) in projected.sources.iter().flatten().enumerate() {
        let source_path = list_path.index(index);
        let mut paths: Vec<&str> = Vec::new();
        let mut count = 0;
        let secret = source.secret.as_ref().map(|secret| ("secret", &secret.name, &secret.items));
        let config_map = source.config_map.as_ref().map(|map| ("configMap", &map.name, &map.items));
        for (field, name, items) in [secret, config_map].into_iter().flatten() {
            count += 1;
            let path = source_path.child(field);
            if name.is_empty() {
                errors.required(&path.child("name"), "");
            }
            let items = items.as_deref().unwrap_or_default();
            key_files(errors, &path.child("items"), items);
            paths.extend(items.iter().map(|item| item.path.as_str()));
        }
        if let Some(downward_api) = &source.downward_api {
            count += 1;
            let items = downward_api.items.as_deref().unwrap_or_default();
            downward_files(errors, &source_path.child("downwardAPI").child("items"), items);
            paths.extend(items.iter().map(|item| item.path.as_str()));
        }
        if let Some(token) = &source.service_account_token {
            count += 1;
            token_source(errors, path, &source_path.child("serviceAccountToken"), token);
        }
        if count > 1 {
            errors.forbidden(&source_path, "may not specify more than 1 volume type");
        }
        for target in paths.into_iter().filter(|target| !target.is_empty()) {
            if !targets.insert(target) {
                errors.invalid(path, target, "conflicting duplicate paths");
            }
        }
    }
}

/// Kubernetes names the path of the volume where the path of the file is wrong.
fn token_source(errors: &mut Errors, volume: &Path<'_>, path: &Path<'_>, token: &ServiceAccountTokenProjection) {
    let seconds = token.expiration_seconds.unwrap_or_default();
    let fault = match seconds {
        ..LEAST_TOKEN_SECONDS => Some("may not specify a duration less than 10 minutes"),
        _ if seconds > MOST_TOKEN_SECONDS => Some("may not specify a duration larger than 2^32 seconds"),
        _ => None,
    };
    if let Some(fault) = fault {
        errors.invalid(&path.child("expirationSeconds"), seconds, fault);
    }
    file_path(errors, &volume.child("path"), &token.path);
}

fn downward_files(errors: &mut Errors, list_path: &Path<'_>, items: &[DownwardAPIVolumeFile]) {
    for (index, item) in items.iter().enumerate() {
        let path = list_path.index(index);
        file_path(errors, &path.child("path"), &item.path);
        mode(errors, &path.child("mode"), item.mode);
        if let Some(field) = &item.field_ref {
            env::field_ref(errors, &path.child("fieldRef"), field, &FieldPath::FOR_VOLUME);
        }
        match (&item.field_ref, &item.resource_field_ref) {
            (Some(_), Some(_)) => {
                let fault = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.invalid(&path, "resource", fault);
            }
            (None, Some(resource)) => {
                let path = path.child("resourceFieldRef");
                if resource.container_name.as_deref().unwrap_or_default().is_empty() {
                    errors.required(&path.child("containerName"), "");
                }
                env::resource_field_ref(errors, &path, resource);
            }
            (None, None) => errors.required(&path, "one of fieldRef and resourceFieldRef is required"),
            (Some(_), None) => {}
        }
    }
}

fn empty_dir_source(errors: &mut Errors, path: &Path<'_>, empty_dir: &EmptyDirVolumeSource) {
    let limit = empty_dir.size_limit.as_ref().map(|limit| Quantity::parse(&limit.0));
    if limit.is_some_and(|limit| limit.is_ok_and(Quantity::is_negative)) {
        errors.forbidden(&path.child("sizeLimit"), "SizeLimit field must be a valid resource quantity");
    }
    if let Some(limit) = &empty_dir.size_limit
        && let Err(error) = Quantity::parse(&limit.0)
    {
        errors.invalid(&path.child("sizeLimit"), limit.0.as_str(), error.to_string());
    }
}

pub(super) fn host_path_source(errors: &mut Errors, path: &Path<'_>, host_path: &HostPathVolumeSource) {
    if host_path.path.is_empty() {
        errors.required(&path.child("path"), "");
        return;
    }
    for fault in names::no_backsteps(&host_path.path) {
        errors.invalid(&path.child("path"), host_path.path.as_str(), fault);
    }
    let kind = host_path.type_.as_deref().unwrap_or_default();
    if !HOST_PATH_TYPES.contains(&kind) {
        errors.not_supported(&path.child("type"), kind, &HOST_PATH_TYPES);
    }
}

fn files(errors: &mut Errors, path: &Path<'_>, default_mode: Option<i32>, items: &[KeyToPath]) {
    mode(errors, &path.child("defaultMode"), default_mode);
    key_files(errors, &path.child("items"), items);
}

fn key_files(errors: &mut Errors, list_path: &Path<'_>, items: &[KeyToPath]) {
    for (index, item) in items.iter().enumerate() {
        let path = list_path.index(index);
        if item.key.is_empty() {
            errors.required(&path.child("key"), "");
        }
        file_path(errors, &path.child("path"), &item.path);
        mode(errors, &path.child("mode"), item.mode);
    }
}

fn file_path(errors: &mut Errors, path: &Path<'_>, text: &str) {
    if text.is_empty() {
        errors.required(path, "");
    }
    for fault in names::descending_path(text) {
        errors.invalid(path, text, fault);
    }
    // Names with two dots belong to the directory that is swapped when the content changes.
    if text.starts_with("..") && !text.starts_with("../") && text != ".." {
        errors.invalid(path, text, "must not start with '..'");
    }
}

fn mode(errors: &mut Errors, path: &Path<'_>, mode: Option<i32>) {
    if let Some(mode) = mode.filter(|mode| !(0..=0o777).contains(mode)) {
        errors.invalid(path, mode, "must be a number between 0 and 0777 (octal), both inclusive");
    }
}
