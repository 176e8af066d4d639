//! Rules for PersistentVolumeClaims, PersistentVolumes and StorageClasses.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeSpec,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as RawQuantity;
use serde_json::{Map, Value};

use super::names;
use super::pod::one_of;
use super::volume::host_path_source;
use crate::field::{Errors, FieldError, Path};
use crate::quantity::Quantity;

const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

/// Fields of a PersistentVolume's spec that say no source.
const NO_SOURCE: [&str; 9] = [
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

/// Checks a PersistentVolumeClaim.
pub fn validate_persistent_volume_claim(
    new: &PersistentVolumeClaim,
    old: Option<&PersistentVolumeClaim>,
) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let path = Path::root("spec");
    let empty = PersistentVolumeClaimSpec::default();
    let spec = new.spec.as_ref().unwrap_or(&empty);
    let modes = spec.access_modes.as_deref().unwrap_or_default();
    if modes.is_empty() {
        errors.required(&path.child("accessModes"), "at least 1 access mode is required");
    }
    access_modes(&mut errors, &path.child("accessModes"), modes);
    let resources = path.child("resources");
    let requests = resources.child("requests");
    match spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()?.get("storage")) {
        None => errors.required(&resources.key("storage"), ""),
        Some(storage) => positive(&mut errors, &requests.key("storage"), storage),
    }
    class_and_mode(&mut errors, &path, spec.storage_class_name.as_deref(), spec.volume_mode.as_deref());
    if let Some((was, old)) = old.and_then(|old| Some((old, old.spec.as_ref()?))) {
        let size = |list: Option<&BTreeMap<String, RawQuantity>>| Quantity::parse(&list?.get("storage")?.0).ok();
        let wanted = |spec: &PersistentVolumeClaimSpec| size(spec.resources.as_ref()?.requests.as_ref());
        if let (Some(new), Some(before), Some(present)) = (wanted(spec), wanted(old), size(capacity_of(was)))
            && new.compare(before).is_lt()
            && new.compare(present).is_le()
        {
            errors.forbidden(&requests.key("storage"), "field can not be less than status.capacity");
        }
        // A claim gets its volume once, and a class if it had none.
        let first = |new: &Option<String>, old: &Option<String>| {
            if old.as_deref().unwrap_or_default().is_empty() { old.clone() } else { new.clone() }
        };
        let as_before = PersistentVolumeClaimSpec {
            volume_name: first(&spec.volume_name, &old.volume_name),
            storage_class_name: if old.storage_class_name.is_none() { None } else { spec.storage_class_name.clone() },
            resources: old.resources.clone(),
            volume_attributes_class_name: old.volume_attributes_class_name.clone(),
            ..spec.clone()
        };
        if as_before != *old {
            let fault = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
            errors.forbidden(&path, fault);
        }
    }
    errors.into_vec()
}

/// What the claim has.
fn capacity_of(claim: &PersistentVolumeClaim) -> Option<&BTreeMap<String, RawQuantity>> {
    claim.status.as_ref()?.capacity.as_ref()
}

