//! Rules for security contexts.

use k8s_openapi::api::core::v1::{PodSecurityContext, SecurityContext};

use super::names;
use crate::field::{Errors, Path};

pub(super) fn pod_security_context(errors: &mut Errors, path: &Path<'_>, context: &PodSecurityContext) {
    id(errors, &path.child("runAsUser"), context.run_as_user);
    id(errors, &path.child("runAsGroup"), context.run_as_group);
    id(errors, &path.child("fsGroup"), context.fs_group);
    for (index, group) in context.supplemental_groups.iter().flatten().enumerate() {
        id(errors, &path.child("supplementalGroups").index(index), Some(*group));
    }
}

pub(super) fn security_context(errors: &mut Errors, path: &Path<'_>, context: &SecurityContext) {
    id(errors, &path.child("runAsUser"), context.run_as_user);
    id(errors, &path.child("runAsGroup"), context.run_as_group);
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

fn id(errors: &mut Errors, path: &Path<'_>, id: Option<i64>) {
    let Some(id) = id else { return };
    for fault in names::user_or_group_id(id) {
        errors.invalid(path, id, fault);
    }
}
