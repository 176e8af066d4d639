//! What containers and sandboxes use, as the kernel counts it.

use runtime::{CgroupUsage, ContainerStatus, ContainerUsage, DiskUsage, PodSandboxStatus, measure_tree};
use spec::Timestamp;
use tonic::Status;

use crate::errors::chain;
use crate::filter::{Filter, Listed};
use crate::kept::kept;
use crate::pod_sandboxes::nanos;
use crate::proto::{self, UInt64Value};
use crate::service::Cri;

impl Cri {
    pub(crate) async fn stats_of_container(&self, id: &str) -> Result<proto::ContainerStats, Status> {
        let container = self.find_container(id).await?;
        let usage = self.0.runtime.pod_usage(&container.pod_uid).await;
        container_stats(&container, usage.containers.iter().find(|usage| usage.id == container.id)).await
    }

    pub(crate) async fn stats_of_containers(
        &self,
        filter: Option<proto::ContainerStatsFilter>,
    ) -> Result<Vec<proto::ContainerStats>, Status> {
        let filter = Filter::from(filter);
        let mut stats = Vec::new();
        for container in self.0.runtime.list_containers().await {
            let config: proto::ContainerConfig = kept(&container.labels);
            let (id, sandbox) = (container.id.as_str(), container.sandbox_id.as_str());
            if filter.takes(Listed { id, sandbox, state: 0, labels: &config.labels }) {
                let usage = self.0.runtime.pod_usage(&container.pod_uid).await;
                let usage = usage.containers.iter().find(|usage| usage.id == container.id);
                stats.push(container_stats(&container, usage).await?);
            }
        }
        Ok(stats)
    }

    pub(crate) async fn stats_of_sandbox(&self, id: &str) -> Result<proto::PodSandboxStats, Status> {
        self.sandbox_stats(&self.find_sandbox(id).await?).await
    }

    pub(crate) async fn stats_of_sandboxes(
        &self,
        filter: Option<proto::PodSandboxStatsFilter>,
    ) -> Result<Vec<proto::PodSandboxStats>, Status> {
        let filter = Filter::from(filter);
        let mut stats = Vec::new();
        for sandbox in self.0.runtime.list_pod_sandboxes().await {
            let config: proto::PodSandboxConfig = kept(&sandbox.labels);
            let id = sandbox.id.as_str();
            if filter.takes(Listed { id, sandbox: id, state: 0, labels: &config.labels }) {
                stats.push(self.sandbox_stats(&sandbox).await?);
            }
        }
        Ok(stats)
    }

    async fn sandbox_stats(&self, sandbox: &PodSandboxStatus) -> Result<proto::PodSandboxStats, Status> {
        let config: proto::PodSandboxConfig = kept(&sandbox.labels);
        let usage = self.0.runtime.pod_usage(&sandbox.uid).await;
        let (_, containers) = self.0.runtime.list_pod(&sandbox.uid).await;
        let mut of_containers = Vec::new();
        for container in containers.iter().filter(|container| container.sandbox_id == sandbox.id) {
            let used = usage.containers.iter().find(|usage| usage.id == container.id);
            of_containers.push(container_stats(container, used).await?);
        }
        let now = nanos(Timestamp::now());
        let (cpu, memory) = cpu_and_memory(usage.cgroup, now);
        Ok(proto::PodSandboxStats {
            attributes: Some(proto::PodSandboxAttributes {
                id: sandbox.id.to_string(),
                metadata: config.metadata,
                labels: config.labels,
                annotations: config.annotations,
            }),
            linux: Some(proto::LinuxPodSandboxStats {
                cpu: Some(cpu),
                memory: Some(memory),
                process: Some(proto::ProcessUsage {
                    timestamp: now,
                    process_count: Some(number(usage.cgroup.processes)),
                }),
                containers: of_containers,
                // Not counted here.
                network: None,
                io: None,
            }),
            windows: None,
        })
    }
}

async fn container_stats(
    container: &ContainerStatus,
    usage: Option<&ContainerUsage>,
) -> Result<proto::ContainerStats, Status> {
    let config: proto::ContainerConfig = kept(&container.labels);
    let now = nanos(Timestamp::now());
    let (cpu, memory) = cpu_and_memory(usage.map(|usage| usage.cgroup).unwrap_or_default(), now);
    let layer = match usage {
        Some(usage) => Some(filesystem(&usage.writable_layer, now).await?),
        None => None,
    };
    Ok(proto::ContainerStats {
        attributes: Some(proto::ContainerAttributes {
            id: container.id.to_string(),
            metadata: config.metadata,
            labels: config.labels,
            annotations: config.annotations,
        }),
        cpu: Some(cpu),
        memory: Some(memory),
        writable_layer: layer,
        // Containers have none.
        swap: None,
        io: None,
    })
}

/// How much of the disk a directory takes.
pub async fn filesystem(directory: &std::path::Path, now: i64) -> Result<proto::FilesystemUsage, Status> {
    let path = directory.to_owned();
    let measured = tokio::task::spawn_blocking(move || measure_tree(&path)).await;
    let measured = measured.map_err(|error| Status::internal(chain(&error)))?;
    let DiskUsage { bytes, inodes } =
        measured.map_err(|error| Status::unknown(format!("cannot measure {}: {error}", directory.display())))?;
    Ok(proto::FilesystemUsage {
        timestamp: now,
        fs_id: Some(proto::FilesystemIdentifier { mountpoint: directory.to_string_lossy().into_owned() }),
        used_bytes: Some(number(bytes)),
        inodes_used: Some(number(inodes)),
    })
}

fn number(value: u64) -> UInt64Value {
    UInt64Value { value }
}

fn cpu_and_memory(usage: CgroupUsage, timestamp: i64) -> (proto::CpuUsage, proto::MemoryUsage) {
    let cpu = proto::CpuUsage {
        timestamp,
        usage_core_nano_seconds: Some(number(usage.cpu_nanos)),
        ..proto::CpuUsage::default()
    };
    let memory = proto::MemoryUsage {
        timestamp,
        working_set_bytes: Some(number(usage.working_set)),
        usage_bytes: Some(number(usage.memory)),
        ..proto::MemoryUsage::default()
    };
    (cpu, memory)
}