/// Checks a PersistentVolume.
pub fn validate_persistent_volume(new: &PersistentVolume, old: Option<&PersistentVolume>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let path = Path::root("spec");
    let empty = PersistentVolumeSpec::default();
    let spec = new.spec.as_ref().unwrap_or(&empty);
    let modes = spec.access_modes.as_deref().unwrap_or_default();
    if modes.is_empty() {
        errors.required(&path.child("accessModes"), "");
    }
    access_modes(&mut errors, &path.child("accessModes"), modes);
    capacity(&mut errors, &path.child("capacity"), spec.capacity.as_ref());
    let sources = source_of(spec);
    if sources.is_empty() {
        errors.required(&path, "must specify a volume type");
    }
    for (field, _) in sources.iter().skip(1) {
        errors.forbidden(&path.child(field), "may not specify more than 1 volume type");
    }
    let policy = spec.persistent_volume_reclaim_policy.as_deref();
    if let Some(host_path) = &spec.host_path {
        host_path_source(&mut errors, &path.child("hostPath"), host_path);
        if host_path.path == "/" && policy == Some("Recycle") {
            let fault = "may not be 'recycle' for a hostPath mount of '/'";
            errors.forbidden(&path.child("persistentVolumeReclaimPolicy"), fault);
        }
    }
    if let Some(local) = &spec.local {
        let path_of_it = path.child("local");
        if local.path.is_empty() {
            errors.required(&path_of_it.child("path"), "");
        }
        for fault in names::no_backsteps(&local.path) {
            errors.invalid(&path_of_it.child("path"), local.path.as_str(), fault);
        }
        if spec.node_affinity.as_ref().is_none_or(|affinity| affinity.required.is_none()) {
            errors.required(&path.child("nodeAffinity"), "Local volume requires node affinity");
        }
    }
    one_of(&mut errors, &path.child("persistentVolumeReclaimPolicy"), policy, &["Delete", "Recycle", "Retain"]);
    class_and_mode(&mut errors, &path, spec.storage_class_name.as_deref(), spec.volume_mode.as_deref());
    if old.and_then(|old| old.spec.as_ref()).is_some_and(|old| source_of(old) != sources) {
        errors.forbidden(&path, "spec.persistentvolumesource is immutable after creation");
    }
    errors.into_vec()
}

/// Checks a StorageClass.
pub fn validate_storage_class(new: &StorageClass, old: Option<&StorageClass>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    if new.provisioner.is_empty() {
        errors.required(&Path::root("provisioner"), "");
    } else {
        for fault in names::qualified_name(&new.provisioner.to_lowercase()) {
            errors.invalid(&Path::root("provisioner"), new.provisioner.as_str(), fault);
        }
    }
    one_of(&mut errors, &Path::root("reclaimPolicy"), new.reclaim_policy.as_deref(), &["Delete", "Retain"]);
    let modes = ["Immediate", "WaitForFirstConsumer"];
    one_of(&mut errors, &Path::root("volumeBindingMode"), new.volume_binding_mode.as_deref(), &modes);
    let Some(old) = old else { return errors.into_vec() };
    let fixed = [
        ("parameters", new.parameters == old.parameters),
        ("provisioner", new.provisioner == old.provisioner),
        ("reclaimPolicy", new.reclaim_policy == old.reclaim_policy),
        ("volumeBindingMode", new.volume_binding_mode == old.volume_binding_mode),
    ];
    for (field, _) in fixed.into_iter().filter(|(_, same)| !same) {
        errors.forbidden(&Path::root(field), format!("updates to {field} are forbidden."));
    }
    errors.into_vec()
}

fn access_modes(errors: &mut Errors, path: &Path<'_>, modes: &[String]) {
    for mode in modes.iter().filter(|mode| !ACCESS_MODES.contains(&mode.as_str())) {
        errors.not_supported(path, mode.as_str(), &ACCESS_MODES);
    }
    if modes.len() > 1 && modes.iter().any(|mode| mode == "ReadWriteOncePod") {
        errors.forbidden(path, "may not use ReadWriteOncePod with other access modes");
    }
}

fn class_and_mode(errors: &mut Errors, path: &Path<'_>, class: Option<&str>, mode: Option<&str>) {
    if let Some(class) = class.filter(|class| !class.is_empty()) {
        for fault in names::dns_subdomain(class) {
            errors.invalid(&path.child("storageClassName"), class, fault);
        }
    }
    if let Some(mode) = mode.filter(|mode| !["Block", "Filesystem"].contains(mode)) {
        errors.not_supported(&path.child("volumeMode"), mode, &["Block", "Filesystem"]);
    }
}

fn capacity(errors: &mut Errors, path: &Path<'_>, capacity: Option<&BTreeMap<String, RawQuantity>>) {
    let Some(capacity) = capacity.filter(|capacity| !capacity.is_empty()) else {
        return errors.required(path, "");
    };
    match capacity.get("storage") {
        Some(storage) if capacity.len() == 1 => positive(errors, &path.key("storage"), storage),
        _ => {
            let names: Vec<&str> = capacity.keys().map(String::as_str).collect();
            errors.not_supported(path, names.join(","), &["storage"]);
        }
    }
}

