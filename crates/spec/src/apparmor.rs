//! AppArmor profiles as a Pod asks for them: by the field `appArmorProfile` of Pod and container, and by the annotations
//! that came before it.
//!
//! Source: `pkg/security/apparmor` and `pkg/registry/core/pod` of Kubernetes; KEP-24 says how fields and annotations go
//! together.

use k8s_openapi::api::core::v1::{AppArmorProfile, Container, Pod, PodSpec};

/// An annotation of this prefix names the container that it is for.
pub(crate) const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
/// Values of such annotations.
pub(crate) const RUNTIME_DEFAULT: &str = "runtime/default";
pub(crate) const UNCONFINED: &str = "unconfined";
pub(crate) const LOCALHOST: &str = "localhost/";

/// `status.reason` of a Pod that asks for what this machine has not.
pub const NOT_ADMITTED: &str = "AppArmor";

/// The field that an annotation stands for; none if it says nothing that is valid.
pub(crate) fn of_annotation(value: &str) -> Option<AppArmorProfile> {
    let of_type = |name: &str| AppArmorProfile { type_: name.to_owned(), localhost_profile: None };
    match value {
        UNCONFINED => Some(of_type("Unconfined")),
        RUNTIME_DEFAULT => Some(of_type("RuntimeDefault")),
        _ => {
            let name = value.strip_prefix(LOCALHOST)?.to_owned();
            Some(AppArmorProfile { type_: "Localhost".to_owned(), localhost_profile: Some(name) })
        }
    }
}

/// Writes what annotations of a new Pod ask for into the fields of its containers, where those say nothing else, and
/// answers with a warning for each annotation that was needed.
pub fn sync_annotations(pod: &mut Pod) -> Vec<String> {
    let Pod { metadata, spec: Some(spec), .. } = pod else { return Vec::new() };
    let Some(annotations) = metadata.annotations.as_ref().filter(|_| !is_windows(spec)) else { return Vec::new() };
    let for_all = spec.security_context.as_ref().and_then(|context| context.app_armor_profile.clone());
    let mut warnings = Vec::new();
    let plain = spec.init_containers.iter_mut().flatten().chain(&mut spec.containers);
    let plain = plain.map(|container| (&container.name, &mut container.security_context));
    let ephemeral = spec.ephemeral_containers.iter_mut().flatten();
    let ephemeral = ephemeral.map(|container| (&container.name, &mut container.security_context));
    for (name, context) in plain.chain(ephemeral) {
        let key = format!("{ANNOTATION}{name}");
        let Some(value) = annotations.get(&key) else { continue };
        if context.as_ref().is_some_and(|context| context.app_armor_profile.is_some()) {
            continue;
        }
        let profile = of_annotation(value).filter(crate::validation::is_valid_app_armor_profile);
        if profile.is_some() && profile == for_all {
            continue;
        }
        if profile.is_some() {
            context.get_or_insert_default().app_armor_profile = profile;
        }
        let advice = "deprecated since v1.30; use the \"appArmorProfile\" field instead";
        warnings.push(format!("metadata.annotations[{key}]: {advice}"));
    }
    warnings
}

pub(crate) fn is_windows(spec: &PodSpec) -> bool {
    spec.os.as_ref().is_some_and(|os| os.name == "windows")
}

/// The profile that a container is to have: its own, its annotation's (static Pods are not synced), or its Pod's.
pub fn profile_of(pod: &Pod, container: &Container) -> Option<AppArmorProfile> {
    let own = container.security_context.as_ref().and_then(|context| context.app_armor_profile.clone());
    let annotated = || {
        let annotations = pod.metadata.annotations.as_ref()?;
        of_annotation(annotations.get(&format!("{ANNOTATION}{}", container.name))?)
    };
    own.or_else(annotated).or_else(|| pod_profile(pod).cloned())
}

fn pod_profile(pod: &Pod) -> Option<&AppArmorProfile> {
    pod.spec.as_ref()?.security_context.as_ref()?.app_armor_profile.as_ref()
}

/// Whether a machine may run the Pod; `enabled`: it enforces AppArmor. The error is `status.message` in the kubelet's
/// words.
///
/// # Errors
/// The Pod asks for a profile, or names none where it must, and this machine has no AppArmor.
pub fn admit(pod: &Pod, enabled: bool) -> Result<(), String> {
    if !is_required(pod) {
        return Ok(());
    }
    if !enabled {
        return Err("Cannot enforce AppArmor: AppArmor is not enabled on the host".to_owned());
    }
    for container in containers(pod) {
        let profile = profile_of(pod, &container).filter(|profile| profile.type_ == "Localhost");
        let Some(name) = profile.map(|profile| profile.localhost_profile.unwrap_or_default()) else { continue };
        if name.trim().is_empty() {
            return Err(format!(
                "Cannot enforce AppArmor: invalid empty AppArmor profile name: \
                 \"&AppArmorProfile{{Type:Localhost,LocalhostProfile:*{name},}}\""
            ));
        }
    }
    Ok(())
}

