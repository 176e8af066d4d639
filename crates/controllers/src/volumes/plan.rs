//! What is to be done next for each claim and each volume, from what there is. No IO.
//!
//! Source: `syncClaim()` and `syncVolume()` in `pkg/controller/volume/persistentvolume/pv_controller.go` of Kubernetes, and its
//! `pvcprotection` and `pvprotection`. The words of events are theirs.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::Value;
use spec::Timestamp;
use spec::claims::{
    BIND_COMPLETED, BOUND_BY_CONTROLLER, CLAIM_PROTECTION, LOCAL_PROVISIONER, NO_PROVISIONER, PROVISIONED_BY,
    SELECTED_NODE, STORAGE_PROVISIONER, VOLUME_PROTECTION, claim_ref, class_of_claim, find_volume, is_annotated,
    is_kept_for, mismatch, volume_name, waits_for_consumer,
};
use spec::decode::Writable;
use spec::ids::random_uuid;
use spec::k8s_openapi::api::core::v1 as core;
use spec::k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim};
use spec::k8s_openapi::api::storage::v1::StorageClass;
use spec::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use spec::ordered::map_of;
use spec::quantity::Quantity;
use store::ObjectKey;

use super::event::Said;
use super::world::World;
use super::{CLAIMS, VOLUMES};
use crate::metadata::seconds;

/// One step.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// An object changes.
    Write(Next),
    /// The directory of a volume, then the volume.
    MakeDirectory { path: PathBuf, next: Next },
    /// All that was in a volume, then the volume.
    RemoveDirectory { path: PathBuf, next: Next },
    /// Something to tell.
    Say(Said),
}

/// The next version of an object.
#[derive(Debug, PartialEq)]
pub struct Next {
    pub key: ObjectKey,
    /// The resource version that was looked at; `None`: there was none.
    pub seen: Option<String>,
    /// `None`: it is gone.
    pub object: Option<Value>,
}

/// At most one step for each object; the change that it makes brings the next one.
pub fn steps(world: &World, now: Timestamp) -> Vec<Step> {
    let mut plan = Plan { world, now, steps: Vec::new(), taken: BTreeSet::new() };
    for claim in &world.claims {
        plan.claim(claim);
    }
    for volume in &world.volumes {
        if !plan.taken.contains(name_of(&volume.metadata)) {
            plan.volume(volume);
        }
    }
    plan.steps
}

struct Plan<'a> {
    world: &'a World,
    now: Timestamp,
    steps: Vec<Step>,
    /// Volumes that a claim has just been given.
    taken: BTreeSet<&'a str>,
}

impl<'a> Plan<'a> {
    fn claim(&mut self, claim: &'a PersistentVolumeClaim) {
        if claim.metadata.deletion_timestamp.is_some() {
            self.let_go_claim(claim);
        } else if is_annotated(&claim.metadata, BIND_COMPLETED) {
            self.bound(claim);
        } else {
            self.unbound(claim);
        }
    }

    /// A claim goes once no Pod has it.
    fn let_go_claim(&mut self, claim: &PersistentVolumeClaim) {
        let metadata = &claim.metadata;
        let name = (metadata.namespace.clone().unwrap_or_default(), name_of(metadata).to_owned());
        if has_finalizer(metadata, CLAIM_PROTECTION) && !self.world.used.contains(&name) {
            let mut next = claim.clone();
            let is_last = drop_finalizer(&mut next.metadata, CLAIM_PROTECTION);
            self.steps.extend(next_claim(claim, (!is_last).then_some(next)).map(Step::Write));
        }
    }

