//! Rules for security contexts.

use k8s_openapi::api::core::v1::{PodSecurityContext, SeccompProfile, SecurityContext};

use super::apparmor::app_armor_profile;
use super::names;
use crate::field::{Errors, Path};

pub(super) fn pod_security_context(errors: &mut Errors, path: &Path<'_>, context: &PodSecurityContext) {
    id(errors, &path.child("runAsUser"), context.run_as_user);
    id(errors, &path.child("runAsGroup"), context.run_as_group);
    id(errors, &path.child("fsGroup"), context.fs_group);
    if let Some(policy) = context.fs_group_change_policy.as_deref() {
        super::pod::one_of(errors, &path.child("fsGroupChangePolicy"), Some(policy), &["Always", "OnRootMismatch"]);
    }
    if let Some(policy) = context.supplemental_groups_policy.as_deref()
        && !["Merge", "Strict"].contains(&policy)
    {
        errors.not_supported(&path.child("supplementalGroupsPolicy"), policy, &["Merge", "Strict"]);
    }
    for (index, group) in context.supplemental_groups.iter().flatten().enumerate() {
        id(errors, &path.child("supplementalGroups").index(index), Some(*group));
    }
    seccomp_profile(errors, &path.child("seccompProfile"), context.seccomp_profile.as_ref());
    app_armor_profile(errors, &path.child("appArmorProfile"), context.app_armor_profile.as_ref());
}

pub(super) fn security_context(errors: &mut Errors, path: &Path<'_>, context: &SecurityContext) {
    id(errors, &path.child("runAsUser"), context.run_as_user);
    id(errors, &path.child("runAsGroup"), context.run_as_group);
    seccomp_profile(errors, &path.child("seccompProfile"), context.seccomp_profile.as_ref());
    app_armor_profile(errors, &path.child("appArmorProfile"), context.app_armor_profile.as_ref());
    if let Some(kind) = context.proc_mount.as_deref()
        && !["Default", "Unmasked"].contains(&kind)
    {
        errors.not_supported(&path.child("procMount"), kind, &["Default", "Unmasked"]);
    }
    if context.allow_privilege_escalation != Some(false) {
        return;
    }
    let shown = serde_json::to_value(context).unwrap_or_default();
    if context.privileged == Some(true) {
        let fault = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
        errors.invalid(path, shown.clone(), fault);
    }
    let added = context.capabilities.iter().flat_map(|capabilities| capabilities.add.iter().flatten());
    if added.into_iter().any(|name| name == "CAP_SYS_ADMIN") {
        let fault = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
        errors.invalid(path, shown, fault);
    }
}

/// `localhostProfile` belongs to the type `Localhost` and stays below the directory of profiles.
fn seccomp_profile(errors: &mut Errors, path: &Path<'_>, profile: Option<&SeccompProfile>) {
    let Some(profile) = profile else { return };
    profile_type(errors, path, &profile.type_, profile.localhost_profile.as_deref());
    let Some(file) = profile.localhost_profile.as_deref().filter(|_| profile.type_ == LOCALHOST) else { return };
    let path = path.child("localhostProfile");
    if file.starts_with('/') {
        errors.invalid(&path, file, "must be a relative path");
    }
    if file.split('/').any(|part| part == "..") {
        errors.invalid(&path, file, "must not contain '..'");
    }
}

const LOCALHOST: &str = "Localhost";

fn profile_type(errors: &mut Errors, path: &Path<'_>, kind: &str, localhost: Option<&str>) {
    match (kind, localhost) {
        (LOCALHOST, None | Some("")) => {
            errors.required(&path.child("localhostProfile"), "must be set when seccomp type is Localhost");
        }
        (LOCALHOST, Some(_)) | ("RuntimeDefault" | "Unconfined", None) => {}
        ("RuntimeDefault" | "Unconfined", Some(name)) => {
            let fault = "can only be set when seccomp type is Localhost";
            errors.invalid(&path.child("localhostProfile"), name, fault);
        }
        ("", _) => errors.required(&path.child("type"), "type is required when seccompProfile is set"),
        (other, _) => {
            errors.not_supported(&path.child("type"), other, &["Localhost", "RuntimeDefault", "Unconfined"]);
        }
    }
}

fn id(errors: &mut Errors, path: &Path<'_>, id: Option<i64>) {
    let Some(id) = id else { return };
    for fault in names::user_or_group_id(id) {
        errors.invalid(path, id, fault);
    }
}
