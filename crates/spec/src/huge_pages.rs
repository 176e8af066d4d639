//! Huge pages: resources `hugepages-<size>`, and volumes in them.
//!
//! Sources: kubernetes.io "Manage HugePages"; the kubelet's `pkg/volume/emptydir`.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};

use crate::ordered::{map_of, set_of};
use crate::quantity::Quantity;
use crate::requests::{amount, pod_requests};

const RESOURCE: &str = "hugepages-";
const MEDIUM: &str = "HugePages";

/// Whether a resource is one of huge pages.
pub fn is_huge_pages(resource: &str) -> bool {
    resource.starts_with(RESOURCE)
}

/// Bytes of a page in the name of a resource, such as `hugepages-2Mi`; none in the name of another.
pub fn page_size(resource: &str) -> Option<u64> {
    bytes(resource.strip_prefix(RESOURCE)?)
}

fn bytes(size: &str) -> Option<u64> {
    let size = Quantity::parse(size).ok()?;
    // Half a byte is no page.
    if size.millis().is_ok_and(|millis| millis % 1000 != 0) {
        return None;
    }
    size.value().ok().and_then(|size| u64::try_from(size).ok()).filter(|size| *size > 0)
}

/// What a container may use, by size of page.
pub fn container_limits(container: &Container) -> BTreeMap<u64, u64> {
    let limits = container.resources.as_ref().and_then(|resources| resources.limits.as_ref());
    by_page_size(limits.into_iter().flatten().map(|(name, limit)| (name.as_str(), amount(name, limit))))
}

/// What a Pod as a whole may use, by size of page; requests are limits.
pub fn pod_limits(pod: &Pod) -> BTreeMap<u64, u64> {
    let requests = pod_requests(pod);
    by_page_size(requests.iter().map(|(name, amount)| (name.as_str(), *amount)))
}

fn by_page_size<'a>(amounts: impl Iterator<Item = (&'a str, i64)>) -> BTreeMap<u64, u64> {
    map_of(amounts.filter_map(|(name, amount)| Some((page_size(name)?, u64::try_from(amount).ok()?))))
}

/// Whether a volume's `medium` is huge pages, of whatever size.
pub fn is_medium(medium: &str) -> bool {
    medium == MEDIUM || medium.strip_prefix(MEDIUM).is_some_and(|size| size.starts_with('-'))
}

/// Bytes of a page of a volume with this `medium`, or the kubelet's words why there is none: some container must ask for
/// pages of its size, and `HugePages` alone means the only size that is asked for.
///
/// # Errors
/// The medium and the Pod's requests do not fit.
pub fn page_size_of_medium(medium: &str, pod: &Pod) -> Result<u64, String> {
    let asked = sizes_asked_for(pod);
    let of_medium = medium.strip_prefix(MEDIUM).and_then(|size| size.strip_prefix('-'));
    let found = match of_medium {
        Some(size) => bytes(size).filter(|size| asked.contains(size)),
        None if asked.len() > 1 => {
            return Err(format!("medium: {medium} can't be used if container requests multiple huge page sizes"));
        }
        None => asked.first().copied(),
    };
    found.ok_or_else(|| {
        format!("medium {medium}: hugePages storage requested, but there is no resource request for huge pages")
    })
}

fn sizes_asked_for(pod: &Pod) -> BTreeSet<u64> {
    let Some(spec) = &pod.spec else { return BTreeSet::new() };
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let of_containers = containers.filter_map(|container| container.resources.as_ref());
    let all = of_containers.chain(spec.resources.as_ref());
    let names = |resources: &ResourceRequirements| {
        let lists = [&resources.requests, &resources.limits];
        lists.into_iter().flatten().flat_map(BTreeMap::keys).cloned().collect::<Vec<_>>()
    };
    set_of(all.flat_map(names).filter_map(|name| page_size(&name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const MIB: u64 = 1 << 20;

    fn pod(limits: &[Value]) -> Pod {
        let containers: Vec<Value> =
            limits.iter().map(|limits| json!({"name": "c", "resources": {"limits": limits}})).collect();
        serde_json::from_value(json!({"spec": {"containers": containers}})).unwrap()
    }

    #[test]
    fn sizes_stand_in_names() {
        for (name, expected) in [
            ("hugepages-2Mi", Some(2 * MIB)),
            ("hugepages-1Gi", Some(1024 * MIB)),
            ("hugepages-64Ki", Some(64 << 10)),
            ("hugepages-", None),
            ("hugepages-500m", None),
            ("hugepages-0", None),
            ("memory", None),
        ] {
            assert_eq!(page_size(name), expected, "{name}");
        }
    }

    #[test]
    fn limits_are_counted_by_size() {
        let pod = pod(&[
            json!({"hugepages-2Mi": "4Mi", "memory": "1Gi"}),
            json!({"hugepages-2Mi": "2Mi", "hugepages-1Gi": "1Gi"}),
        ]);
        assert_eq!(pod_limits(&pod), [(2 * MIB, 6 * MIB), (1024 * MIB, 1024 * MIB)].into());
        let first = &pod.spec.as_ref().unwrap().containers[0];
        assert_eq!(container_limits(first), [(2 * MIB, 4 * MIB)].into());
    }

    #[test]
    fn a_medium_has_the_size_that_is_asked_for() {
        let one = pod(&[json!({"hugepages-2Mi": "4Mi"}), json!({"memory": "1Gi"})]);
        let two = pod(&[json!({"hugepages-2Mi": "4Mi"}), json!({"hugepages-1Gi": "1Gi"})]);
        let none = pod(&[json!({"memory": "1Gi"})]);
        let missing = |medium: &str| {
            Err(format!(
                "medium {medium}: hugePages storage requested, but there is no resource request for huge pages"
            ))
        };
        let several = "medium: HugePages can't be used if container requests multiple huge page sizes".to_owned();
        for (pod, medium, expected) in [
            (&one, "HugePages", Ok(2 * MIB)),
            (&one, "HugePages-2Mi", Ok(2 * MIB)),
            (&one, "HugePages-1Gi", missing("HugePages-1Gi")),
            (&two, "HugePages-1Gi", Ok(1024 * MIB)),
            (&two, "HugePages", Err(several)),
            (&none, "HugePages", missing("HugePages")),
        ] {
            assert_eq!(page_size_of_medium(medium, pod), expected, "{medium}");
        }
        assert!(
            is_medium("HugePages") && is_medium("HugePages-2Mi") && !is_medium("HugePagesX") && !is_medium("Memory")
        );
    }
}
