//! `ConfigMap`s and Secrets of a pod's namespace, with the kubelet's words when one is missing.

use serde::de::DeserializeOwned;
use spec::k8s_openapi::api::core::v1::{ConfigMap, Secret};
use store::{ObjectKey, Store};

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
}

/// The store's objects of one namespace.
pub struct StoredConfigObjects<'a> {
    /// Where they are.
    pub store: &'a Store,
    /// The pod's.
    pub namespace: &'a str,
}

impl StoredConfigObjects<'_> {
    fn read<T: DeserializeOwned>(&self, resource: &str, name: &str) -> Option<T> {
        let stored = self.store.get(&ObjectKey::namespaced(resource, self.namespace, name))?;
        match T::deserialize(&*stored.value) {
            Ok(object) => Some(object),
            Err(error) => {
                tracing::error!(%error, resource, namespace = self.namespace, name, "stored object cannot be read");
                None
            }
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
}

/// As the API server words it, and the kubelet after it.
pub fn config_map_not_found(name: &str) -> String {
    format!("configmap {name:?} not found")
}

/// As the API server words it, and the kubelet after it.
pub fn secret_not_found(name: &str) -> String {
    format!("secret {name:?} not found")
}
