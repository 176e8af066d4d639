//! Claims to storage, and the volumes that they may have: what the agent and the controller of claims both go by.
//!
//! Source: `pkg/controller/volume/persistentvolume` and `k8s.io/component-helpers/storage/volume` of Kubernetes.

use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim, Volume};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as RawQuantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use crate::label_selector::matches_labels;
use crate::placement::{NodeView, matches_node_selector};
use crate::quantity::Quantity;

/// On a claim: the node whose Pod wants it first.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// On a claim: it has had its volume, and never gets another one.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// On a claim or a volume: its other half was found by the controller, not named by a person.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// On a volume: who made it.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// On a claim: who is to make its volume.
pub const STORAGE_PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
/// On a claim or a volume, as the class was written before there was a field for it.
pub const CLASS_BEFORE_1_6: &str = "volume.beta.kubernetes.io/storage-class";
/// On a class: claims that name none get it.
pub const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

/// Keeps a claim while a Pod has it.
pub const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
/// Keeps a volume while a claim has it.
pub const VOLUME_PROTECTION: &str = "kubernetes.io/pv-protection";

/// The provisioner of this engine: directories of the machine.
pub const LOCAL_PROVISIONER: &str = "monopod/local";
/// The provisioner of classes whose volumes people make.
pub const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// What the JSON of a Pod with a claim has in it.
pub const CLAIM_SOURCE: &str = "\"persistentVolumeClaim\"";

/// The claims that a stored Pod has: from the moment it has its place, until its object is gone.
pub fn claims_of_placed(pod: &Value) -> impl Iterator<Item = &str> {
    let is_placed = pod.pointer("/spec/nodeName").and_then(Value::as_str).is_some_and(|node| !node.is_empty());
    let volumes = pod.pointer("/spec/volumes").filter(|_| is_placed).and_then(Value::as_array).into_iter().flatten();
    volumes.filter_map(|volume| volume.pointer("/persistentVolumeClaim/claimName")?.as_str())
}

/// The claim that a volume of a Pod names.
pub fn claim_name(volume: &Volume) -> Option<&str> {
    volume.persistent_volume_claim.as_ref().map(|source| source.claim_name.as_str())
}

/// The class of a claim; empty: none.
pub fn class_of_claim(claim: &PersistentVolumeClaim) -> &str {
    class(&claim.metadata, claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_ref()))
}

/// The class of a volume; empty: none.
pub fn class_of_volume(volume: &PersistentVolume) -> &str {
    class(&volume.metadata, volume.spec.as_ref().and_then(|spec| spec.storage_class_name.as_ref()))
}

fn class<'a>(metadata: &'a ObjectMeta, field: Option<&'a String>) -> &'a str {
    let annotation = metadata.annotations.as_ref().and_then(|annotations| annotations.get(CLASS_BEFORE_1_6));
    annotation.or(field).map(String::as_str).unwrap_or_default()
}

/// Whether an annotation is there, whatever it says.
pub fn is_annotated(metadata: &ObjectMeta, annotation: &str) -> bool {
    metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(annotation))
}

/// The volume of a claim; empty: none yet.
pub fn volume_name(claim: &PersistentVolumeClaim) -> &str {
    claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default()
}

/// Whether claim and volume have found each other for good.
pub fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    !volume_name(claim).is_empty() && is_annotated(&claim.metadata, BIND_COMPLETED)
}

/// Whether a claim gets its volume only when a Pod wants it.
pub fn waits_for_consumer(class: Option<&StorageClass>) -> bool {
    class.is_some_and(|class| class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"))
}

/// The claim that a volume is kept for, if any.
pub fn claim_ref(volume: &PersistentVolume) -> Option<&ObjectReference> {
    volume.spec.as_ref()?.claim_ref.as_ref()
}

/// Whether a volume is kept for this claim, by its name alone or as its own.
pub fn is_kept_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    claim_ref(volume).is_some_and(|reference| {
        let of_this_one =
            reference.uid.as_ref().is_none_or(|uid| uid.is_empty() || Some(uid) == claim.metadata.uid.as_ref());
        of_this_one && reference.name == claim.metadata.name && reference.namespace == claim.metadata.namespace
    })
}

/// Why a volume that a claim names is none for it; the words are upstream's (`checkVolumeSatisfyClaim()`).
pub fn mismatch(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<&'static str> {
    if capacity(volume) < request(claim) {
        Some("requested PV is too small")
    } else if class_of_volume(volume) != class_of_claim(claim) {
        Some("storageClassName does not match")
    } else if mode_of_volume(volume) != mode_of_claim(claim) {
        Some("incompatible volumeMode")
    } else if !has_access_modes(volume, claim) {
        Some("incompatible accessMode")
    } else {
        None
    }
}

/// The smallest free volume that has all that a claim asks for, or the one that is kept for it; with `only_kept` no other.
/// Volumes of other machines are none.
pub fn find_volume<'a>(
    claim: &PersistentVolumeClaim,
    volumes: impl Iterator<Item = &'a PersistentVolume>,
    node: &NodeView,
    only_kept: bool,
) -> Option<&'a PersistentVolume> {
    let mut smallest: Option<&PersistentVolume> = None;
    for volume in volumes {
        if volume.metadata.deletion_timestamp.is_some()
            || mode_of_volume(volume) != mode_of_claim(claim)
            || capacity(volume) < request(claim)
        {
            continue;
        }
        if is_kept_for(volume, claim) {
            return Some(volume);
        }
        let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
        // A new one is free, too: it only has not been told so.
        let is_free =
            claim_ref(volume).is_none() && phase.is_none_or(|phase| ["Available", "Pending"].contains(&phase));
        if only_kept || !is_free || mismatch(volume, claim).is_some() || !is_of_node(volume, node) {
            continue;
        }
        let selector = claim.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        if selector.is_some_and(|selector| !matches_labels(selector, volume.metadata.labels.as_ref())) {
            continue;
        }
        if smallest.is_none_or(|other| capacity(volume) < capacity(other)) {
            smallest = Some(volume);
        }
    }
    smallest
}

