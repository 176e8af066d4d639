//! From the text of a file to the object of a static Pod. Pure.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use spec::decode::Writable as _;
use spec::k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Toleration};
use spec::placement::SYSTEM_CLASSES;
use spec::{FieldError, Timestamp, mirror};
use store::ObjectKey;

use crate::agent::PODS;
use spec::ids::random_uuid;

/// A Pod that a file defines.
#[derive(Debug, Clone)]
pub struct StaticPod {
    /// Of the object that mirrors it.
    pub key: ObjectKey,
    /// Its UID.
    pub hash: String,
    object: Value,
}

/// What is wrong with a file; names line or field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidManifest(String);

impl StaticPod {
    /// Reads one Pod, with everything that an API server would complete and judge.
    pub fn read(text: &str, node_name: &str) -> Result<Self, InvalidManifest> {
        let document = only_document(text)?;
        let (mut pod, unknown) =
            spec::decode::decode_strict::<Pod>(document.clone()).map_err(|error| InvalidManifest(error.to_string()))?;
        if let Some(field) = unknown.first() {
            return Err(InvalidManifest(spec::decode::unknown_field(field)));
        }
        let name = pod.metadata.name.clone().filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| InvalidManifest("metadata.name: a static Pod needs a name".to_owned()))?;
        let read = pod.write().map_err(|error| InvalidManifest(error.to_string()))?;
        refuse(&spec::support::unsupported_pod_fields(&read))?;
        let spec = pod.spec.get_or_insert_default();
        refuse_references(spec)?;
        set_priority(spec)?;
        spec.node_name = Some(node_name.to_owned());
        spec.tolerations.get_or_insert_default().push(Toleration {
            operator: Some("Exists".to_owned()),
            effect: Some("NoExecute".to_owned()),
            ..Toleration::default()
        });
        pod.metadata.name = Some(format!("{name}-{node_name}"));
        let pod_namespace = pod.metadata.namespace.get_or_insert_with(|| "default".to_owned()).clone();
        spec::defaults::default_pod(&mut pod);
        refuse(&spec::validation::validate_pod(&pod))?;
        let key = ObjectKey::namespaced(PODS, pod_namespace, format!("{name}-{node_name}"));
        let object = pod.write().map_err(|error| InvalidManifest(error.to_string()))?;
        Ok(Self { key, hash: hash(&document, node_name), object })
    }

    /// The object to be made in the API.
    pub fn mirror(&self, now: Timestamp) -> Value {
        let now = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let mut object = self.object.clone();
        let annotations = object.pointer("/metadata/annotations").and_then(Value::as_object).cloned();
        let mut annotations = annotations.unwrap_or_default();
        for (name, value) in [
            (mirror::SOURCE, "file"),
            (mirror::HASH, &self.hash),
            (mirror::MIRROR, &self.hash),
            (mirror::SEEN, now.as_str()),
        ] {
            annotations.insert(name.to_owned(), json!(value));
        }
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("annotations".to_owned(), Value::Object(annotations));
            metadata.insert("uid".to_owned(), json!(random_uuid()));
            metadata.insert("creationTimestamp".to_owned(), json!(now));
            metadata.insert("generation".to_owned(), json!(1));
        }
        if let Some(object) = object.as_object_mut() {
            object.insert("status".to_owned(), json!({"phase": "Pending"}));
        }
        object
    }
}

fn only_document(text: &str) -> Result<Value, InvalidManifest> {
    let documents = spec::yaml::documents(text).map_err(|error| {
        let place = error.location().map(|at| format!("line {}, column {}: ", at.line(), at.column()));
        InvalidManifest(format!("{}not valid YAML: {}", place.unwrap_or_default(), spec::yaml::message(&error)))
    })?;
    let mut documents = documents.into_iter();
    let (Some(document), None) = (documents.next(), documents.next()) else {
        return Err(InvalidManifest("a static Pod's file has one document, the Pod".to_owned()));
    };
    let text = |field| document.get(field).and_then(Value::as_str).unwrap_or_default();
    match (text("apiVersion"), text("kind")) {
        ("v1", "Pod") => Ok(document),
        (version, kind) => {
            Err(InvalidManifest(format!("it is {version:?} {kind:?}; only a \"v1\" \"Pod\" can be static")))
        }
    }
}