    fn unbound(&mut self, claim: &'a PersistentVolumeClaim) {
        let wanted = volume_name(claim);
        if !wanted.is_empty() {
            return self.unbound_with_name(claim, wanted);
        }
        let class = self.world.class_of(claim);
        let delayed = waits_for_consumer(class) && !is_annotated(&claim.metadata, SELECTED_NODE);
        let free = self.world.volumes.iter().filter(|volume| !self.taken.contains(name_of(&volume.metadata)));
        if let Some(volume) = find_volume(claim, free, &self.world.node, delayed) {
            self.bind(claim, volume);
        } else if delayed {
            let message = "waiting for first consumer to be created before binding";
            self.steps.push(Step::Say(Said::normal(claim, "WaitForFirstConsumer", message)));
        } else if let Some(class) = class {
            self.provision(claim, class);
        } else if class_of_claim(claim).is_empty() {
            let message = "no persistent volumes available for this claim and no storage class is set";
            self.steps.push(Step::Say(Said::normal(claim, "FailedBinding", message)));
        } else {
            let message = format!("storageclass.storage.k8s.io {:?} not found", class_of_claim(claim));
            self.steps.push(Step::Say(Said::warning(claim, "ProvisioningFailed", message)));
        }
    }

    /// A person has said which volume a claim is to have.
    fn unbound_with_name(&mut self, claim: &'a PersistentVolumeClaim, wanted: &str) {
        let Some(volume) = self.world.volume(wanted) else { return };
        if is_kept_for(volume, claim) {
            self.bind(claim, volume);
        } else if claim_ref(volume).is_some() {
            let message = format!("volume {wanted:?} already bound to a different claim.");
            self.steps.push(Step::Say(Said::warning(claim, "FailedBinding", message)));
        } else if let Some(why) = mismatch(volume, claim) {
            let message = format!("Cannot bind to requested volume {wanted:?}: {why}");
            self.steps.push(Step::Say(Said::warning(claim, "VolumeMismatch", message)));
        } else {
            self.bind(claim, volume);
        }
    }

