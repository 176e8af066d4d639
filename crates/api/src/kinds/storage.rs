//! PersistentVolumeClaim, PersistentVolume and StorageClass. The controller of volumes binds them, the agent mounts them.

use serde_json::{Value, json};
use spec::Timestamp;
use spec::claims::{CLAIM_PROTECTION, CLASS_BEFORE_1_6, VOLUME_PROTECTION};
use spec::defaults::{default_persistent_volume, default_persistent_volume_claim, default_storage_class};
use spec::k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use spec::k8s_openapi::api::storage::v1::StorageClass;
use spec::quantity::Quantity;
use spec::validation::{validate_persistent_volume, validate_persistent_volume_claim, validate_storage_class};

use store::{ObjectKey, Store, StoredObject};

use crate::fields::{flag_at, items_at, text_at};
use crate::kinds::admission::{Admission, AdmissionError};
use crate::kinds::limit_ranges::check_claim_limits;
use crate::kinds::plain::{Rules, admit_by};
use crate::kinds::{Kind, Subresource};
use crate::table::{AGE, Column, NAME, Row, age, name, text, text_or};

const IS_DEFAULT: &str = "/metadata/annotations/storageclass.kubernetes.io~1is-default-class";

/// `v1` PersistentVolumeClaim.
pub static PERSISTENT_VOLUME_CLAIM: Kind = Kind {
    short_names: &["pvc"],
    subresources: &[Subresource::status("PersistentVolumeClaim")],
    columns: &[
        NAME,
        Column::text("Status", "Whether it has a volume."),
        Column::text("Volume", "The volume that it has."),
        Column::text("Capacity", "The size of that volume."),
        Column::text("Access Modes", "How it may be mounted."),
        Column::text("StorageClass", "Where its volume comes from."),
        Column::text("VolumeAttributesClass", "Attributes of its volume."),
        AGE,
        Column::wide("VolumeMode", "A file system or a block device."),
    ],
    row: claim_row,
    ..Kind::namespaced(
        "",
        "persistentvolumeclaims",
        "persistentvolumeclaim",
        "PersistentVolumeClaim",
        |value, admission| {
            let (complete, validate) = (default_persistent_volume_claim, validate_persistent_volume_claim);
            let rules = Rules { complete, validate, ..Rules::NONE };
            let mut value = value;
            if admission.old.is_none() {
                take_default_class(&mut value, admission.store);
                protect(&mut value, CLAIM_PROTECTION);
            }
            let admitted = admit_by::<PersistentVolumeClaim>(&rules, value, admission)?;
            check_growth(&admitted.object, admission)?;
            check_claim_limits(&admitted, admission)?;
            Ok(admitted)
        },
    )
};

/// `v1` PersistentVolume.
pub static PERSISTENT_VOLUME: Kind = Kind {
    short_names: &["pv"],
    subresources: &[Subresource::status("PersistentVolume")],
    columns: &[
        NAME,
        Column::text("Capacity", "Its size."),
        Column::text("Access Modes", "How it may be mounted."),
        Column::text("Reclaim Policy", "What becomes of it without its claim."),
        Column::text("Status", "Whether it has a claim."),
        Column::text("Claim", "The claim that has it."),
        Column::text("StorageClass", "Where it comes from."),
        Column::text("VolumeAttributesClass", "Its attributes."),
        Column::text("Reason", "Why it is as it is."),
        AGE,
        Column::wide("VolumeMode", "A file system or a block device."),
    ],
    row: volume_row,
    ..Kind::cluster("", "persistentvolumes", "persistentvolume", "PersistentVolume", |value, admission| {
        let (complete, validate) = (default_persistent_volume, validate_persistent_volume);
        let rules = Rules { namespaced: false, complete, validate, ..Rules::NONE };
        let mut value = value;
        if admission.old.is_none() {
            protect(&mut value, VOLUME_PROTECTION);
        }
        admit_by::<PersistentVolume>(&rules, value, admission)
    })
};

/// `storage.k8s.io/v1` StorageClass.
pub static STORAGE_CLASS: Kind = Kind {
    short_names: &["sc"],
    columns: &[
        NAME,
        Column::text("Provisioner", "What makes volumes of it."),
        Column::text("ReclaimPolicy", "What becomes of a volume without its claim."),
        Column::text("VolumeBindingMode", "When a claim gets its volume."),
        Column::flag("AllowVolumeExpansion", "Whether volumes may grow."),
        AGE,
    ],
    row: class_row,
    ..Kind::cluster("storage.k8s.io", "storageclasses", "storageclass", "StorageClass", |value, admission| {
        let (complete, validate) = (default_storage_class, validate_storage_class);
        let rules = Rules { namespaced: false, complete, validate, ..Rules::NONE };
        admit_by::<StorageClass>(&rules, value, admission)
    })
};

