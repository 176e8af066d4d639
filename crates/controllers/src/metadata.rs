//! What every object that a controller makes begins with.

use spec::Timestamp;
use spec::ids::random_uuid;
use spec::k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use spec::names::generate_name;

/// The metadata of a new object with a name that begins with `prefix`.
pub fn generated(prefix: &str, pod_namespace: &str, now: Timestamp) -> ObjectMeta {
    ObjectMeta {
        name: Some(generate_name(prefix)),
        generate_name: Some(prefix.to_owned()),
        namespace: Some(pod_namespace.to_owned()),
        uid: Some(random_uuid()),
        generation: Some(1),
        creation_timestamp: Some(seconds(now)),
        ..ObjectMeta::default()
    }
}

/// The owner that an object goes with.
pub fn controlled_by(api_version: &str, kind: &str, owner: &ObjectMeta) -> OwnerReference {
    OwnerReference {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        name: owner.name.clone().unwrap_or_default(),
        uid: owner.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Objects tell times in whole seconds.
pub fn seconds(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}