    fn bound(&mut self, claim: &'a PersistentVolumeClaim) {
        let volume = self.world.volume(volume_name(claim));
        let lost = match volume {
            Some(volume) if claim_ref(volume).is_none() || is_kept_for(volume, claim) => {
                return self.bind(claim, volume);
            }
            Some(_) => ("ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly"),
            None if volume_name(claim).is_empty() => {
                ("ClaimLost", "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!")
            }
            None => ("ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!"),
        };
        if claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Lost") {
            return;
        }
        let mut next = claim.clone();
        next.status = Some(core::PersistentVolumeClaimStatus { phase: Some("Lost".to_owned()), ..Default::default() });
        self.steps.extend(next_claim(claim, Some(next)).map(Step::Write));
        self.steps.push(Step::Say(Said::warning(claim, lost.0, lost.1)));
    }

    /// First the volume says whose it is, then the claim which one it has.
    fn bind(&mut self, claim: &'a PersistentVolumeClaim, volume: &'a PersistentVolume) {
        self.taken.insert(name_of(&volume.metadata));
        let mut next = volume.clone();
        let is_found = claim_ref(volume).is_none();
        let spec = next.spec.get_or_insert_default();
        if claim_ref(volume).is_none_or(|reference| reference.uid != claim.metadata.uid) {
            spec.claim_ref = Some(reference_to(claim));
            if is_found {
                annotate(&mut next.metadata, BOUND_BY_CONTROLLER, "yes");
            }
        }
        let is_own = provisioner(volume) == Some(LOCAL_PROVISIONER);
        let grown = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.as_ref()?.get("storage"));
        if let (true, Some(grown), Some(capacity)) = (is_own, grown, &mut spec.capacity) {
            // Size is no limit of a directory, so a volume grows by being said to.
            let size = capacity.entry("storage".to_owned()).or_default();
            let value = |text: &str| Quantity::parse(text).ok().and_then(|quantity| quantity.value().ok());
            if value(&grown.0) > value(&size.0) {
                *size = grown.clone();
            }
        }
        let is_new = self.phase(&mut next, "Bound", None);
        if next != *volume {
            let next = next_volume(volume, Some(next));
            self.steps.extend(next.map(|next| match self.own_directory(volume) {
                Some(path) if is_new => Step::MakeDirectory { path, next },
                _ => Step::Write(next),
            }));
            return;
        }
        let mut next = claim.clone();
        let spec = next.spec.get_or_insert_default();
        if volume_name(claim).is_empty() {
            spec.volume_name.clone_from(&volume.metadata.name);
            annotate(&mut next.metadata, BOUND_BY_CONTROLLER, "yes");
        }
        annotate(&mut next.metadata, BIND_COMPLETED, "yes");
        let of_volume = volume.spec.as_ref();
        let status = next.status.get_or_insert_default();
        status.phase = Some("Bound".to_owned());
        status.access_modes = of_volume.and_then(|spec| spec.access_modes.clone());
        status.capacity = of_volume.and_then(|spec| spec.capacity.clone());
        if next != *claim {
            self.steps.extend(next_claim(claim, Some(next)).map(Step::Write));
        }
    }

    /// A volume is made for a claim, here or by somebody else.
    fn provision(&mut self, claim: &PersistentVolumeClaim, class: &StorageClass) {
        let provisioner = class.provisioner.as_str();
        let spec = claim.spec.as_ref();
        let refused = if provisioner == NO_PROVISIONER {
            Some(format!("no volume plugin matched name: {provisioner}"))
        } else if provisioner != LOCAL_PROVISIONER {
            None
        } else if spec.is_some_and(|spec| spec.selector.is_some()) {
            Some("claim Selector is not supported".to_owned())
        } else if spec.is_some_and(|spec| spec.volume_mode.as_deref() == Some("Block")) {
            Some(format!("{provisioner} makes directories: volumeMode Block is not supported"))
        } else {
            None
        };
        if let Some(message) = refused {
            return self.steps.push(Step::Say(Said::warning(claim, "ProvisioningFailed", message)));
        }
        let mut next = claim.clone();
        annotate(&mut next.metadata, STORAGE_PROVISIONER, provisioner);
        if next != *claim {
            self.steps.extend(next_claim(claim, Some(next)).map(Step::Write));
        } else if provisioner != LOCAL_PROVISIONER {
            let message = format!(
                "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the \
                 system administrator. If volume creation is delayed, please verify that the provisioner is running and \
                 correctly registered."
            );
            self.steps.push(Step::Say(Said::normal(claim, "ExternalProvisioning", message)));
        } else {
            let volume = self.local_volume(claim, class);
            let name = name_of(&volume.metadata).to_owned();
            // One of that name that is none for it is waiting to go.
            if self.world.volume(&name).is_none()
                && let Ok(object) = volume.write()
            {
                let key = ObjectKey::cluster(VOLUMES, &name);
                self.steps.push(Step::Write(Next { key, seen: None, object: Some(object) }));
                let message = format!("Successfully provisioned volume {name}");
                self.steps.push(Step::Say(Said::normal(claim, "ProvisioningSucceeded", message)));
            }
        }
    }

    fn local_volume(&self, claim: &PersistentVolumeClaim, class: &StorageClass) -> PersistentVolume {
        let name = format!("pvc-{}", claim.metadata.uid.as_deref().unwrap_or_default());
        let spec = claim.spec.clone().unwrap_or_default();
        let requests = spec.resources.and_then(|resources| resources.requests).unwrap_or_default();
        let here = core::NodeSelectorRequirement {
            key: "kubernetes.io/hostname".to_owned(),
            operator: "In".to_owned(),
            values: self.world.node.labels.get("kubernetes.io/hostname").map(|name| vec![name.clone()]),
        };
        let term = core::NodeSelectorTerm { match_expressions: Some(vec![here]), match_fields: None };
        let path = self.world.directory.join(&name).to_string_lossy().into_owned();
        PersistentVolume {
            metadata: ObjectMeta {
                name: Some(name),
                uid: Some(random_uuid()),
                creation_timestamp: Some(seconds(self.now)),
                annotations: Some(map_of([(PROVISIONED_BY.to_owned(), LOCAL_PROVISIONER.to_owned())])),
                finalizers: Some(vec![VOLUME_PROTECTION.to_owned()]),
                ..ObjectMeta::default()
            },
            spec: Some(core::PersistentVolumeSpec {
                capacity: requests.get_key_value("storage").map(|(key, size)| map_of([(key.clone(), size.clone())])),
                access_modes: spec.access_modes,
                claim_ref: Some(reference_to(claim)),
                storage_class_name: class.metadata.name.clone(),
                persistent_volume_reclaim_policy: class.reclaim_policy.clone(),
                volume_mode: Some("Filesystem".to_owned()),
                local: Some(core::LocalVolumeSource { path, fs_type: None }),
                node_affinity: Some(core::VolumeNodeAffinity {
                    required: Some(core::NodeSelector { node_selector_terms: vec![term] }),
                }),
                ..core::PersistentVolumeSpec::default()
            }),
            status: Some(core::PersistentVolumeStatus { phase: Some("Pending".to_owned()), ..Default::default() }),
        }
    }

    fn volume(&mut self, volume: &'a PersistentVolume) {
        let Some(reference) = claim_ref(volume) else { return self.free(volume) };
        if reference.uid.as_deref().unwrap_or_default().is_empty() {
            return self.free(volume);
        }
        let Some(claim) = self.world.claim(reference) else { return self.released(volume) };
        let of_claim = volume_name(claim);
        if of_claim.is_empty() || of_claim == name_of(&volume.metadata) {
            return;
        }
        // The claim has another one.
        if is_annotated(&volume.metadata, PROVISIONED_BY) && reclaim_policy(volume) == "Delete" {
            return self.released(volume);
        }
        let mut next = volume.clone();
        let is_found = is_annotated(&volume.metadata, BOUND_BY_CONTROLLER);
        if let Some(annotations) = &mut next.metadata.annotations {
            annotations.remove(BOUND_BY_CONTROLLER);
        }
        if let Some(spec) = &mut next.spec {
            // What a person has said stays.
            let by_name = |kept: ObjectReference| ObjectReference { uid: None, resource_version: None, ..kept };
            spec.claim_ref = spec.claim_ref.take().filter(|_| !is_found).map(by_name);
        }
        self.phase(&mut next, "Available", None);
        self.steps.extend(next_volume(volume, Some(next)).map(Step::Write));
    }

    /// Nobody has it.
    fn free(&mut self, volume: &PersistentVolume) {
        if volume.metadata.deletion_timestamp.is_some() {
            return self.let_go_volume(volume);
        }
        let mut next = volume.clone();
        self.phase(&mut next, "Available", None);
        if next != *volume {
            self.steps.extend(next_volume(volume, Some(next)).map(Step::Write));
        }
    }

    /// Its claim is gone.
    fn released(&mut self, volume: &PersistentVolume) {
        let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
        if !["Released", "Failed"].contains(&phase) {
            let mut next = volume.clone();
            self.phase(&mut next, "Released", None);
            return self.steps.extend(next_volume(volume, Some(next)).map(Step::Write));
        }
        let (reason, message) = match (reclaim_policy(volume), provisioner(volume)) {
            ("Delete", Some(LOCAL_PROVISIONER)) => return self.reclaim(volume),
            // Whoever has made it removes it.
            ("Delete", Some(_)) | ("Retain", _) => return self.let_go_volume(volume),
            ("Delete", None) => (
                "VolumeFailedDelete",
                format!(
                    "error getting deleter volume plugin for volume {:?}: no deletable volume plugin matched",
                    name_of(&volume.metadata)
                ),
            ),
            _ => ("VolumeFailedRecycle", "volumes are not recycled here: use Retain or Delete".to_owned()),
        };
        if phase == "Failed" {
            return self.let_go_volume(volume);
        }
        let mut next = volume.clone();
        self.phase(&mut next, "Failed", Some(&message));
        self.steps.extend(next_volume(volume, Some(next)).map(Step::Write));
        self.steps.push(Step::Say(Said::warning(volume, reason, message)));
    }

    /// Its directory goes, and then the object, unless others hold it.
    fn reclaim(&mut self, volume: &PersistentVolume) {
        let mut next = volume.clone();
        let is_last = drop_finalizer(&mut next.metadata, VOLUME_PROTECTION);
        next.metadata.deletion_timestamp.get_or_insert_with(|| seconds(self.now));
        let next = (!is_last).then_some(next);
        if next.as_ref() == Some(volume) {
            return;
        }
        let next = next_volume(volume, next);
        self.steps.extend(next.map(|next| match self.own_directory(volume) {
            Some(path) => Step::RemoveDirectory { path, next },
            None => Step::Write(next),
        }));
    }

    /// The directory of a volume that was made here. Whoever may write volumes may name any path in one.
    fn own_directory(&self, volume: &PersistentVolume) -> Option<PathBuf> {
        let local = volume.spec.as_ref()?.local.as_ref().filter(|_| provisioner(volume) == Some(LOCAL_PROVISIONER))?;
        Some(self.world.directory.join(name_of(&volume.metadata))).filter(|own| own.as_os_str() == local.path.as_str())
    }

    /// One that is to go goes.
    fn let_go_volume(&mut self, volume: &PersistentVolume) {
        let metadata = &volume.metadata;
        if metadata.deletion_timestamp.is_some() && has_finalizer(metadata, VOLUME_PROTECTION) {
            let mut next = volume.clone();
            let is_last = drop_finalizer(&mut next.metadata, VOLUME_PROTECTION);
            self.steps.extend(next_volume(volume, (!is_last).then_some(next)).map(Step::Write));
        }
    }

    /// Whether the phase is another one now.
    fn phase(&self, volume: &mut PersistentVolume, phase: &str, message: Option<&str>) -> bool {
        let status = volume.status.get_or_insert_default();
        if status.phase.as_deref() == Some(phase) {
            return false;
        }
        *status = core::PersistentVolumeStatus {
            phase: Some(phase.to_owned()),
            message: message.map(str::to_owned),
            last_phase_transition_time: Some(seconds(self.now)),
            reason: None,
        };
        true
    }
}

