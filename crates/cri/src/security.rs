//! What a container may do, as CRI has it and as the runtime has it.

use std::path::{Path, PathBuf};

use runtime::{AppArmorProfile, PidMode, SeccompProfile, SecurityConfig};
use spec::ContainerId;
use tonic::Status;

use crate::errors::{invalid, unsupported};
use crate::proto::security_profile::ProfileType;
use crate::proto::{Int64Value, LinuxContainerSecurityContext, NamespaceMode, SeLinuxOption, SupplementalGroupsPolicy};
use crate::sandbox_config::namespace_mode;

const FIELD: &str = "config.linux.security_context";
/// Stands before names of the machine's profiles, by old and careless callers.
const LOCALHOST: &str = "localhost/";

/// Translates.
pub fn translate(context: &LinuxContainerSecurityContext) -> Result<SecurityConfig, Status> {
    refuse_unknown(context)?;
    let capabilities = context.capabilities.clone().unwrap_or_default();
    let run_as_user = id("run_as_user", context.run_as_user.as_ref())?;
    let run_as_group = id("run_as_group", context.run_as_group.as_ref())?;
    let username = Some(context.run_as_username.clone()).filter(|name| !name.is_empty());
    if run_as_group.is_some() && run_as_user.is_none() && username.is_none() {
        return Err(invalid(&format!("{FIELD}.run_as_group"), "it needs run_as_user or run_as_username beside it"));
    }
    let groups = context.supplemental_groups.iter().map(|gid| unix_id("supplemental_groups", *gid));
    Ok(SecurityConfig {
        run_as_user,
        run_as_username: username.filter(|_| run_as_user.is_none()),
        run_as_group,
        // The kubelet has judged it.
        run_as_non_root: false,
        supplemental_groups: groups.collect::<Result<_, _>>()?,
        strict_groups: context.supplemental_groups_policy() == SupplementalGroupsPolicy::Strict,
        add_capabilities: without_prefix(&capabilities.add_capabilities),
        drop_capabilities: without_prefix(&capabilities.drop_capabilities),
        privileged: context.privileged,
        unmasked: false,
        masked_paths: paths("masked_paths", &context.masked_paths)?,
        read_only_paths: paths("readonly_paths", &context.readonly_paths)?,
        no_new_privileges: context.no_new_privs,
        read_only_rootfs: context.readonly_rootfs,
        seccomp: seccomp(context)?,
        apparmor: apparmor(context)?,
    })
}

/// Whose processes it sees. POD is the protocol's zero.
pub fn pid_mode(context: &LinuxContainerSecurityContext) -> Result<PidMode, Status> {
    let options = context.namespace_options.clone().unwrap_or_default();
    Ok(match namespace_mode("pid", options.pid)? {
        NamespaceMode::Pod => PidMode::Pod,
        NamespaceMode::Container => PidMode::Container,
        NamespaceMode::Node => PidMode::Host,
        NamespaceMode::Target => PidMode::Target(ContainerId::new(options.target_id)),
    })
}

fn refuse_unknown(context: &LinuxContainerSecurityContext) -> Result<(), Status> {
    let refuse = |field: &str, why: &str| Err(unsupported(&format!("{FIELD}.{field}"), why));
    if context.selinux_options.as_ref().is_some_and(|labels| *labels != SeLinuxOption::default()) {
        return refuse("selinux_options", "SELinux labels are not set here");
    }
    if context.capabilities.as_ref().is_some_and(|it| !it.add_ambient_capabilities.is_empty()) {
        return refuse("capabilities.add_ambient_capabilities", "ambient capabilities are not given");
    }
    Ok(())
}

fn id(field: &str, value: Option<&Int64Value>) -> Result<Option<u32>, Status> {
    value.map(|id| unix_id(field, id.value)).transpose()
}

fn unix_id(field: &str, id: i64) -> Result<u32, Status> {
    u32::try_from(id)
        .map_err(|error| invalid(&format!("{FIELD}.{field}"), format!("{id} is no id of the kernel: {error}")))
}

/// The kubelet passes what a Pod says; others say `CAP_CHOWN`.
fn without_prefix(names: &[String]) -> Vec<String> {
    names.iter().map(|name| name.strip_prefix("CAP_").unwrap_or(name).to_owned()).collect()
}

/// An empty list cannot be told from none: it is the usual one.
fn paths(field: &str, list: &[String]) -> Result<Option<Vec<PathBuf>>, Status> {
    let checked = |path: &String| match Path::new(path) {
        absolute if absolute.is_absolute() => Ok(absolute.to_owned()),
        _ => Err(invalid(&format!("{FIELD}.{field}"), format!("{path:?} is not an absolute path"))),
    };
    let paths: Vec<PathBuf> = list.iter().map(checked).collect::<Result<_, _>>()?;
    Ok((!paths.is_empty()).then_some(paths))
}

fn seccomp(context: &LinuxContainerSecurityContext) -> Result<SeccompProfile, Status> {
    if let Some(profile) = &context.seccomp {
        return Ok(match profile.profile_type() {
            ProfileType::RuntimeDefault => SeccompProfile::RuntimeDefault,
            ProfileType::Unconfined => SeccompProfile::Unconfined,
            ProfileType::Localhost => seccomp_file(&profile.localhost_ref)?,
        });
    }
    #[expect(deprecated, reason = "callers of old may still say it")]
    let path = context.seccomp_profile_path.as_str();
    match path {
        "" | "unconfined" => Ok(SeccompProfile::Unconfined),
        "runtime/default" | "docker/default" => Ok(SeccompProfile::RuntimeDefault),
        path => seccomp_file(path.strip_prefix(LOCALHOST).unwrap_or(path)),
    }
}

