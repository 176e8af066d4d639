//! What a pod's configuration comes from: objects of its namespace, with the kubelet's words when one is missing, and its tokens.

use spec::PodUid;
use spec::decode::{Readable, read};
use spec::k8s_openapi::api::core::v1::{ConfigMap, PersistentVolume, Secret, Service, ServiceAccountTokenProjection};
use store::{ObjectKey, Store, StoredObject};

use crate::api_service;
use crate::claims;
use crate::immutable::ImmutableObjects;
use crate::pod_tokens::PodTokens;

/// Resource name of `ConfigMap`s in the store.
pub const CONFIG_MAPS: &str = "configmaps";
/// Resource name of Secrets in the store.
pub const SECRETS: &str = "secrets";

/// Where a pod's configuration is read from.
pub trait ConfigObjects: Send + Sync {
    /// The `ConfigMap` of that name in the pod's namespace.
    fn config_map(&self, name: &str) -> Option<ConfigMap>;

    /// The Secret of that name in the pod's namespace.
    fn secret(&self, name: &str) -> Option<Secret>;

    /// The API's Service, and with `all` every one of the pod's namespace: what the pod is told by variables.
    fn services(&self, all: bool) -> Vec<Service>;

    /// The volume of a claim in the pod's namespace, or the kubelet's word why it has none. A claim that is to go is for nobody who
    /// does not have it yet (`is_new`).
    fn volume_of_claim(&self, name: &str, is_new: bool) -> Result<PersistentVolume, String>;

    /// The pod's token for a source of a volume.
    fn token(&self, source: &ServiceAccountTokenProjection) -> Result<String, String>;
}

/// The store's objects of one namespace.
pub struct StoredConfigObjects<'a> {
    /// Where they are.
    pub store: &'a Store,
    /// The pod's.
    pub namespace: &'a str,
    /// The pod's.
    pub(crate) tokens: &'a PodTokens,
    /// Whose objects they are.
    pub(crate) user: &'a PodUid,
    /// What is not read again.
    pub(crate) immutable: &'a ImmutableObjects,
}

impl StoredConfigObjects<'_> {
    fn read<T: Readable>(&self, resource: &str, name: &str) -> Option<T> {
        decode(&self.immutable.read(self.store, &ObjectKey::namespaced(resource, self.namespace, name), self.user)?)
    }
}

fn decode<T: Readable>(stored: &StoredObject) -> Option<T> {
    match read(&stored.value) {
        Ok(object) => Some(object),
        Err(error) => {
            tracing::error!(%error, object = ?stored.key, "stored object cannot be read");
            None
        }
    }
}

impl ConfigObjects for StoredConfigObjects<'_> {
    fn config_map(&self, name: &str) -> Option<ConfigMap> {
        self.read(CONFIG_MAPS, name)
    }

    fn secret(&self, name: &str) -> Option<Secret> {
        self.read(SECRETS, name)
    }

    fn services(&self, all: bool) -> Vec<Service> {
        let own = all.then(|| self.store.list(api_service::SERVICES, Some(self.namespace)).objects);
        let of_api = self.store.get(&api_service::key(api_service::SERVICES));
        let is_own = own.is_some() && self.namespace == api_service::NAMESPACE;
        own.into_iter().flatten().chain(of_api.filter(|_| !is_own)).filter_map(|stored| decode(&stored)).collect()
    }

    fn volume_of_claim(&self, name: &str, is_new: bool) -> Result<PersistentVolume, String> {
        let claim = claims::claim(self.store, self.namespace, name)
            .ok_or_else(|| format!("failed to fetch PVC from API server: {}", claims::not_found(name)))?;
        if is_new && claim.metadata.deletion_timestamp.is_some() {
            return Err("PVC is being deleted".to_owned());
        }
        if claims::is_in_use_elsewhere(self.store, &claim, self.user) {
            return Err("volume uses the ReadWriteOncePod access mode and is already in use by another pod".to_owned());
        }
        claims::volume(self.store, &claim)
    }

    fn token(&self, source: &ServiceAccountTokenProjection) -> Result<String, String> {
        self.tokens.token(source)
    }
}

/// As the API server words it, and the kubelet after it.
pub fn config_map_not_found(name: &str) -> String {
    format!("configmap {name:?} not found")
}

/// As the API server words it, and the kubelet after it.
pub fn secret_not_found(name: &str) -> String {
    format!("secret {name:?} not found")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::claims::{CLAIMS, VOLUMES};
    use crate::testing::TestNode;

    #[tokio::test]
    async fn a_claim_that_is_to_go_is_for_nobody_new() {
        let node = TestNode::start().await;
        let claim = |deleted: Option<&str>| {
            json!({
                "metadata": {
                    "name": "data", "namespace": "default", "deletionTimestamp": deleted,
                    "annotations": {"pv.kubernetes.io/bind-completed": "yes"},
                },
                "spec": {"volumeName": "disk"}, "status": {"phase": "Bound"},
            })
        };
        let (tokens, immutable, user) = (PodTokens::default(), ImmutableObjects::default(), PodUid::new("u"));
        let objects = StoredConfigObjects {
            store: &node.store,
            namespace: "default",
            tokens: &tokens,
            user: &user,
            immutable: &immutable,
        };
        let name = |is_new| objects.volume_of_claim("data", is_new).map(|volume| volume.metadata.name.unwrap());
        assert!(name(false).unwrap_err().ends_with("persistentvolumeclaims \"data\" not found"));
        node.put(CLAIMS, claim(None)).await;
        assert!(name(true).unwrap_err().ends_with("persistentvolumes \"disk\" not found"));
        node.put(VOLUMES, json!({"metadata": {"name": "disk"}})).await;
        assert_eq!(name(true).as_deref(), Ok("disk"));
        node.put(CLAIMS, claim(Some("2026-01-01T00:00:00Z"))).await;
        assert_eq!((name(true), name(false)), (Err("PVC is being deleted".to_owned()), Ok("disk".to_owned())));
    }
}