/// Somebody has asked for a profile. A container that says nothing gets the default one where there is AppArmor.
fn is_required(pod: &Pod) -> bool {
    let confines = |profile: &AppArmorProfile| profile.type_ != "Unconfined";
    let by_container = |container: &Container| {
        container.security_context.as_ref().and_then(|context| context.app_armor_profile.as_ref()).is_some_and(confines)
    };
    let annotations = pod.metadata.annotations.iter().flatten();
    let mut by_annotation = annotations.filter(|(key, _)| key.starts_with(ANNOTATION));
    pod_profile(pod).is_some_and(confines)
        || containers(pod).iter().any(by_container)
        || by_annotation.any(|(_, value)| value != UNCONFINED)
}

fn containers(pod: &Pod) -> Vec<Container> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let plain = spec.init_containers.iter().flatten().chain(&spec.containers).cloned();
    plain.chain(spec.ephemeral_containers.iter().flatten().map(crate::ephemeral::as_container)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[expect(clippy::needless_pass_by_value, reason = "`json!` is easier to read without a borrow")]
    fn pod(annotations: Value, for_all: Value, own: Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"annotations": annotations},
            "spec": {
                "securityContext": {"appArmorProfile": for_all},
                "containers": [{"name": "a", "securityContext": {"appArmorProfile": own}}, {"name": "b"}],
            },
        }))
        .unwrap()
    }

    fn annotated(value: &str) -> Value {
        json!({format!("{ANNOTATION}a"): value, "other": "x"})
    }

    #[test]
    fn annotations_become_fields_with_a_warning_each() {
        let localhost = json!({"type": "Localhost", "localhostProfile": "x"});
        let (default, none) = (json!({"type": "RuntimeDefault"}), Value::Null);
        let unconfined = json!({"type": "Unconfined"});
        let table = [
            // annotation, the Pod's field, the container's field, what becomes of that, whether somebody is warned
            ("localhost/x", &none, &none, &localhost, true),
            ("runtime/default", &none, &none, &default, true),
            ("unconfined", &none, &none, &unconfined, true),
            ("unconfined", &default, &none, &unconfined, true),
            ("runtime/default", &default, &none, &none, false),
            ("localhost/x", &none, &default, &default, false),
            ("localhost/", &none, &none, &none, true),
            ("localhost/ x", &none, &none, &none, true),
            ("", &none, &none, &none, true),
        ];
        for (annotation, for_all, own, becomes, warned) in table {
            let mut pod = pod(annotated(annotation), for_all.clone(), own.clone());
            let warnings = sync_annotations(&mut pod);
            let object = serde_json::to_value(&pod).unwrap();
            let field = object.pointer("/spec/containers/0/securityContext/appArmorProfile").unwrap_or(&Value::Null);
            assert_eq!((field, warnings.len()), (becomes, usize::from(warned)), "{annotation:?} {for_all} {own}");
            assert_eq!(object.pointer("/spec/containers/1/securityContext"), None);
            for warning in warnings {
                assert_eq!(
                    warning,
                    "metadata.annotations[container.apparmor.security.beta.kubernetes.io/a]: deprecated since v1.30; \
                     use the \"appArmorProfile\" field instead"
                );
            }
        }
        let mut windows = pod(annotated("localhost/x"), none.clone(), none.clone());
        windows.spec.as_mut().unwrap().os = Some(k8s_openapi::api::core::v1::PodOS { name: "windows".to_owned() });
        let before = windows.clone();
        assert_eq!((sync_annotations(&mut windows), windows), (Vec::new(), before));
    }

    #[test]
    fn the_nearest_word_counts() {
        let named = |name: &str| json!({"type": "Localhost", "localhostProfile": name});
        let table = [
            (json!({}), Value::Null, Value::Null, None),
            (json!({}), named("pod"), Value::Null, Some("pod")),
            (annotated("localhost/note"), named("pod"), Value::Null, Some("note")),
            (annotated("localhost/note"), named("pod"), named("own"), Some("own")),
            (annotated("nonsense"), named("pod"), Value::Null, Some("pod")),
        ];
        for (annotations, for_all, own, expected) in table {
            let pod = pod(annotations, for_all, own);
            let container = pod.spec.as_ref().unwrap().containers.first().unwrap();
            let name = profile_of(&pod, container).and_then(|profile| profile.localhost_profile);
            assert_eq!(name.as_deref(), expected);
        }
    }

    #[test]
    fn only_what_asks_for_a_profile_needs_apparmor() {
        let (default, none) = (json!({"type": "RuntimeDefault"}), Value::Null);
        let unconfined = json!({"type": "Unconfined"});
        let refused = Err("Cannot enforce AppArmor: AppArmor is not enabled on the host".to_owned());
        let table = [
            (pod(json!({}), none.clone(), none.clone()), Ok(())),
            (pod(json!({}), unconfined.clone(), unconfined), Ok(())),
            (pod(annotated("unconfined"), none.clone(), none.clone()), Ok(())),
            (pod(annotated("runtime/default"), none.clone(), none.clone()), refused.clone()),
            (pod(json!({}), default.clone(), none.clone()), refused.clone()),
            (pod(json!({}), none.clone(), default), refused),
        ];
        for (pod, without) in table {
            assert_eq!(admit(&pod, false), without, "{pod:?}");
            assert_eq!(admit(&pod, true), Ok(()), "{pod:?}");
        }
        let nameless = pod(annotated("localhost/"), none.clone(), none);
        assert_eq!(
            admit(&nameless, true).unwrap_err(),
            "Cannot enforce AppArmor: invalid empty AppArmor profile name: \
             \"&AppArmorProfile{Type:Localhost,LocalhostProfile:*,}\""
        );
    }
}
