//! Changes the limits of a Pod that runs.

use spec::SandboxId;

use super::Kernel;
use super::cgroups::{CgroupError, CgroupPath, Unit};
use super::records::SANDBOXES;
use super::sandbox::run_error;
use crate::config::{LinuxResources, QosClass};
use crate::error::RuntimeError;

impl Kernel {
    /// The cgroup first: a daemon that dies in between sets it again from what the agent wants.
    pub(super) async fn update_sandbox_resources(
        &self,
        id: &SandboxId,
        resources: &LinuxResources,
    ) -> Result<(), RuntimeError> {
        let mut record = self.state.sandbox_record(id)?;
        let pod = CgroupPath::of(&record.config);
        if pod.is_ours() {
            self.cgroups
                .limit(&pod, resources, Unit::Pod)
                .map_err(|source| run_error(&record.config, "change its limits", source))?;
        }
        record.config.resources = resources.clone();
        self.store.put_record(SANDBOXES, id.as_str(), &record).await?;
        if let Some(sandbox) = self.state.lock().sandboxes.get_mut(id) {
            sandbox.record.config.resources = resources.clone();
        }
        self.weigh_class(record.config.qos).map_err(|e| run_error(&record.config, "change the weight of its class", e))
    }

    /// Burstable Pods share what all of them ask for, against Guaranteed ones and the class of those that ask for nothing
    /// (the kubelet's `setCPUCgroupConfig`).
    pub(super) fn weigh_class(&self, class: QosClass) -> Result<(), CgroupError> {
        if class != QosClass::Burstable {
            return self.cgroups.weigh(class, None);
        }
        let asked = self.state.lock().sandboxes.values().map(|sandbox| &sandbox.record).fold(0_u64, |sum, record| {
            let counts = record.config.qos == class && !record.stopped;
            sum.saturating_add(record.config.resources.cpu_request_millis.filter(|_| counts).unwrap_or(0))
        });
        self.cgroups.weigh(class, Some(asked))
    }
}