/// The finalizer with which nothing goes that is in use, as upstream's StorageObjectInUseProtection.
fn protect(object: &mut Value, finalizer: &str) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    let finalizers = metadata.entry("finalizers").or_insert(Value::Null);
    if finalizers.is_null() {
        *finalizers = json!([]);
    }
    if let Some(finalizers) = finalizers.as_array_mut()
        && !finalizers.iter().any(|present| present == finalizer)
    {
        finalizers.push(json!(finalizer));
    }
}

/// A claim that names no class gets the newest of the default ones, as upstream's DefaultStorageClass. An empty name is a word:
/// it wants none.
fn take_default_class(claim: &mut Value, store: &Store) {
    let annotation = claim.pointer("/metadata/annotations").and_then(|annotations| annotations.get(CLASS_BEFORE_1_6));
    if annotation.is_some() || !claim.pointer("/spec/storageClassName").is_none_or(Value::is_null) {
        return;
    }
    let classes = store.list("storageclasses", None).objects;
    let defaults = classes.iter().filter(|class| class.value.pointer(IS_DEFAULT).is_some_and(|word| word == "true"));
    let created = |class: &&StoredObject| text_at(&class.value, "/metadata/creationTimestamp").to_owned();
    let Some(class) = defaults.max_by_key(created) else { return };
    if let Some(spec) = claim.get_mut("spec").and_then(Value::as_object_mut) {
        spec.insert("storageClassName".to_owned(), json!(class.key.name));
    }
}

/// Who may ask for more, as upstream's PersistentVolumeClaimResize.
fn check_growth(claim: &Value, admission: &Admission<'_>) -> Result<(), AdmissionError> {
    const REQUEST: &str = "/spec/resources/requests/storage";
    let Some(old) = admission.old else { return Ok(()) };
    let size = |object: &Value| Quantity::parse(text_at(object, REQUEST)).ok();
    let (Some(before), Some(wanted)) = (size(old), size(claim)) else { return Ok(()) };
    if wanted.compare(before).is_le() {
        return Ok(());
    }
    let forbidden = |why: &str| Err(AdmissionError::Forbidden(why.to_owned()));
    if text_at(old, "/status/phase") != "Bound" {
        return forbidden("Only bound persistent volume claims can be expanded");
    }
    let class = admission.store.get(&ObjectKey::cluster("storageclasses", text_at(old, "/spec/storageClassName")));
    if !class.is_some_and(|class| flag_at(&class.value, "/allowVolumeExpansion")) {
        return forbidden(
            "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
        );
    }
    Ok(())
}

fn claim_row(object: &Value, now: Timestamp) -> Row {
    let status = match text_at(object, "/metadata/deletionTimestamp") {
        "" => text_at(object, "/status/phase"),
        _ => "Terminating",
    };
    let bound = text_at(object, "/spec/volumeName");
    let (capacity, modes) = match bound {
        "" => (json!(""), json!("")),
        _ => (text(object, "/status/capacity/storage"), json!(access_modes(object, "/status/accessModes"))),
    };
    Row::new(vec![
        name(object),
        json!(status),
        json!(bound),
        capacity,
        modes,
        text(object, "/spec/storageClassName"),
        text_or(object, "/spec/volumeAttributesClassName", "<unset>"),
        age(object, now),
        text_or(object, "/spec/volumeMode", "<unset>"),
    ])
}

fn volume_row(object: &Value, now: Timestamp) -> Row {
    let claim = match (text_at(object, "/spec/claimRef/namespace"), text_at(object, "/spec/claimRef/name")) {
        (_, "") => String::new(),
        (namespace, name) => format!("{namespace}/{name}"),
    };
    let status = match text_at(object, "/metadata/deletionTimestamp") {
        "" => text_at(object, "/status/phase"),
        _ => "Terminating",
    };
    Row::new(vec![
        name(object),
        text(object, "/spec/capacity/storage"),
        json!(access_modes(object, "/spec/accessModes")),
        text(object, "/spec/persistentVolumeReclaimPolicy"),
        json!(status),
        json!(claim),
        text(object, "/spec/storageClassName"),
        text_or(object, "/spec/volumeAttributesClassName", "<unset>"),
        text(object, "/status/reason"),
        age(object, now),
        text_or(object, "/spec/volumeMode", "<unset>"),
    ])
}

fn class_row(object: &Value, now: Timestamp) -> Row {
    let is_default = object.pointer(IS_DEFAULT).is_some_and(|word| word == "true");
    let own = text_at(object, "/metadata/name");
    Row::new(vec![
        json!(if is_default { format!("{own} (default)") } else { own.to_owned() }),
        text(object, "/provisioner"),
        text(object, "/reclaimPolicy"),
        text(object, "/volumeBindingMode"),
        json!(flag_at(object, "/allowVolumeExpansion")),
        age(object, now),
    ])
}

/// `RWO,ROX`: as kubectl's users know them.
fn access_modes(object: &Value, path: &str) -> String {
    let short =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let present: Vec<&str> = items_at(object, path).filter_map(Value::as_str).collect();
    let words: Vec<&str> =
        short.into_iter().filter(|(mode, _)| present.contains(mode)).map(|(_, short)| short).collect();
    words.join(",")
}
