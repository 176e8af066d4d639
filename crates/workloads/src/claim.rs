//! Which objects are whose: a controller takes what its selector finds and nobody controls, and lets go what it no longer
//! finds (Kubernetes, "ControllerRef").

use serde_json::json;
use spec::k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, OwnerReference};
use spec::label_selector::matches_labels;

use crate::client::{ApiFailure, Client, Object};
use crate::pods::{controller_of, controller_reference};

/// What is to be done about one object.
#[derive(Debug, PartialEq, Eq)]
enum Claim {
    Ours,
    Adopt,
    Release,
    NotOurs,
}

fn claim<O: Object, K: Object>(owner: &O, selector: &LabelSelector, object: &K) -> Claim {
    let meta = object.meta();
    let (found, owner_meta) = (matches_labels(selector, meta.labels.as_ref()), owner.meta());
    let owner_goes = owner_meta.deletion_timestamp.is_some();
    match controller_of(meta) {
        Some(controller) if Some(&controller.uid) != owner_meta.uid.as_ref() => Claim::NotOurs,
        Some(_) if found || owner_goes => Claim::Ours,
        Some(_) => Claim::Release,
        None if found && !owner_goes && meta.deletion_timestamp.is_none() => Claim::Adopt,
        None => Claim::NotOurs,
    }
}

/// The objects of a namespace that are an owner's, after adoptions and releases. `finalizer` is what adopted ones get.
pub async fn claim_all<O: Object, K: Object>(
    client: &Client,
    owner: &O,
    selector: &LabelSelector,
    finalizer: Option<&str>,
) -> Result<Vec<K>, ApiFailure> {
    let namespace = owner.meta().namespace.clone().unwrap_or_default();
    let mut ours = Vec::new();
    for mut object in client.list::<K>(&namespace).await? {
        match claim(owner, selector, &object) {
            Claim::Ours => ours.push(object),
            Claim::NotOurs => {}
            Claim::Adopt => {
                let meta = object.meta_mut();
                meta.owner_references.get_or_insert_default().push(controller_reference(owner));
                if let Some(finalizer) = finalizer {
                    let finalizers = meta.finalizers.get_or_insert_default();
                    if !finalizers.iter().any(|present| present == finalizer) {
                        finalizers.push(finalizer.to_owned());
                    }
                }
                write(client, &namespace, &object, finalizer.is_some()).await?;
                ours.push(object);
            }
            Claim::Release => {
                let meta = object.meta_mut();
                let ours = |one: &OwnerReference| Some(&one.uid) == owner.meta().uid.as_ref();
                meta.owner_references.get_or_insert_default().retain(|one| !ours(one));
                if let Some(finalizer) = finalizer {
                    meta.finalizers.get_or_insert_default().retain(|present| present != finalizer);
                }
                write(client, &namespace, &object, finalizer.is_some()).await?;
            }
        }
    }
    Ok(ours)
}

async fn write<K: Object>(
    client: &Client,
    namespace: &str,
    object: &K,
    with_finalizers: bool,
) -> Result<(), ApiFailure> {
    let meta = object.meta();
    let owners = meta.owner_references.as_ref().filter(|list| !list.is_empty());
    let mut change = json!({"ownerReferences": owners, "resourceVersion": meta.resource_version});
    if let Some(fields) = change.as_object_mut().filter(|_| with_finalizers) {
        fields.insert("finalizers".to_owned(), json!(meta.finalizers.as_ref().filter(|list| !list.is_empty())));
    }
    client.patch_meta::<K>(namespace, meta, change).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use spec::k8s_openapi::api::apps::v1::ReplicaSet;
    use spec::k8s_openapi::api::core::v1::Pod;

    #[test]
    fn a_selector_and_a_controller_decide_whose_a_pod_is() {
        let set = |going: bool| -> ReplicaSet {
            let time = going.then_some("2026-01-01T00:00:00Z");
            serde_json::from_value(
                json!({"metadata": {"name": "s", "uid": "1", "deletionTimestamp": time}, "spec": {}}),
            )
            .unwrap()
        };
        let pod = |label: &str, controller: Option<&str>| -> Pod {
            let owner = |uid| json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "s", "uid": uid, "controller": true}]);
            serde_json::from_value(
                json!({"metadata": {"labels": {"app": label}, "ownerReferences": controller.map(owner)}}),
            )
            .unwrap()
        };
        let selector =
            LabelSelector { match_labels: Some([("app".to_owned(), "a".to_owned())].into()), match_expressions: None };
        let cases = vec![
            (false, pod("a", Some("1")), Claim::Ours),
            (false, pod("a", Some("2")), Claim::NotOurs),
            (false, pod("b", Some("1")), Claim::Release),
            (true, pod("b", Some("1")), Claim::Ours),
            (false, pod("a", None), Claim::Adopt),
            (true, pod("a", None), Claim::NotOurs),
            (false, pod("b", None), Claim::NotOurs),
        ];
        for (going, pod, want) in cases {
            assert_eq!(claim(&set(going), &selector, &pod), want, "{pod:?}");
        }
    }
}
