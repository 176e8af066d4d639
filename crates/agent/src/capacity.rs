//! How much of everything this machine has, and how much of it is for Pods.

use std::fs;
use std::path::Path;

use serde_json::Value;
use spec::ordered::{map_of, object_of};
use spec::requests::ResourceList;

use crate::eviction::quantity::{Form, shown as shown_quantity};
use crate::eviction::thresholds::{Signal, Threshold};

/// Where the kernel lists its pools of huge pages (hugetlbpage.rst).
const HUGE_PAGES: &str = "/sys/kernel/mm/hugepages";

/// What the machine has, and what of it Pods may ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capacity {
    /// `status.capacity`.
    pub total: ResourceList,
    /// `status.allocatable`.
    pub allocatable: ResourceList,
}

/// Looks at the machine; what is kept for Pods' files lies on the file system of `directory`.
pub fn machine_capacity(
    cpus: u32,
    memory_bytes: i64,
    max_pods: u32,
    directory: &Path,
    thresholds: &[Threshold],
) -> Capacity {
    let mut total = map_of([
        ("cpu".to_owned(), i64::from(cpus) * 1000),
        ("memory".to_owned(), memory_bytes),
        ("pods".to_owned(), i64::from(max_pods)),
    ]);
    match rustix::fs::statvfs(directory) {
        Ok(system) => {
            let bytes = u128::from(system.f_blocks) * u128::from(system.f_frsize);
            total.insert("ephemeral-storage".to_owned(), i64::try_from(bytes).unwrap_or(i64::MAX));
        }
        Err(error) => tracing::warn!(%error, path = %directory.display(), "cannot tell the size of the file system"),
    }
    let pools = huge_page_pools(Path::new(HUGE_PAGES));
    // Huge pages are set aside: nobody else can use that memory.
    let reserved: i64 = pools.values().sum();
    total.extend(pools);
    let mut allocatable = total.clone();
    allocatable.insert("memory".to_owned(), memory_bytes.saturating_sub(reserved));
    for (signal, resource) in [(Signal::MemoryAvailable, "memory"), (Signal::NodeFsAvailable, "ephemeral-storage")] {
        let hard = thresholds.iter().find(|threshold| threshold.signal == signal && threshold.is_hard());
        if let (Some(threshold), Some(whole)) = (hard, total.get(resource)) {
            // Pods that took this, too, would be evicted at once.
            let left = allocatable.entry(resource.to_owned()).or_default();
            *left = left.saturating_sub(threshold.least.of(*whole)).max(0);
        }
    }
    Capacity { total, allocatable }
}

/// A list as the Node object shows it.
pub fn shown(list: &ResourceList) -> Value {
    let quantity = |(name, amount): (&String, &i64)| (name.clone(), Value::from(quantity(name, *amount)));
    Value::Object(object_of(list.iter().map(quantity)))
}

fn quantity(resource: &str, amount: i64) -> String {
    match resource {
        "cpu" if amount % 1000 == 0 => (amount / 1000).to_string(),
        "cpu" => format!("{amount}m"),
        "memory" | "ephemeral-storage" => format!("{}Ki", amount / 1024),
        size if size.starts_with("hugepages-") => shown_quantity(amount, Form::Binary),
        _ => amount.to_string(),
    }
}

/// Bytes in each pool, by resource name, such as `hugepages-2Mi`.
fn huge_page_pools(directory: &Path) -> ResourceList {
    let pool = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let size: i64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        let count: i64 = fs::read_to_string(entry.path().join("nr_hugepages")).ok()?.trim().parse().ok()?;
        let bytes = size.saturating_mul(1024);
        Some((format!("hugepages-{}", shown_quantity(bytes, Form::Binary)), bytes.saturating_mul(count)))
    };
    map_of(fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok).filter_map(pool))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eviction::thresholds::parse_thresholds;
    use serde_json::json;

    #[test]
    fn huge_pages_are_memory_that_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        for (pool, count) in [("hugepages-2048kB", "3\n"), ("hugepages-1048576kB", "0\n")] {
            fs::create_dir(directory.path().join(pool)).unwrap();
            fs::write(directory.path().join(pool).join("nr_hugepages"), count).unwrap();
        }
        let pools = huge_page_pools(directory.path());
        assert_eq!(shown(&pools), json!({"hugepages-1Gi": "0", "hugepages-2Mi": "6Mi"}));
    }

    #[test]
    fn amounts_read_as_kubernetes_writes_them() {
        let list = [("cpu", 1500), ("memory", 4 << 30), ("pods", 110), ("example.com/gpu", 2)];
        let list = list.map(|(name, amount)| (name.to_owned(), amount)).into();
        let expected = json!({"cpu": "1500m", "memory": "4194304Ki", "pods": "110", "example.com/gpu": "2"});
        assert_eq!(shown(&list), expected);
    }

    #[test]
    fn a_machine_has_what_its_file_system_has() {
        let capacity =
            machine_capacity(2, 4 << 30, 7, Path::new("/"), &parse_thresholds("memory.available<100Mi").unwrap());
        assert_eq!((capacity.total["cpu"], capacity.total["pods"]), (2000, 7));
        assert!(capacity.total["ephemeral-storage"] > 0);
        assert!(capacity.allocatable["memory"] <= (4 << 30) - (100 << 20));
    }
}
