//! What a Pod asks of the machine that the machine may not have: a runtime handler, SELinux' labels.

use spec::k8s_openapi::api::core::v1::SELinuxOptions;
use store::{ObjectKey, Store};

use crate::desired::DesiredPod;

/// The one handler that a RuntimeClass can name here, beside the empty one of Pods without a class.
pub const HANDLER: &str = "monopod";

/// Resource name of RuntimeClasses in the store.
const RUNTIME_CLASSES: &str = "runtimeclasses";

/// Why no sandbox is made for a Pod.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnmetNeed {
    /// Its class was deleted after the Pod was admitted.
    #[error("RuntimeClass {0:?} not found")]
    NoClass(String),
    /// Its class is for another runtime.
    #[error(
        "no runtime for {handler:?} is configured: RuntimeClass {class:?} names it, and the only handler here is {HANDLER:?}"
    )]
    NoHandler {
        /// `spec.runtimeClassName`.
        class: String,
        /// The class's `handler`.
        handler: String,
    },
    /// Labels would mean something here, and are not set.
    #[error("{field}: this machine has SELinux, and monopod does not set its labels yet")]
    Labels {
        /// Whose field it is.
        field: String,
    },
}

/// Finds the first need that this machine does not meet.
pub fn check(desired: &DesiredPod, store: &Store, has_selinux: bool) -> Result<(), UnmetNeed> {
    if let Some(class) = desired.spec.runtime_class_name.as_deref().filter(|class| !class.is_empty()) {
        let found = store.get(&ObjectKey::cluster(RUNTIME_CLASSES, class));
        let found = found.ok_or_else(|| UnmetNeed::NoClass(class.to_owned()))?;
        let handler = found.value.pointer("/handler").and_then(serde_json::Value::as_str).unwrap_or_default();
        if handler != HANDLER {
            return Err(UnmetNeed::NoHandler { class: class.to_owned(), handler: handler.to_owned() });
        }
    }
    match labels_wanted(desired) {
        Some(field) if has_selinux => Err(UnmetNeed::Labels { field }),
        Some(_) | None => Ok(()),
    }
}

/// The first field that asks for labels. Without SELinux they change nothing, in Kubernetes as here.
fn labels_wanted(desired: &DesiredPod) -> Option<String> {
    let says = |options: Option<&SELinuxOptions>| options.is_some_and(|options| *options != SELinuxOptions::default());
    let pod = desired.spec.security_context.as_ref().and_then(|context| context.se_linux_options.as_ref());
    if says(pod) {
        return Some("spec.securityContext.seLinuxOptions".to_owned());
    }
    let (_, container) = desired.containers().find(|(_, container)| {
        says(container.security_context.as_ref().and_then(|context| context.se_linux_options.as_ref()))
    })?;
    Some(format!("container {:?}: securityContext.seLinuxOptions", container.name))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{desired_pod, pod};

    #[test]
    fn labels_are_wanted_where_a_level_is_named() {
        let wanted = |pod_options: Value, options: Value| {
            labels_wanted(&desired_pod(&pod(&json!({
                "securityContext": { "seLinuxOptions": pod_options },
                "containers": [{ "name": "app", "image": "app:1", "securityContext": { "seLinuxOptions": options } }],
            }))))
        };
        assert_eq!(wanted(json!({}), Value::Null), None);
        assert_eq!(wanted(json!({ "level": "s0" }), Value::Null).unwrap(), "spec.securityContext.seLinuxOptions");
        let of_container = wanted(Value::Null, json!({ "type": "t" })).unwrap();
        assert_eq!(of_container, "container \"app\": securityContext.seLinuxOptions");
    }
}
