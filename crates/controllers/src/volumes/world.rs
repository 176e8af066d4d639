//! All that decides which claim has which volume, as it is now.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::Value;
use spec::claims::{CLAIM_SOURCE, claims_of_placed, class_of_claim};
use spec::decode::{Readable, read};
use spec::k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim};
use spec::k8s_openapi::api::storage::v1::StorageClass;
use spec::ordered::{map_of, set_of};
use spec::placement::NodeView;
use store::{ObjectKey, Store, StoredObject};

use super::{CLAIMS, CLASSES, LocalVolumes, PODS, VOLUMES};

/// Objects of one moment.
#[derive(Debug)]
pub struct World {
    pub claims: Vec<PersistentVolumeClaim>,
    pub volumes: Vec<PersistentVolume>,
    /// By their names.
    pub classes: BTreeMap<String, StorageClass>,
    /// This machine.
    pub node: NodeView,
    /// Namespaces and names of the claims that Pods have, as far as one of these is to go.
    pub used: BTreeSet<(String, String)>,
    /// Where volumes of this engine lie.
    pub directory: PathBuf,
}

impl World {
    /// Reads what there is.
    pub fn read(store: &Store, local: &LocalVolumes) -> Self {
        let claims: Vec<PersistentVolumeClaim> = all(store, CLAIMS);
        let classes: Vec<StorageClass> = all(store, CLASSES);
        let goes = claims.iter().filter(|claim| claim.metadata.deletion_timestamp.is_some());
        let namespaces = set_of(goes.filter_map(|claim| claim.metadata.namespace.as_deref()));
        let used = set_of(namespaces.into_iter().flat_map(|namespace| used_in(store, namespace)));
        Self {
            volumes: all(store, VOLUMES),
            classes: map_of(classes.into_iter().map(|class| (class.metadata.name.clone().unwrap_or_default(), class))),
            node: node(store, &local.node_name),
            used,
            directory: local.directory.clone(),
            claims,
        }
    }

    /// The class of a claim, if it has one and that is there.
    pub fn class_of(&self, claim: &PersistentVolumeClaim) -> Option<&StorageClass> {
        self.classes.get(class_of_claim(claim))
    }

    /// The volume of that name.
    pub fn volume(&self, name: &str) -> Option<&PersistentVolume> {
        self.volumes.iter().find(|volume| volume.metadata.name.as_deref() == Some(name))
    }

    /// The very claim that a volume is kept for, if it is there.
    pub fn claim(&self, reference: &ObjectReference) -> Option<&PersistentVolumeClaim> {
        self.claims.iter().find(|claim| {
            let metadata = &claim.metadata;
            metadata.uid == reference.uid
                && metadata.name == reference.name
                && metadata.namespace == reference.namespace
        })
    }
}

fn all<T: Readable>(store: &Store, resource: &str) -> Vec<T> {
    let objects = store.list(resource, None).objects;
    objects.iter().filter_map(|stored| read(&stored.value.tree()).ok()).collect()
}

fn node(store: &Store, name: &str) -> NodeView {
    let stored = store.get(&ObjectKey::cluster("nodes", name));
    NodeView::read(name, stored.as_ref().map_or(&Value::Null, |stored| &*stored.value))
}

fn used_in(store: &Store, namespace: &str) -> Vec<(String, String)> {
    let pods = store.list(PODS, Some(namespace)).objects;
    let of_pod = |stored: &StoredObject| -> Vec<(String, String)> {
        let pod = stored.value.tree();
        claims_of_placed(&pod).map(|name| (namespace.to_owned(), name.to_owned())).collect()
    };
    pods.iter().filter(|stored| stored.mentions(CLAIM_SOURCE)).flat_map(of_pod).collect()
}
