//! Limits of containers, as CRI has them and as the runtime has them.

use runtime::LinuxResources;
use tonic::Status;

use crate::errors::{invalid, unsupported};
use crate::proto;

const FIELD: &str = "config.linux.resources";
/// The kernel's usual period, in microseconds.
const PERIOD_US: i64 = 100_000;

/// Translates. Zero means: nothing said.
pub fn translate(resources: &proto::LinuxContainerResources) -> Result<LinuxResources, Status> {
    refuse_unknown(resources)?;
    let period = if resources.cpu_period > 0 { resources.cpu_period } else { PERIOD_US };
    let cpu_limit_millis = (resources.cpu_quota > 0).then(|| resources.cpu_quota.saturating_mul(1000) / period);
    // Rounded up, so that the same shares come back.
    let cpu_request_millis =
        (resources.cpu_shares > 0).then(|| (resources.cpu_shares.saturating_mul(1000) + 1023) / 1024);
    let positive = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok());
    let oom_score_adj = match i32::try_from(resources.oom_score_adj) {
        Ok(score @ -1000..=1000) => Some(score),
        _ => return Err(invalid(&format!("{FIELD}.oom_score_adj"), "it is not from -1000 to 1000")),
    };
    Ok(LinuxResources {
        cpu_request_millis: positive(cpu_request_millis),
        cpu_limit_millis: positive(cpu_limit_millis),
        memory_limit_bytes: (resources.memory_limit_in_bytes > 0)
            .then_some(resources.memory_limit_in_bytes.unsigned_abs()),
        oom_score_adj,
        ..LinuxResources::default()
    })
}

fn refuse_unknown(resources: &proto::LinuxContainerResources) -> Result<(), Status> {
    let refuse = |field: &str, why: &str| Err(unsupported(&format!("{FIELD}.{field}"), why));
    if !resources.cpuset_cpus.is_empty() || !resources.cpuset_mems.is_empty() {
        return refuse(
            "cpuset_cpus",
            "containers are not bound to processors; the kubelet's cpuManagerPolicy must be none",
        );
    }
    if let Some(limit) = resources.hugepage_limits.iter().find(|limit| limit.limit > 0) {
        return refuse("hugepage_limits", &format!("pages of {} are not given out", limit.page_size));
    }
    // One killed for lack of memory takes the others of its container along in any case, on v2.
    let known = |(key, value): (&String, &String)| key == "memory.oom.group" && value == "1";
    if let Some(key) = resources.unified.iter().find(|entry| !known(*entry)).map(|(key, _)| key) {
        return refuse("unified", &format!("{key} is not set here"));
    }
    // Zero is said where swap does not matter; a container's swap is none.
    let swap = resources.memory_swap_limit_in_bytes;
    if swap > 0 && swap > resources.memory_limit_in_bytes {
        return refuse(
            "memory_swap_limit_in_bytes",
            "containers get no swap; the kubelet's swapBehavior must be NoSwap",
        );
    }
    Ok(())
}

/// What an update leaves unsaid stays as it is.
pub fn merge(present: &LinuxResources, update: &LinuxResources) -> LinuxResources {
    LinuxResources {
        cpu_request_millis: update.cpu_request_millis.or(present.cpu_request_millis),
        cpu_limit_millis: update.cpu_limit_millis.or(present.cpu_limit_millis),
        memory_limit_bytes: update.memory_limit_bytes.or(present.memory_limit_bytes),
        ..present.clone()
    }
}

/// As CRI tells them.
pub fn tell(resources: &LinuxResources) -> proto::LinuxContainerResources {
    let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    proto::LinuxContainerResources {
        cpu_period: if resources.cpu_limit_millis.is_some() { PERIOD_US } else { 0 },
        cpu_quota: resources.cpu_limit_millis.map_or(0, |millis| signed(millis).saturating_mul(PERIOD_US) / 1000),
        cpu_shares: resources.cpu_request_millis.map_or(0, |millis| signed(millis).saturating_mul(1024) / 1000),
        memory_limit_in_bytes: resources.memory_limit_bytes.map_or(0, signed),
        oom_score_adj: resources.oom_score_adj.map_or(0, i64::from),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_survive_the_way_there_and_back() {
        for (shares, quota, memory, score) in
            [(2, 0, 0, 1000), (102, 10_000, 64 << 20, -997), (512, 50_000, 1 << 40, 0), (262_144, 0, 0, 3)]
        {
            let asked = proto::LinuxContainerResources {
                cpu_period: if quota > 0 { PERIOD_US } else { 0 },
                cpu_quota: quota,
                cpu_shares: shares,
                memory_limit_in_bytes: memory,
                oom_score_adj: score,
                ..Default::default()
            };
            assert_eq!(tell(&translate(&asked).unwrap()), asked);
        }
        let half = proto::LinuxContainerResources { cpu_period: 50_000, cpu_quota: 25_000, ..Default::default() };
        assert_eq!(translate(&half).unwrap().cpu_limit_millis, Some(500));
    }

    #[test]
    fn what_cannot_be_given_is_refused_by_name() {
        let none = proto::LinuxContainerResources::default;
        let unified = [("memory.high".to_owned(), "1".to_owned())].into();
        for (asked, field) in [
            (proto::LinuxContainerResources { cpuset_cpus: "0-1".into(), ..none() }, "cpuset_cpus"),
            (proto::LinuxContainerResources { unified, ..none() }, "unified: memory.high"),
            (proto::LinuxContainerResources { oom_score_adj: 2000, ..none() }, "oom_score_adj"),
            (
                proto::LinuxContainerResources { memory_limit_in_bytes: 5, memory_swap_limit_in_bytes: 6, ..none() },
                "memory_swap_limit_in_bytes",
            ),
        ] {
            let status = translate(&asked).unwrap_err();
            assert!(status.message().contains(field), "{status:?}");
        }
        let group = [("memory.oom.group".to_owned(), "1".to_owned())].into();
        assert!(translate(&proto::LinuxContainerResources { unified: group, ..none() }).is_ok());
    }

    #[test]
    fn an_update_changes_what_it_names() {
        let present =
            LinuxResources { cpu_request_millis: Some(100), memory_limit_bytes: Some(5), ..Default::default() };
        let update = LinuxResources { memory_limit_bytes: Some(6), oom_score_adj: Some(0), ..Default::default() };
        let merged = merge(&present, &update);
        assert_eq!(
            (merged.cpu_request_millis, merged.memory_limit_bytes, merged.oom_score_adj),
            (Some(100), Some(6), None)
        );
    }
}
