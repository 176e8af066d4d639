//! Rules for objects that mirror static Pods: the node makes them, and their file alone changes them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;

use crate::field::{Errors, Path};
use crate::mirror::MIRROR;

/// A client's new Pod is no mirror.
pub(super) fn new_pod(errors: &mut Errors, pod: &Pod) {
    if mark(pod).is_some() {
        let (metadata, fault) = (Path::root("metadata"), "only a file on the node makes a static Pod");
        errors.forbidden(&metadata.child("annotations").key(MIRROR), fault);
    }
}

/// What a mirror says of its Pod stays, and a Pod stays what it is.
pub(super) fn changed_pod(errors: &mut Errors, new: &Pod, old: &Pod) {
    if mark(new) != mark(old) {
        let (metadata, fault) = (Path::root("metadata"), "may not be added, changed or removed");
        errors.forbidden(&metadata.child("annotations").key(MIRROR), fault);
    } else if mark(old).is_some() && new.spec != old.spec {
        errors.forbidden(&Path::root("spec"), "this Pod is static: change its file on the node");
    }
}

fn mark(pod: &Pod) -> Option<&String> {
    pod.metadata.annotations.as_ref().and_then(|annotations: &BTreeMap<String, String>| annotations.get(MIRROR))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[expect(clippy::needless_pass_by_value, reason = "`json!` is easier to read without a borrow")]
    fn pod(annotations: Value, image: &str) -> Pod {
        let spec = json!({"containers": [{"name": "a", "image": image}]});
        serde_json::from_value(json!({"metadata": {"annotations": annotations}, "spec": spec})).unwrap()
    }

    fn faults(check: impl FnOnce(&mut Errors)) -> Vec<String> {
        let mut errors = Errors::default();
        check(&mut errors);
        errors.into_vec().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn mirrors_are_made_and_changed_by_their_files() {
        let (plain, static_pod) = (pod(json!({}), "i"), pod(json!({MIRROR: "h"}), "i"));
        assert!(faults(|errors| new_pod(errors, &plain)).is_empty());
        let fault = faults(|errors| new_pod(errors, &static_pod));
        assert_eq!(
            fault,
            [
                "metadata.annotations[kubernetes.io/config.mirror]: Forbidden: only a file on the node makes a static Pod"
            ]
        );
        assert!(
            faults(|errors| changed_pod(errors, &pod(json!({MIRROR: "h", "mine": "1"}), "i"), &static_pod)).is_empty()
        );
        for (new, old) in [(&plain, &static_pod), (&static_pod, &plain)] {
            assert!(faults(|errors| changed_pod(errors, new, old))[0].contains("may not be added, changed or removed"));
        }
        let other = pod(json!({MIRROR: "h"}), "other");
        let expected = ["spec: Forbidden: this Pod is static: change its file on the node"];
        assert_eq!(faults(|errors| changed_pod(errors, &other, &static_pod)), expected);
    }
}
