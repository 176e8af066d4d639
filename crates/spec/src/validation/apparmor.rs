//! Rules for AppArmor profiles, and for the annotations that came before the fields.

use k8s_openapi::api::core::v1::{AppArmorProfile, PodSpec, SecurityContext};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::apparmor::{ANNOTATION, LOCALHOST, RUNTIME_DEFAULT, UNCONFINED, is_windows};
use crate::field::{Errors, Path};

/// Bytes of a profile's name: those of a path.
const MAX_NAME: usize = 4095;

/// Whether a profile is one that the API takes.
pub(crate) fn is_valid_app_armor_profile(profile: &AppArmorProfile) -> bool {
    let mut errors = Errors::default();
    app_armor_profile(&mut errors, &Path::root("appArmorProfile"), Some(profile));
    errors.is_empty()
}

pub(super) fn app_armor_profile(errors: &mut Errors, path: &Path<'_>, profile: Option<&AppArmorProfile>) {
    let Some(profile) = profile else { return };
    let name_path = path.child("localhostProfile");
    match (profile.type_.as_str(), profile.localhost_profile.as_deref()) {
        ("Localhost", None | Some("")) => {
            errors.required(&name_path, "must be set when AppArmor type is Localhost");
        }
        ("Localhost", Some(name)) => {
            if name.trim() != name {
                errors.invalid(&name_path, name, "must not be padded with whitespace");
            }
            if name.len() > MAX_NAME {
                errors.too_long(&name_path, MAX_NAME);
            }
        }
        ("RuntimeDefault" | "Unconfined", None) => {}
        ("RuntimeDefault" | "Unconfined", Some(name)) => {
            errors.invalid(&name_path, name, "can only be set when AppArmor type is Localhost");
        }
        ("", _) => errors.required(&path.child("type"), "type is required when appArmorProfile is set"),
        (other, _) => {
            errors.not_supported(&path.child("type"), other, &["Localhost", "RuntimeDefault", "Unconfined"]);
        }
    }
}

/// What annotations say is well-formed, and for a container of the Pod. `path` is that of `annotations`.
pub(super) fn annotations(errors: &mut Errors, path: &Path<'_>, metadata: &ObjectMeta, spec: &PodSpec) {
    for (key, value) in metadata.annotations.iter().flatten() {
        let Some(container) = key.strip_prefix(ANNOTATION) else { continue };
        if !contexts(spec).any(|(_, _, name, _)| name == container) {
            errors.invalid(&path.key(key), container, "container not found");
        }
        let known = ["", RUNTIME_DEFAULT, UNCONFINED].contains(&value.as_str()) || value.starts_with(LOCALHOST);
        if !known {
            errors.invalid(&path.key(key), value.as_str(), format!("invalid AppArmor profile name: {value:?}"));
        }
    }
}

/// Of a new Pod: where both speak, annotation and field say the same. `path` is that of `spec`.
pub(super) fn annotations_match_fields(errors: &mut Errors, path: &Path<'_>, metadata: &ObjectMeta, spec: &PodSpec) {
    if is_windows(spec) {
        return;
    }
    let for_all = spec.security_context.as_ref().and_then(|context| context.app_armor_profile.as_ref());
    for (list, index, name, context) in contexts(spec) {
        let own = context.and_then(|context| context.app_armor_profile.as_ref());
        let annotation = metadata.annotations.as_ref().and_then(|all| all.get(&format!("{ANNOTATION}{name}")));
        let (Some(profile), Some(annotation)) = (own.or(for_all), annotation) else { continue };
        let list = path.child(list);
        let container = list.index(index);
        let context = container.child("securityContext");
        let path = context.child("appArmorProfile");
        let (same_type, same_name) = match profile.type_.as_str() {
            "Unconfined" => (annotation == UNCONFINED, true),
            "RuntimeDefault" => (annotation == RUNTIME_DEFAULT, true),
            "Localhost" => {
                let name = annotation.strip_prefix(LOCALHOST);
                (name.is_some(), name == profile.localhost_profile.as_deref())
            }
            _ => (true, true),
        };
        if !same_type {
            errors.forbidden(&path.child("type"), "apparmor type in annotation and field must match");
        } else if !same_name {
            errors.forbidden(&path.child("localhostProfile"), "apparmor profile in annotation and field must match");
        }
    }
}

