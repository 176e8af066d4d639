//! Which container of a Pod a door leads to.

use serde_json::Value;
use spec::{ContainerName, PodRef};

use crate::context::Call;
use crate::fields::{items_at, text_at};
use crate::http::status::ApiError;

/// Finds the Pod and the container that `container=` names; only a Pod with one container needs no name.
pub fn find(call: &Call, name: &str) -> Result<(PodRef, ContainerName), ApiError> {
    let pod = call.context.store.get(&call.key(name)).ok_or_else(|| ApiError::not_found(call.kind, name))?;
    let container = choose(&pod.value, name, call.query.get("container")).map_err(ApiError::bad_request)?;
    Ok((PodRef::new(call.pod_namespace.clone().unwrap_or_default(), name), container))
}

/// Finds the Pod.
pub fn find_pod(call: &Call, name: &str) -> Result<PodRef, ApiError> {
    match call.context.store.get(&call.key(name)) {
        Some(_) => Ok(PodRef::new(call.pod_namespace.clone().unwrap_or_default(), name)),
        None => Err(ApiError::not_found(call.kind, name)),
    }
}

/// As upstream words it; init and ephemeral containers can be named, but are not chosen.
fn choose(pod: &Value, name: &str, wanted: Option<&str>) -> Result<ContainerName, String> {
    let containers = names(pod, "/spec/containers");
    let init = names(pod, "/spec/initContainers");
    let ephemeral = names(pod, "/spec/ephemeralContainers");
    match (wanted, containers.as_slice()) {
        (Some(wanted), _) if containers.iter().chain(&init).chain(&ephemeral).any(|name| *name == wanted) => {
            Ok(ContainerName::new(wanted))
        }
        (Some(wanted), _) => Err(format!("container {wanted} is not valid for pod {name}")),
        (None, [only]) => Ok(ContainerName::new(*only)),
        (None, _) => {
            let mut message =
                format!("a container name must be specified for pod {name}, choose one of: [{}]", containers.join(" "));
            if !init.is_empty() {
                message += " or one of the init containers: [";
                message += &init.join(" ");
                message += "]";
            }
            Err(message)
        }
    }
}

fn names<'a>(pod: &'a Value, path: &str) -> Vec<&'a str> {
    items_at(pod, path).map(|container| text_at(container, "/name")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_container_is_chosen_or_asked_for() {
        let one = json!({"spec": {"containers": [{"name": "a"}], "initContainers": [{"name": "i"}]}});
        let two = json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
        let both = json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}});
        let table = [
            (&one, None, Ok("a")),
            (&one, Some("i"), Ok("i")),
            (&one, Some("x"), Err("container x is not valid for pod p")),
            (&two, Some("b"), Ok("b")),
            (&two, None, Err("a container name must be specified for pod p, choose one of: [a b]")),
            (
                &both,
                None,
                Err(
                    "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]",
                ),
            ),
        ];
        for (pod, wanted, want) in table {
            let found = choose(pod, "p", wanted);
            assert_eq!(found.as_ref().map(ContainerName::as_str).map_err(String::as_str), want);
        }
    }
}
