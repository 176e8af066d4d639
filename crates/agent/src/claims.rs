//! The claims of a pod, as the scheduler and the kubelet look at them: what keeps the pod waiting, and what is mounted.
//!
//! The words are those of the scheduler's plugins `VolumeBinding` and `VolumeRestrictions`, and of the kubelet's
//! `desired_state_of_world_populator.go`. Which volume a claim gets is decided by the controller of volumes.

use std::convert::Infallible;

use serde_json::Value;
use spec::PodUid;
use spec::claims::{
    CLAIM_SOURCE, NO_PROVISIONER, SELECTED_NODE, claim_name, claims_of_placed, class_of_claim, find_volume,
    is_annotated, is_bound, is_of_node, volume_name, waits_for_consumer,
};
use spec::decode::{Readable, read};
use spec::k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use spec::k8s_openapi::api::storage::v1::StorageClass;
use spec::placement::NodeView;
use store::{Change, ObjectKey, Store, StoredObject, WriteError};

use crate::agent::PODS;
use crate::desired::DesiredPod;

/// Resource name of claims in the store.
pub const CLAIMS: &str = "persistentvolumeclaims";
/// Resource name of volumes in the store.
pub const VOLUMES: &str = "persistentvolumes";
/// Resource name of classes in the store.
pub const CLASSES: &str = "storageclasses";

/// Claims of a pod that could run but for them.
#[derive(Debug, PartialEq, Eq)]
pub enum Claims {
    /// All have their volumes.
    Bound,
    /// These get theirs now that this pod wants them.
    Wanted(Vec<String>),
    /// They are said to be wanted, and have no volume yet.
    Awaited,
}

/// As the API server words it.
pub fn not_found(name: &str) -> String {
    format!("persistentvolumeclaims {name:?} not found")
}

/// A claim of that name.
pub fn claim(store: &Store, namespace: &str, name: &str) -> Option<PersistentVolumeClaim> {
    get(store, &ObjectKey::namespaced(CLAIMS, namespace, name))
}

/// The volume that a claim has, or the kubelet's word why it has none.
pub fn volume(store: &Store, claim: &PersistentVolumeClaim) -> Result<PersistentVolume, String> {
    if !is_bound(claim) || phase_of(claim) == "Lost" {
        return Err("PVC is not bound".to_owned());
    }
    let name = volume_name(claim);
    get(store, &ObjectKey::cluster(VOLUMES, name))
        .ok_or_else(|| format!("failed to fetch PV {name:?} from API server: persistentvolumes {name:?} not found"))
}

/// What the claims of a pod without a node are like; an error says why it cannot have one.
pub fn look(store: &Store, desired: &DesiredPod, uid: &PodUid, node: &NodeView) -> Result<Claims, String> {
    let names = desired.spec.volumes.iter().flatten().filter_map(claim_name);
    let (mut wanted, mut awaited, mut unbound) = (Vec::new(), false, false);
    for name in names {
        let found = claim(store, &desired.pod.pod_namespace, name);
        let claim = found.ok_or_else(|| format!("persistentvolumeclaim {name:?} not found"))?;
        if claim.metadata.deletion_timestamp.is_some() {
            return Err(format!("persistentvolumeclaim {name:?} is being deleted"));
        }
        if phase_of(&claim) == "Lost" {
            let volume = volume_name(&claim);
            return Err(format!("persistentvolumeclaim {name:?} bound to non-existent persistentvolume {volume:?}"));
        }
        if is_in_use_elsewhere(store, &claim, uid) {
            return Err(
                "1 node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"
                    .to_owned(),
            );
        }
        if is_bound(&claim) {
            if !volume(store, &claim).is_ok_and(|volume| is_of_node(&volume, node)) {
                return Err("1 node(s) had volume node affinity conflict".to_owned());
            }
            continue;
        }
        let class: Option<StorageClass> = get(store, &ObjectKey::cluster(CLASSES, class_of_claim(&claim)));
        if !waits_for_consumer(class.as_ref()) {
            unbound = true;
        } else if is_annotated(&claim.metadata, SELECTED_NODE) {
            awaited = true;
        } else {
            let provisioner = class.as_ref().map(|class| class.provisioner.as_str()).unwrap_or_default();
            if provisioner == NO_PROVISIONER && !has_free_volume(store, &claim, node) {
                return Err("1 node(s) didn't find available persistent volumes to bind".to_owned());
            }
            wanted.push(name.to_owned());
        }
    }
    if unbound {
        return Err("pod has unbound immediate PersistentVolumeClaims".to_owned());
    }
    Ok(match (wanted.is_empty(), awaited) {
        (false, _) => Claims::Wanted(wanted),
        (true, true) => Claims::Awaited,
        (true, false) => Claims::Bound,
    })
}

/// Says on a claim that a pod of this node wants it.
pub async fn want(store: &Store, namespace: &str, name: &str, node_name: &str) -> Result<(), store::StoreError> {
    let node_name = node_name.to_owned();
    let written = store.write(ObjectKey::namespaced(CLAIMS, namespace, name), move |present| {
        let next = present.and_then(|present| annotated(present.value.clone().take_tree(), &node_name));
        Ok::<_, Infallible>((next.map_or(Change::Keep, Change::Put), ()))
    });
    match written.await {
        Ok(_) => Ok(()),
        Err(WriteError::Refused(never)) => match never {},
        Err(WriteError::Store(error)) => Err(error),
    }
}

fn annotated(mut claim: Value, node_name: &str) -> Option<Value> {
    let metadata = claim.get_mut("metadata")?.as_object_mut()?;
    let annotations = metadata.entry("annotations").or_insert_with(|| Value::Object(serde_json::Map::new()));
    annotations.as_object_mut()?.insert(SELECTED_NODE.to_owned(), Value::from(node_name));
    Some(claim)
}

/// Whether another pod has a claim that one pod alone may have.
pub fn is_in_use_elsewhere(store: &Store, claim: &PersistentVolumeClaim, uid: &PodUid) -> bool {
    let modes = claim.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default();
    let (Some(namespace), Some(name)) = (&claim.metadata.namespace, &claim.metadata.name) else { return false };
    if !modes.iter().any(|mode| mode == "ReadWriteOncePod") {
        return false;
    }
    let has_it = |stored: &StoredObject| {
        let pod = stored.value.tree();
        let text = |path: &str| pod.pointer(path).and_then(Value::as_str).unwrap_or_default();
        text("/metadata/uid") != uid.as_str()
            && !matches!(text("/status/phase"), "Succeeded" | "Failed")
            && claims_of_placed(&pod).any(|claim| claim == name)
    };
    let pods = store.list(PODS, Some(namespace)).objects;
    pods.iter().filter(|stored| stored.mentions(CLAIM_SOURCE)).any(has_it)
}

fn has_free_volume(store: &Store, claim: &PersistentVolumeClaim, node: &NodeView) -> bool {
    let stored = store.list(VOLUMES, None).objects;
    let volumes: Vec<PersistentVolume> = stored.iter().filter_map(|stored| read(&stored.value.tree()).ok()).collect();
    find_volume(claim, volumes.iter(), node, false).is_some()
}

fn phase_of(claim: &PersistentVolumeClaim) -> &str {
    claim.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

fn get<T: Readable>(store: &Store, key: &ObjectKey) -> Option<T> {
    read(&store.get(key)?.value.tree()).ok()
}