/// Of an update: what annotations say stays. `path` is that of `annotations`.
pub(super) fn changed_annotations(errors: &mut Errors, path: &Path<'_>, new: &ObjectMeta, old: &ObjectMeta) {
    let value = |metadata: &ObjectMeta, key: &str| metadata.annotations.as_ref()?.get(key).cloned();
    let ours = |metadata: &ObjectMeta| -> Vec<String> {
        let keys = metadata.annotations.iter().flatten().map(|(key, _)| key);
        keys.filter(|key| key.starts_with(ANNOTATION)).cloned().collect()
    };
    for key in ours(old).iter().filter(|key| value(new, key) != value(old, key)) {
        errors.forbidden(&path.key(key), "may not remove or update AppArmor annotations");
    }
    for key in ours(new).iter().filter(|key| value(old, key).is_none()) {
        errors.forbidden(&path.key(key), "may not add AppArmor annotations");
    }
}

/// List, place in it, name and security context of each container, of whatever kind.
fn contexts(spec: &PodSpec) -> impl Iterator<Item = (&'static str, usize, &str, Option<&SecurityContext>)> {
    let init = spec.init_containers.iter().flatten().enumerate();
    let init = init.map(|(index, it)| ("initContainers", index, it.name.as_str(), it.security_context.as_ref()));
    let app = spec.containers.iter().enumerate();
    let app = app.map(|(index, it)| ("containers", index, it.name.as_str(), it.security_context.as_ref()));
    let ephemeral = spec.ephemeral_containers.iter().flatten().enumerate();
    let ephemeral =
        ephemeral.map(|(index, it)| ("ephemeralContainers", index, it.name.as_str(), it.security_context.as_ref()));
    init.chain(app).chain(ephemeral)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn messages(errors: Errors) -> Vec<String> {
        errors.into_vec().iter().map(ToString::to_string).collect()
    }

    fn of_field(profile: Value) -> Vec<String> {
        let mut errors = Errors::default();
        let profile = serde_json::from_value(profile).unwrap();
        app_armor_profile(&mut errors, &Path::root("p"), Some(&profile));
        messages(errors)
    }

    #[test]
    fn a_profile_has_a_name_when_it_is_of_the_machine() {
        let long = "x".repeat(4096);
        let table = [
            (json!({"type": "RuntimeDefault"}), None),
            (json!({"type": "Unconfined"}), None),
            (json!({"type": "Localhost", "localhostProfile": "a b"}), None),
            (
                json!({"type": "Localhost"}),
                Some("p.localhostProfile: Required value: must be set when AppArmor type is Localhost"),
            ),
            (
                json!({"type": "Localhost", "localhostProfile": ""}),
                Some("p.localhostProfile: Required value: must be set when AppArmor type is Localhost"),
            ),
            (
                json!({"type": "Localhost", "localhostProfile": " a"}),
                Some("p.localhostProfile: Invalid value: \" a\": must not be padded with whitespace"),
            ),
            (
                json!({"type": "Localhost", "localhostProfile": long}),
                Some("p.localhostProfile: Too long: may not be more than 4095 bytes"),
            ),
            (
                json!({"type": "Unconfined", "localhostProfile": "a"}),
                Some("p.localhostProfile: Invalid value: \"a\": can only be set when AppArmor type is Localhost"),
            ),
            (json!({"type": ""}), Some("p.type: Required value: type is required when appArmorProfile is set")),
            (
                json!({"type": "Default"}),
                Some(
                    "p.type: Unsupported value: \"Default\": supported values: \"Localhost\", \"RuntimeDefault\", \
                     \"Unconfined\"",
                ),
            ),
        ];
        for (profile, message) in table {
            assert_eq!(of_field(profile.clone()), message.into_iter().collect::<Vec<_>>(), "{profile}");
        }
    }

    fn metadata(annotations: &[(&str, &str)]) -> ObjectMeta {
        let annotations = annotations.iter().map(|(name, value)| (format!("{ANNOTATION}{name}"), (*value).to_owned()));
        ObjectMeta { annotations: Some(annotations.collect()), ..ObjectMeta::default() }
    }

    #[expect(clippy::needless_pass_by_value, reason = "`json!` is easier to read without a borrow")]
    fn spec(for_all: Value, own: Value) -> PodSpec {
        let context = json!({"appArmorProfile": own});
        serde_json::from_value(json!({
            "securityContext": {"appArmorProfile": for_all},
            "containers": [{"name": "app", "securityContext": context}],
            "initContainers": [{"name": "init"}],
        }))
        .unwrap()
    }

    #[test]
    fn annotations_are_for_a_container_and_known() {
        let path = Path::root("metadata");
        let check = |annotations_of: &[(&str, &str)]| {
            let mut errors = Errors::default();
            annotations(
                &mut errors,
                &path.child("annotations"),
                &metadata(annotations_of),
                &spec(Value::Null, Value::Null),
            );
            messages(errors)
        };
        assert!(check(&[("app", "localhost/x"), ("init", "")]).is_empty());
        let key = format!("metadata.annotations[{ANNOTATION}");
        assert_eq!(
            check(&[("web", "unconfined")]),
            [format!("{key}web]: Invalid value: \"web\": container not found")]
        );
        assert_eq!(
            check(&[("app", "docker/default")]),
            [format!(
                "{key}app]: Invalid value: \"docker/default\": invalid AppArmor profile name: \"docker/default\""
            )]
        );
    }

    #[test]
    fn annotation_and_field_say_the_same() {
        let (none, default) = (Value::Null, json!({"type": "RuntimeDefault"}));
        let named = json!({"type": "Localhost", "localhostProfile": "x"});
        let other_type = "spec.containers[0].securityContext.appArmorProfile.type: Forbidden: apparmor type in annotation and \
                          field must match";
        let other_name = "spec.containers[0].securityContext.appArmorProfile.localhostProfile: Forbidden: apparmor profile in \
                          annotation and field must match";
        let table = [
            ("runtime/default", &none, &none, None),
            ("runtime/default", &none, &default, None),
            ("localhost/x", &default, &named, None),
            ("unconfined", &default, &none, Some(other_type)),
            ("runtime/default", &none, &named, Some(other_type)),
            ("localhost/y", &none, &named, Some(other_name)),
        ];
        for (annotation, for_all, own, message) in table {
            let mut errors = Errors::default();
            let metadata = metadata(&[("app", annotation)]);
            let spec = spec(for_all.clone(), own.clone());
            annotations_match_fields(&mut errors, &Path::root("spec"), &metadata, &spec);
            assert_eq!(messages(errors), message.into_iter().collect::<Vec<_>>(), "{annotation} {for_all} {own}");
        }
    }

    #[test]
    fn annotations_stay_as_they_are() {
        let (path, old) = (Path::root("annotations"), metadata(&[("app", "unconfined")]));
        let check = |new: &[(&str, &str)]| {
            let mut errors = Errors::default();
            changed_annotations(&mut errors, &path, &metadata(new), &old);
            messages(errors)
        };
        assert!(check(&[("app", "unconfined")]).is_empty());
        let changed = format!("annotations[{ANNOTATION}app]: Forbidden: may not remove or update AppArmor annotations");
        for new in [&[][..], &[("app", "runtime/default")]] {
            assert_eq!(check(new), [changed.as_str()]);
        }
        let added = format!("annotations[{ANNOTATION}init]: Forbidden: may not add AppArmor annotations");
        assert_eq!(check(&[("app", "unconfined"), ("init", "unconfined")]), [added]);
    }
}
