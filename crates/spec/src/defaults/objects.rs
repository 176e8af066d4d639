//! Defaults of ConfigMaps, Secrets and Namespaces.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};

/// Nothing is filled in today; the door exists so that all kinds are treated alike.
pub fn default_config_map(_config_map: &mut ConfigMap) {}

/// Fills in the type, and folds `stringData` into `data`.
pub fn default_secret(secret: &mut Secret) {
    if secret.type_.as_deref().unwrap_or_default().is_empty() {
        secret.type_ = Some("Opaque".to_owned());
    }
    fold_string_data(secret);
}

/// `stringData` is write-only: its values go into `data`, over values of the same key.
pub fn fold_string_data(secret: &mut Secret) {
    let Some(texts) = secret.string_data.take().filter(|texts| !texts.is_empty()) else { return };
    let data = secret.data.get_or_insert_default();
    data.extend(texts.into_iter().map(|(key, text)| (key, ByteString(text.into_bytes()))));
}

/// Fills in the label that names the Namespace, the finalizer that empties it first, and its phase.
pub fn default_namespace(namespace: &mut Namespace) {
    if let Some(name) = namespace.metadata.name.as_ref().filter(|name| !name.is_empty()) {
        let labels = namespace.metadata.labels.get_or_insert_default();
        labels.insert("kubernetes.io/metadata.name".to_owned(), name.clone());
    }
    let finalizers = namespace.spec.get_or_insert_default().finalizers.get_or_insert_default();
    if namespace.metadata.deletion_timestamp.is_none() && finalizers.is_empty() {
        finalizers.push("kubernetes".to_owned());
    }
    namespace.status.get_or_insert_default().phase.get_or_insert_with(|| "Active".to_owned());
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn string_data_ends_up_in_data() {
        let mut secret: Secret =
            serde_json::from_value(json!({"data": {"a": "MQ==", "b": "Mg=="}, "stringData": {"b": "two", "c": "3"}}))
                .unwrap();
        default_secret(&mut secret);
        let expected = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {}, "type": "Opaque", "data": {"a": "MQ==", "b": "dHdv", "c": "Mw=="}});
        assert_eq!(serde_json::to_value(&secret).unwrap(), expected);
        let mut typed: Secret = serde_json::from_value(json!({"type": "kubernetes.io/tls", "stringData": {}})).unwrap();
        default_secret(&mut typed);
        assert_eq!((typed.type_.as_deref(), typed.data, typed.string_data), (Some("kubernetes.io/tls"), None, None));
    }

    #[test]
    fn a_namespace_names_itself() {
        let mut namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": "n"}})).unwrap();
        default_namespace(&mut namespace);
        default_namespace(&mut namespace);
        let expected = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n", "labels": {"kubernetes.io/metadata.name": "n"}},
            "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"},
        });
        assert_eq!(serde_json::to_value(&namespace).unwrap(), expected);
    }
}
