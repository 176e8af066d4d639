//! Rules for what a Pod as a whole asks for (KEP-2837).

use k8s_openapi::api::core::v1::PodSpec;

use super::resources;
use crate::field::{Errors, Path};
use crate::ordered::map_of;
use crate::requests::{ResourceList, amounts, containers_requests, quantities};

/// Whether the list is in order by itself, and what the containers ask for fits into it.
pub(super) fn pod_resources(errors: &mut Errors, path: &Path<'_>, spec: &PodSpec) {
    let Some(own) = &spec.resources else { return };
    let path = path.child("resources");
    if own.claims.is_some() {
        errors.forbidden(&path.child("claims"), "claims may not be set for Resources at pod-level");
    }
    resources::container_resources(errors, &path, own);
    let requests = own.requests.as_ref().map(amounts).unwrap_or_default();
    for (name, sum) in containers_requests(spec) {
        let Some(request) = requests.get(&name).filter(|request| sum > **request) else { continue };
        let fault = format!("must be greater than or equal to aggregate container requests of {}", shown(&name, sum));
        errors.invalid(&path.child("requests").key(&name), shown(&name, *request), fault);
    }
    container_limits(errors, &path, spec, &own.limits.as_ref().map(amounts).unwrap_or_default());
}

/// The place that is named is the API server's.
fn container_limits(errors: &mut Errors, path: &Path<'_>, spec: &PodSpec, most: &ResourceList) {
    let list = path.child("containers");
    for (index, container) in spec.containers.iter().enumerate() {
        let limits = container.resources.as_ref().and_then(|own| own.limits.as_ref()).map(amounts).unwrap_or_default();
        for (name, limit) in limits {
            let Some(most) = most.get(&name).filter(|most| limit > **most) else { continue };
            let fault = format!("must be less than or equal to pod limits of {}", shown(&name, *most));
            let container = list.index(index);
            errors.invalid(&container.key(&name).child("limits"), shown(&name, limit), fault);
        }
    }
}

fn shown(name: &str, amount: i64) -> String {
    let list = map_of([(name.to_owned(), amount)]);
    quantities(&list).into_values().next().map(|quantity| quantity.0).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};

    use super::super::validate_pod;

    #[test]
    fn what_containers_ask_for_fits_into_what_the_pod_asks_for() {
        let said = |own: Value, container: Value| {
            let mut pod: Pod = serde_json::from_value(json!({
                "metadata": {"name": "p", "namespace": "default"},
                "spec": {"containers": [{"name": "a", "image": "i", "resources": container}], "resources": own},
            }))
            .unwrap();
            crate::defaults::default_pod(&mut pod);
            validate_pod(&pod).iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        };
        let table = [
            (json!({"limits": {"cpu": "2", "memory": "1Gi"}}), json!({"limits": {"cpu": "2"}}), ""),
            (
                json!({"requests": {"cpu": "100m"}}),
                json!({"requests": {"cpu": "200m"}}),
                "spec.resources.requests[cpu]: Invalid value: \"100m\": must be greater than or equal to aggregate \
                 container requests of 200m",
            ),
            (
                json!({"limits": {"memory": "1Gi"}}),
                json!({"requests": {"memory": "1Gi"}, "limits": {"memory": "2Gi"}}),
                "spec.resources.containers[0][memory].limits: Invalid value: \"2Gi\": must be less than or equal to pod \
                 limits of 1Gi",
            ),
            (
                json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}),
                json!({}),
                "spec.resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
            ),
        ];
        for (own, container, sentence) in table {
            assert_eq!(said(own.clone(), container.clone()), sentence, "{own} {container}");
        }
    }
}