fn refuse(errors: &[FieldError]) -> Result<(), InvalidManifest> {
    if errors.is_empty() {
        return Ok(());
    }
    Err(InvalidManifest(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")))
}

/// 128 bits, as many as the kubelet takes.
fn hash(document: &Value, node_name: &str) -> String {
    let digest = Sha256::digest(format!("{node_name}\n{document}"));
    digest.iter().take(16).fold(String::new(), |hash, byte| format!("{hash}{byte:02x}"))
}

/// Without an API server there are only the classes that always exist.
fn set_priority(spec: &mut PodSpec) -> Result<(), InvalidManifest> {
    let class = spec.priority_class_name.as_deref().filter(|class| !class.is_empty());
    let value = match class {
        None => spec.priority.unwrap_or_default(),
        Some(class) => match SYSTEM_CLASSES.iter().find(|(name, _)| *name == class) {
            Some((_, value)) => *value,
            None => return Err(reference("spec.priorityClassName", "PriorityClass")),
        },
    };
    spec.priority = Some(value);
    Ok(())
}

fn reference(field: &str, kind: &str) -> InvalidManifest {
    InvalidManifest(format!("{field}: Forbidden: a static Pod may not use a {kind}, or any other object of the API"))
}

/// The kubelet refuses them too: a static Pod runs whatever is in the API.
fn refuse_references(spec: &PodSpec) -> Result<(), InvalidManifest> {
    if spec.service_account_name.is_some() || spec.service_account.is_some() {
        return Err(reference("spec.serviceAccountName", "ServiceAccount"));
    }
    if spec.image_pull_secrets.iter().flatten().next().is_some() {
        return Err(reference("spec.imagePullSecrets", "Secret"));
    }
    for (index, volume) in spec.volumes.iter().flatten().enumerate() {
        let sources = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
        let projected =
            |uses: fn(&spec::k8s_openapi::api::core::v1::VolumeProjection) -> bool| sources.clone().any(uses);
        let kinds = [
            ("Secret", volume.secret.is_some() || projected(|source| source.secret.is_some())),
            ("ConfigMap", volume.config_map.is_some() || projected(|source| source.config_map.is_some())),
            ("ServiceAccount", projected(|source| source.service_account_token.is_some())),
            ("PersistentVolumeClaim", volume.persistent_volume_claim.is_some()),
        ];
        if let Some((kind, _)) = kinds.iter().find(|(_, used)| *used) {
            return Err(reference(&format!("spec.volumes[{index}]"), kind));
        }
    }
    let init = spec.init_containers.iter().flatten().enumerate().map(|found| ("initContainers", found));
    let apps = spec.containers.iter().enumerate().map(|found| ("containers", found));
    for (list, (index, container)) in apps.chain(init) {
        refuse_variables(container, &format!("spec.{list}[{index}]"))?;
    }
    Ok(())
}

fn refuse_variables(container: &Container, path: &str) -> Result<(), InvalidManifest> {
    for (index, variable) in container.env.iter().flatten().enumerate() {
        let Some(source) = &variable.value_from else { continue };
        let field = format!("{path}.env[{index}].valueFrom");
        if source.secret_key_ref.is_some() {
            return Err(reference(&field, "Secret"));
        }
        if source.config_map_key_ref.is_some() {
            return Err(reference(&field, "ConfigMap"));
        }
    }
    match container.env_from.iter().flatten().next() {
        Some(source) => {
            let kind = if source.secret_ref.is_some() { "Secret" } else { "ConfigMap" };
            Err(reference(&format!("{path}.envFrom[0]"), kind))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: web, labels: {app: web}}\n\
        spec:\n  containers:\n  - {name: main, image: busybox}\n";

    #[test]
    fn a_static_pod_is_bound_named_and_marked() {
        let pod = StaticPod::read(POD, "edge").unwrap();
        assert_eq!((pod.key.namespace.as_deref(), pod.key.name.as_str()), (Some("default"), "web-edge"));
        assert_eq!(pod.hash.len(), 32);
        let mirror = pod.mirror("2026-01-02T03:04:05Z".parse().unwrap());
        let annotations = json!({
            "kubernetes.io/config.source": "file", "kubernetes.io/config.hash": pod.hash,
            "kubernetes.io/config.mirror": pod.hash, "kubernetes.io/config.seen": "2026-01-02T03:04:05Z",
        });
        assert_eq!(mirror["metadata"]["annotations"], annotations);
        assert_eq!(mirror["metadata"]["name"], "web-edge");
        assert_eq!(mirror["spec"]["nodeName"], "edge");
        assert_eq!(mirror["spec"]["tolerations"], json!([{"operator": "Exists", "effect": "NoExecute"}]));
        assert_eq!(spec::mirror::pod_uid(&mirror), Some(pod.hash.as_str()));
        let same = StaticPod::read(&format!("# a comment\n{POD}"), "edge").unwrap();
        assert_eq!(same.hash, pod.hash, "what it says is the same");
        assert_ne!(StaticPod::read(POD, "other").unwrap().hash, pod.hash);
        assert_ne!(StaticPod::read(&POD.replace("busybox", "nginx"), "edge").unwrap().hash, pod.hash);
    }

    #[test]
    fn what_is_wrong_is_named_by_line_or_field() {
        let with = |field: &str| format!("{POD}  {field}\n");
        let in_container = |field: &str| POD.replace("image: busybox", &format!("image: busybox, {field}"));
        let table = [
            ("apiVersion: v1\nkind: [\n".to_owned(), "line 2, column 7: not valid YAML"),
            (format!("{POD}---\n{POD}"), "one document"),
            ("apiVersion: apps/v1\nkind: Deployment\n".to_owned(), "\"apps/v1\" \"Deployment\""),
            (with("restartPolice: Never"), "unknown field \"spec.restartPolice\""),
            (with("restartPolicy: Sometimes"), "spec.restartPolicy: Unsupported value"),
            (POD.replace("name: web, ", ""), "metadata.name"),
            (
                with("volumes: [{name: v, secret: {secretName: s}}]"),
                "spec.volumes[0]: Forbidden: a static Pod may not use a Secret",
            ),
            (with("volumes: [{name: v, projected: {sources: [{configMap: {name: c}}]}}]"), "a ConfigMap"),
            (with("imagePullSecrets: [{name: s}]"), "spec.imagePullSecrets"),
            (with("serviceAccountName: robot"), "spec.serviceAccountName"),
            (with("priorityClassName: mine"), "spec.priorityClassName"),
            (in_container("envFrom: [{configMapRef: {name: c}}]"), "spec.containers[0].envFrom[0]"),
            (
                in_container("env: [{name: A, valueFrom: {secretKeyRef: {name: s, key: k}}}]"),
                "spec.containers[0].env[0].valueFrom: Forbidden: a static Pod may not use a Secret",
            ),
        ];
        for (text, expected) in table {
            let error = StaticPod::read(&text, "edge").unwrap_err().to_string();
            assert!(error.contains(expected), "{text}\n{error}");
        }
    }
}