fn name_of(metadata: &ObjectMeta) -> &str {
    metadata.name.as_deref().unwrap_or_default()
}

fn reclaim_policy(volume: &PersistentVolume) -> &str {
    volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref()).unwrap_or("Retain")
}

fn provisioner(volume: &PersistentVolume) -> Option<&str> {
    volume.metadata.annotations.as_ref()?.get(PROVISIONED_BY).map(String::as_str)
}

fn reference_to(claim: &PersistentVolumeClaim) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("PersistentVolumeClaim".to_owned()),
        namespace: claim.metadata.namespace.clone(),
        name: claim.metadata.name.clone(),
        uid: claim.metadata.uid.clone(),
        resource_version: claim.metadata.resource_version.clone(),
        field_path: None,
    }
}

fn annotate(metadata: &mut ObjectMeta, key: &str, value: &str) {
    metadata.annotations.get_or_insert_default().insert(key.to_owned(), value.to_owned());
}

fn has_finalizer(metadata: &ObjectMeta, finalizer: &str) -> bool {
    metadata.finalizers.iter().flatten().any(|present| present == finalizer)
}

/// Whether it was the last one.
fn drop_finalizer(metadata: &mut ObjectMeta, finalizer: &str) -> bool {
    let mut left = metadata.finalizers.take().unwrap_or_default();
    left.retain(|present| present != finalizer);
    metadata.finalizers = Some(left).filter(|left| !left.is_empty());
    metadata.finalizers.is_none()
}

fn next_claim(claim: &PersistentVolumeClaim, next: Option<PersistentVolumeClaim>) -> Option<Next> {
    let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
    next_of(ObjectKey::namespaced(CLAIMS, namespace, name_of(&claim.metadata)), &claim.metadata, next)
}

fn next_volume(volume: &PersistentVolume, next: Option<PersistentVolume>) -> Option<Next> {
    next_of(ObjectKey::cluster(VOLUMES, name_of(&volume.metadata)), &volume.metadata, next)
}

/// What cannot be written stays as it is.
fn next_of<T: Writable>(key: ObjectKey, seen: &ObjectMeta, next: Option<T>) -> Option<Next> {
    let object = next.map(|next| next.write()).transpose().ok()?;
    Some(Next { key, seen: seen.resource_version.clone(), object })
}
