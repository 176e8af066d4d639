//! Whether a pod uses more of the disk than it may: `emptyDir.sizeLimit` and limits of `ephemeral-storage`. Pure.

use spec::ContainerName;
use spec::k8s_openapi::api::core::v1::{Container, Pod};
use spec::k8s_openapi::apimachinery::pkg::api::resource::Quantity as RawQuantity;
use spec::requests::{amount, pod_limit};

use super::quantity::{Form, shown};
use crate::usage::PodDisk;

/// The resource of the disk.
pub const RESOURCE: &str = "ephemeral-storage";
/// A pod whose JSON mentions neither has no limit.
pub const WORDS: [&str; 2] = [RESOURCE, "sizeLimit"];

/// Whether anything of the pod's disk is limited, so that it must be measured.
pub fn is_limited(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let volumes = spec.volumes.iter().flatten();
    containers.into_iter().any(|container| limit_of(container).is_some())
        || volumes
            .into_iter()
            .any(|volume| volume.empty_dir.as_ref().is_some_and(|dir| dir.size_limit.is_some() && dir.medium.is_none()))
}

/// Why the pod must go, in the kubelet's words and order; `None` if it is within its limits.
pub fn excess(pod: &Pod, disk: &PodDisk) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    for volume in spec.volumes.iter().flatten() {
        let limit = volume.empty_dir.as_ref().and_then(|dir| dir.size_limit.as_ref());
        let used = disk.empty_dirs.get(&volume.name);
        if let (Some(limit), Some(used)) = (limit, used)
            && is_over(limit, used.bytes)
        {
            return Some(format!("Usage of EmptyDir volume {:?} exceeds the limit {:?}. ", volume.name, limit.0));
        }
    }
    let total = i64::try_from(disk.total().bytes).unwrap_or(i64::MAX);
    if let Some(limit) = pod_limit(pod, RESOURCE).filter(|limit| total > *limit) {
        return Some(format!(
            "Pod ephemeral local storage usage exceeds the total limit of containers {}. ",
            shown(limit, Form::Binary)
        ));
    }
    spec.containers.iter().find_map(|container| {
        let limit = limit_of(container)?;
        let used = disk.containers.get(&ContainerName::new(&container.name))?.total();
        let name = &container.name;
        is_over(limit, used.bytes)
            .then(|| format!("Container {name} exceeded its local ephemeral storage limit {:?}. ", limit.0))
    })
}

fn limit_of(container: &Container) -> Option<&RawQuantity> {
    container.resources.as_ref()?.limits.as_ref()?.get(RESOURCE)
}

fn is_over(limit: &RawQuantity, used: u64) -> bool {
    let limit = amount(RESOURCE, limit);
    limit > 0 && i64::try_from(used).unwrap_or(i64::MAX) > limit
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::{ContainerDisk, DiskUsage};
    use serde_json::{Value, json};

    fn pod(spec: &Value) -> Pod {
        serde_json::from_value(json!({ "spec": spec })).unwrap()
    }

    fn disk(layer: u64, logs: u64, cache: u64) -> PodDisk {
        let usage = |bytes| DiskUsage { bytes, inodes: 1 };
        let app = ContainerDisk { writable_layer: usage(layer), logs: usage(logs) };
        PodDisk {
            containers: [(ContainerName::new("app"), app)].into(),
            empty_dirs: [("cache".to_owned(), usage(cache))].into(),
            other: DiskUsage::default(),
        }
    }

    #[test]
    fn limits_are_those_of_volumes_pods_and_containers() {
        let limited = json!({"containers": [{"name": "app", "resources": {"limits": {"ephemeral-storage": "1Mi"}}}]});
        let beside = json!({"containers": [
            {"name": "app", "resources": {"limits": {"ephemeral-storage": "1Mi"}}},
            {"name": "idle", "resources": {"limits": {"ephemeral-storage": "1Mi"}}},
        ]});
        let volume =
            json!({"containers": [{"name": "app"}], "volumes": [{"name": "cache", "emptyDir": {"sizeLimit": "1Mi"}}]});
        let mib = 1 << 20;
        let own = "Container app exceeded its local ephemeral storage limit \"1Mi\". ";
        let whole = "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. ";
        let of_volume = "Usage of EmptyDir volume \"cache\" exceeds the limit \"1Mi\". ";
        let table = [
            (&limited, disk(mib, 0, 0), None),
            (&limited, disk(mib / 2, mib / 2 + 1, 0), Some(whole)),
            (&limited, disk(0, 0, mib + 1), Some(whole)),
            (&beside, disk(mib / 2, mib / 2 + 1, 0), Some(own)),
            (&beside, disk(0, 0, 2 * mib), None),
            (
                &beside,
                disk(0, 0, 9 * mib),
                Some("Pod ephemeral local storage usage exceeds the total limit of containers 2Mi. "),
            ),
            (&volume, disk(9 * mib, 0, mib), None),
            (&volume, disk(0, 0, mib + 1), Some(of_volume)),
        ];
        for (spec, disk, expected) in table {
            assert_eq!(excess(&pod(spec), &disk).as_deref(), expected, "{spec} {disk:?}");
            assert!(is_limited(&pod(spec)));
        }
        assert!(!is_limited(&pod(
            &json!({"containers": [{"name": "app"}], "volumes": [{"name": "v", "emptyDir": {}}]})
        )));
    }
}
