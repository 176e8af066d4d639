//! What may change through the door `resize`: CPU and memory of containers that run (KEP-1287), and of their Pod as a whole
//! (KEP-5419).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as RawQuantity;

use super::pod;
use crate::field::{Errors, FieldError, Path};
use crate::ordered::map_of;
use crate::qos::qos_class;

type List = BTreeMap<String, RawQuantity>;

/// Checks a resize, both Pods with their defaults; nothing but resources and resize policies differs.
pub fn validate_pod_resize(new: &Pod, old: &Pod) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let path = Path::root("spec");
    let empty = PodSpec::default();
    let (new_spec, old_spec) = (new.spec.as_ref().unwrap_or(&empty), old.spec.as_ref().unwrap_or(&empty));
    pod::pod_spec(&mut errors, &path, new_spec);
    if qos_class(new) != qos_class(old) {
        // The one that it keeps is named.
        let fault = "Pod QOS Class may not change as a result of resizing";
        errors.invalid(&path, qos_class(old).as_str(), fault);
    }
    let mut is_fixed = true;
    is_fixed &=
        requirements(&mut errors, &path.child("resources"), new_spec.resources.as_ref(), old_spec.resources.as_ref());
    for (list, new, old) in [
        ("containers", new_spec.containers.as_slice(), old_spec.containers.as_slice()),
        (
            "initContainers",
            new_spec.init_containers.as_deref().unwrap_or_default(),
            old_spec.init_containers.as_deref().unwrap_or_default(),
        ),
    ] {
        let path = path.child(list);
        if !new.iter().map(|container| &container.name).eq(old.iter().map(|container| &container.name)) {
            errors.forbidden(&path, format!("{list} may not be added or removed on resize"));
            continue;
        }
        for (index, (new, old)) in new.iter().zip(old).enumerate() {
            let path = path.index(index);
            let may_change = list == "containers" || new.restart_policy.as_deref() == Some("Always");
            if !may_change && new.resources != old.resources {
                errors.forbidden(&path.child("resources"), "init containers other than sidecars cannot be resized");
            }
            is_fixed &= new.resize_policy == old.resize_policy;
            is_fixed &=
                requirements(&mut errors, &path.child("resources"), new.resources.as_ref(), old.resources.as_ref());
        }
    }
    if !is_fixed {
        errors.forbidden(&path, "only cpu and memory resources are mutable");
    }
    errors.into_vec()
}

/// Whether all but processor and memory is as before.
fn requirements(
    errors: &mut Errors,
    path: &Path<'_>,
    new: Option<&ResourceRequirements>,
    old: Option<&ResourceRequirements>,
) -> bool {
    let lists = |resources: Option<&ResourceRequirements>| {
        let resources = resources.cloned().unwrap_or_default();
        [("limits", resources.limits.unwrap_or_default()), ("requests", resources.requests.unwrap_or_default())]
    };
    let mut is_fixed = true;
    for ((name, new), (_, old)) in lists(new).into_iter().zip(lists(old)) {
        is_fixed &= list(errors, &path.child(name), name, &new, &old);
    }
    is_fixed
}

fn list(errors: &mut Errors, path: &Path<'_>, name: &str, new: &List, old: &List) -> bool {
    let mutable = |resource: &String| ["cpu", "memory"].contains(&resource.as_str());
    let fixed = |list: &List| -> List {
        let kept = list.iter().filter(|(resource, _)| !mutable(resource));
        map_of(kept.map(|(name, amount)| (name.clone(), amount.clone())))
    };
    if old.keys().any(|resource| mutable(resource) && !new.contains_key(resource)) {
        errors.forbidden(path, format!("resource {name} cannot be removed"));
    }
    fixed(new) == fixed(old)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(resources: &Value) -> Pod {
        let mut pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "default"},
            "spec": {"containers": [{"name": "a", "image": "i", "resources": resources}]},
        }))
        .unwrap();
        crate::defaults::default_pod(&mut pod);
        pod
    }

    #[test]
    fn cpu_and_memory_change_and_nothing_else_does() {
        let burstable = json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "2Gi"}});
        let full = json!({"limits": {"cpu": "1", "memory": "1Gi"}});
        let at = "spec.containers[0].resources";
        let table = [
            (&burstable, json!({"requests": {"cpu": "2", "memory": "2Gi"}, "limits": {"memory": "3Gi"}}), vec![]),
            (
                &burstable,
                json!({"requests": {"cpu": "2", "memory": "1Gi"}, "limits": {"memory": "2Gi", "cpu": "4"}}),
                vec![],
            ),
            (&burstable, json!({"requests": {"cpu": "1"}, "limits": {"memory": "2Gi"}}), vec![]),
            (
                &burstable,
                json!({"requests": {"cpu": "1", "memory": "1Gi"}}),
                vec![format!("{at}.limits: Forbidden: resource limits cannot be removed")],
            ),
            (
                &full,
                json!({"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}}),
                vec![
                    "spec: Invalid value: \"Guaranteed\": Pod QOS Class may not change as a result of resizing"
                        .to_owned(),
                ],
            ),
            (
                &burstable,
                json!({"requests": {"cpu": "1", "memory": "1Gi", "ephemeral-storage": "1Gi"}, "limits": {"memory": "2Gi"}}),
                vec!["spec: Forbidden: only cpu and memory resources are mutable".to_owned()],
            ),
            (
                &burstable,
                json!({"requests": {"cpu": "1", "memory": "3Gi"}, "limits": {"memory": "2Gi"}}),
                vec![format!(
                    "{at}.requests: Invalid value: \"3Gi\": must be less than or equal to memory limit of 2Gi"
                )],
            ),
        ];
        for (old, new, expected) in table {
            let said = validate_pod_resize(&pod(&new), &pod(old));
            assert_eq!(said.iter().map(ToString::to_string).collect::<Vec<_>>(), expected, "{new}");
        }
    }

    #[test]
    fn containers_and_their_policies_stay() {
        let old = pod(&json!({"requests": {"cpu": "1"}}));
        let said = |change: &dyn Fn(&mut PodSpec)| {
            let mut new = old.clone();
            change(new.spec.as_mut().unwrap());
            let errors = validate_pod_resize(&new, &old);
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let policy = |spec: &mut PodSpec| {
            let wanted = json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]);
            spec.containers[0].resize_policy = serde_json::from_value(wanted).unwrap();
        };
        assert_eq!(said(&policy), ["spec: Forbidden: only cpu and memory resources are mutable"]);
        let added = |spec: &mut PodSpec| {
            let mut another = spec.containers[0].clone();
            another.name = "b".to_owned();
            spec.containers.push(another);
        };
        let fault = "spec.containers: Forbidden: containers may not be added or removed on resize";
        assert_eq!(said(&added), [fault]);
    }
}