/// Whether a volume can be had on this machine.
pub fn is_of_node(volume: &PersistentVolume, node: &NodeView) -> bool {
    let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
    affinity
        .and_then(|affinity| affinity.required.as_ref())
        .is_none_or(|required| matches_node_selector(required, node))
}

fn capacity(volume: &PersistentVolume) -> i64 {
    bytes(volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref()?.get("storage")))
}

fn request(claim: &PersistentVolumeClaim) -> i64 {
    bytes(claim.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.as_ref()?.get("storage")))
}

fn bytes(quantity: Option<&RawQuantity>) -> i64 {
    quantity.and_then(|quantity| Quantity::parse(&quantity.0).ok()?.value().ok()).unwrap_or(0)
}

fn mode_of_volume(volume: &PersistentVolume) -> &str {
    volume.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref()).unwrap_or("Filesystem")
}

fn mode_of_claim(claim: &PersistentVolumeClaim) -> &str {
    claim.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref()).unwrap_or("Filesystem")
}

fn has_access_modes(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let offered = volume.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default();
    let mut wanted = claim.spec.iter().flat_map(|spec| spec.access_modes.iter().flatten());
    wanted.all(|mode| offered.contains(mode))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::decode::read;

    fn claim(spec: &Value) -> PersistentVolumeClaim {
        let mut all = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "slow",
            "resources": {"requests": {"storage": "2Gi"}}});
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        read(&json!({"metadata": {"name": "data", "namespace": "shop", "uid": "u1"}, "spec": all})).unwrap()
    }

    fn volume(name: &str, size: &str, spec: &Value) -> PersistentVolume {
        let mut all = json!({"accessModes": ["ReadWriteOnce", "ReadOnlyMany"], "storageClassName": "slow",
            "capacity": {"storage": size}, "hostPath": {"path": "/srv"}});
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let metadata = json!({"name": name, "labels": {"disk": name}});
        read(&json!({"metadata": metadata, "spec": all, "status": {"phase": "Available"}})).unwrap()
    }

    fn node() -> NodeView {
        NodeView {
            name: "box".to_owned(),
            labels: [("kubernetes.io/hostname".to_owned(), "box".to_owned())].into(),
            taints: Vec::new(),
            unschedulable: false,
            allocatable: std::collections::BTreeMap::default(),
        }
    }

    fn found(claim: &PersistentVolumeClaim, volumes: &[PersistentVolume]) -> Option<String> {
        find_volume(claim, volumes.iter(), &node(), false)?.metadata.name.clone()
    }

    #[test]
    fn the_smallest_volume_that_has_everything_is_found() {
        let here = |value: &str| {
            json!({"nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "In", "values": [value]}]}]}}})
        };
        let volumes = vec![
            volume("large", "9Gi", &json!({})),
            volume("small", "1Gi", &json!({})),
            volume("other-class", "2Gi", &json!({"storageClassName": "fast"})),
            volume("raw", "2Gi", &json!({"volumeMode": "Block"})),
            volume("taken", "2Gi", &json!({"claimRef": {"namespace": "shop", "name": "another"}})),
            volume("elsewhere", "2Gi", &here("another")),
            volume("read-only", "2Gi", &json!({"accessModes": ["ReadOnlyMany"]})),
            volume("right", "3Gi", &here("box")),
        ];
        assert_eq!(found(&claim(&json!({})), &volumes).as_deref(), Some("right"));
        let selector = json!({"selector": {"matchLabels": {"disk": "large"}}});
        assert_eq!(found(&claim(&selector), &volumes).as_deref(), Some("large"));
        assert_eq!(found(&claim(&json!({"volumeMode": "Block"})), &volumes).as_deref(), Some("raw"));
        assert_eq!(found(&claim(&json!({"accessModes": ["ReadWriteMany"]})), &volumes), None);
        assert_eq!(found(&claim(&json!({"resources": {"requests": {"storage": "10Gi"}}})), &volumes), None);
    }

    #[test]
    fn a_volume_that_is_kept_for_a_claim_comes_before_a_smaller_one() {
        let kept = |uid: &str| json!({"claimRef": {"namespace": "shop", "name": "data", "uid": uid}});
        let free = volume("free", "2Gi", &json!({}));
        for (uid, expected) in [("", Some("kept")), ("u1", Some("kept")), ("of-an-earlier-one", Some("free"))] {
            let volumes = [free.clone(), volume("kept", "5Gi", &kept(uid))];
            assert_eq!(found(&claim(&json!({})), &volumes).as_deref(), expected, "{uid:?}");
        }
        assert!(find_volume(&claim(&json!({})), [free].iter(), &node(), true).is_none());
    }

    #[test]
    fn what_does_not_match_is_said() {
        let volume = volume("v", "2Gi", &json!({}));
        let cases = [
            (json!({}), None),
            (json!({"resources": {"requests": {"storage": "3Gi"}}}), Some("requested PV is too small")),
            (json!({"storageClassName": ""}), Some("storageClassName does not match")),
            (json!({"volumeMode": "Block"}), Some("incompatible volumeMode")),
            (json!({"accessModes": ["ReadWriteMany"]}), Some("incompatible accessMode")),
        ];
        for (spec, expected) in cases {
            assert_eq!(mismatch(&volume, &claim(&spec)), expected, "{spec}");
        }
    }
}