fn positive(errors: &mut Errors, path: &Path<'_>, raw: &RawQuantity) {
    match Quantity::parse(&raw.0) {
        Ok(quantity) if quantity.is_negative() || quantity.is_zero() => {
            errors.invalid(path, raw.0.as_str(), "must be greater than zero");
        }
        Ok(_) => {}
        Err(error) => errors.invalid(path, raw.0.as_str(), error.to_string()),
    }
}

/// The fields that say where a volume's content lies.
fn source_of(spec: &PersistentVolumeSpec) -> Map<String, Value> {
    let Ok(Value::Object(mut fields)) = serde_json::to_value(spec) else { return Map::new() };
    fields.retain(|field, _| !NO_SOURCE.contains(&field.as_str()));
    fields
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::decode::read;

    #[test]
    fn a_volume_of_this_machine_names_a_path_and_its_node() {
        let faults = |source: Value| {
            let mut spec = json!({"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
                "persistentVolumeReclaimPolicy": "Retain"});
            spec.as_object_mut().unwrap().extend(source.as_object().unwrap().clone());
            let volume: PersistentVolume = read(&json!({"metadata": {"name": "v"}, "spec": spec})).unwrap();
            let errors = validate_persistent_volume(&volume, None);
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let here =
            json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]}});
        let backstep = |field: &str| format!("spec.{field}.path: Invalid value: \"/a/../b\": must not contain '..'");
        assert_eq!(faults(json!({"hostPath": {"path": "/a"}})), [""; 0]);
        assert_eq!(faults(json!({"hostPath": {"path": "/a/../b"}})), [backstep("hostPath")]);
        assert_eq!(faults(json!({"local": {"path": "/a"}, "nodeAffinity": here})), [""; 0]);
        assert_eq!(faults(json!({"local": {"path": "/a/../b"}, "nodeAffinity": here})), [backstep("local")]);
        let alone = faults(json!({"local": {"path": "/a"}}));
        assert_eq!(alone, ["spec.nodeAffinity: Required value: Local volume requires node affinity"]);
        let root = faults(json!({"hostPath": {"path": "/"}, "persistentVolumeReclaimPolicy": "Recycle"}));
        let fault = "spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'";
        assert_eq!(root, [fault]);
    }

    #[test]
    fn a_claim_shrinks_to_more_than_it_has_only() {
        let claim = |size: &str| -> PersistentVolumeClaim {
            let spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}});
            read(&json!({"metadata": {"name": "c"}, "spec": spec, "status": {"capacity": {"storage": "2Gi"}}})).unwrap()
        };
        let fault = "spec.resources.requests[storage]: Forbidden: field can not be less than status.capacity";
        for (before, wanted, expected) in
            [("5Gi", "3Gi", None), ("5Gi", "2Gi", Some(fault)), ("2Gi", "1Gi", Some(fault)), ("2Gi", "2Gi", None)]
        {
            let errors = validate_persistent_volume_claim(&claim(wanted), Some(&claim(before)));
            assert_eq!(errors.first().map(ToString::to_string).as_deref(), expected, "{before} to {wanted}");
        }
    }

    #[test]
    fn a_claim_gets_its_volume_and_its_class_once() {
        let claim = |volume: &str, class: Option<&str>| -> PersistentVolumeClaim {
            let spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
                "volumeName": volume, "storageClassName": class});
            read(&json!({"metadata": {"name": "c", "namespace": "d"}, "spec": spec})).unwrap()
        };
        let allowed = |new, old| validate_persistent_volume_claim(&new, Some(&old)).is_empty();
        assert!(allowed(claim("v", None), claim("", None)));
        assert!(!allowed(claim("w", None), claim("v", None)) && !allowed(claim("", None), claim("v", None)));
        assert!(allowed(claim("", Some("a")), claim("", None)));
        assert!(
            !allowed(claim("", Some("b")), claim("", Some("a"))) && !allowed(claim("", Some("a")), claim("", Some("")))
        );
    }
}