fn seccomp_file(path: &str) -> Result<SeccompProfile, Status> {
    match Path::new(path) {
        absolute if absolute.is_absolute() => Ok(SeccompProfile::File(absolute.to_owned())),
        _ => Err(invalid(&format!("{FIELD}.seccomp.localhost_ref"), format!("{path:?} is not an absolute path"))),
    }
}

/// What containerd makes of it; who says nothing leaves it to the runtime.
fn apparmor(context: &LinuxContainerSecurityContext) -> Result<AppArmorProfile, Status> {
    if let Some(profile) = &context.apparmor {
        return match profile.profile_type() {
            ProfileType::RuntimeDefault => Ok(AppArmorProfile::RuntimeDefault),
            ProfileType::Unconfined => Ok(AppArmorProfile::Unconfined),
            ProfileType::Localhost => localhost_apparmor("apparmor.localhost_ref", &profile.localhost_ref),
        };
    }
    #[expect(deprecated, reason = "callers of old may still say it")]
    let old = context.apparmor_profile.as_str();
    match old {
        "" => Ok(AppArmorProfile::Unset),
        "unconfined" => Ok(AppArmorProfile::Unconfined),
        "runtime/default" => Ok(AppArmorProfile::RuntimeDefault),
        name if name.starts_with(LOCALHOST) => localhost_apparmor("apparmor_profile", name),
        other => Err(invalid(&format!("{FIELD}.apparmor_profile"), format!("{other:?} is no kind of profile"))),
    }
}

fn localhost_apparmor(field: &str, name: &str) -> Result<AppArmorProfile, Status> {
    match name.strip_prefix(LOCALHOST).unwrap_or(name) {
        "" => Err(invalid(&format!("{FIELD}.{field}"), "the profile has no name")),
        name => Ok(AppArmorProfile::Localhost(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::SecurityProfile;

    #[test]
    fn apparmor_profiles_are_told_in_both_ways() {
        let new = |profile_type: ProfileType, name: &str| LinuxContainerSecurityContext {
            apparmor: Some(SecurityProfile { profile_type: profile_type as i32, localhost_ref: name.into() }),
            // The kubelet says it twice; the new way counts.
            #[expect(deprecated, reason = "what is tested")]
            apparmor_profile: "localhost/old".into(),
            ..Default::default()
        };
        #[expect(deprecated, reason = "what is tested")]
        let old = |text: &str| LinuxContainerSecurityContext { apparmor_profile: text.into(), ..Default::default() };
        let own = AppArmorProfile::Localhost("own".into());
        for (context, want) in [
            (old(""), Some(AppArmorProfile::Unset)),
            (old("runtime/default"), Some(AppArmorProfile::RuntimeDefault)),
            (old("unconfined"), Some(AppArmorProfile::Unconfined)),
            (old("localhost/own"), Some(own.clone())),
            (old("localhost/"), None),
            (old("own"), None),
            (new(ProfileType::RuntimeDefault, ""), Some(AppArmorProfile::RuntimeDefault)),
            (new(ProfileType::Unconfined, ""), Some(AppArmorProfile::Unconfined)),
            (new(ProfileType::Localhost, "own"), Some(own.clone())),
            (new(ProfileType::Localhost, "localhost/own"), Some(own)),
            (new(ProfileType::Localhost, ""), None),
        ] {
            assert_eq!(translate(&context).ok().map(|security| security.apparmor), want, "{context:?}");
        }
    }

    #[test]
    fn a_group_alone_is_refused_and_a_number_wins_over_a_name() {
        let value = |value| Some(Int64Value { value });
        let alone = LinuxContainerSecurityContext { run_as_group: value(5), ..Default::default() };
        assert!(translate(&alone).unwrap_err().message().contains("run_as_group"));
        let both = LinuxContainerSecurityContext {
            run_as_user: value(7),
            run_as_username: "web".into(),
            run_as_group: value(5),
            ..Default::default()
        };
        let security = translate(&both).unwrap();
        assert_eq!((security.run_as_user, security.run_as_username, security.run_as_group), (Some(7), None, Some(5)));
        let huge = LinuxContainerSecurityContext { run_as_user: value(1 << 32), ..Default::default() };
        assert!(translate(&huge).unwrap_err().message().contains("4294967296"));
    }

    #[test]
    fn profiles_of_system_calls_are_told_in_both_ways() {
        let new = |profile_type: ProfileType, file: &str| LinuxContainerSecurityContext {
            seccomp: Some(SecurityProfile { profile_type: profile_type as i32, localhost_ref: file.into() }),
            ..Default::default()
        };
        #[expect(deprecated, reason = "what is tested")]
        let old =
            |path: &str| LinuxContainerSecurityContext { seccomp_profile_path: path.into(), ..Default::default() };
        let file = SeccompProfile::File("/p.json".into());
        for (context, want) in [
            (old(""), Some(SeccompProfile::Unconfined)),
            (old("runtime/default"), Some(SeccompProfile::RuntimeDefault)),
            (old("localhost//p.json"), Some(file.clone())),
            (new(ProfileType::RuntimeDefault, ""), Some(SeccompProfile::RuntimeDefault)),
            (new(ProfileType::Unconfined, ""), Some(SeccompProfile::Unconfined)),
            (new(ProfileType::Localhost, "/p.json"), Some(file)),
            (new(ProfileType::Localhost, "p.json"), None),
        ] {
            assert_eq!(translate(&context).ok().map(|security| security.seccomp), want);
        }
    }
}
