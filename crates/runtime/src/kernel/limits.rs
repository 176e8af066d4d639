//! Changes the limits of a Pod that runs.

use spec::SandboxId;

use super::Kernel;
use super::cgroups::CgroupPath;
use super::records::SANDBOXES;
use super::sandbox::run_error;
use crate::config::LinuxResources;
use crate::error::RuntimeError;

impl Kernel {
    /// The cgroup first: a daemon that dies in between sets it again from what the agent wants.
    pub(super) async fn update_sandbox_resources(
        &self,
        id: &SandboxId,
        resources: &LinuxResources,
    ) -> Result<(), RuntimeError> {
        let mut record = self.state.sandbox_record(id)?;
        let pod = CgroupPath::pod(record.config.qos, &record.config.uid);
        self.cgroups
            .limit(&pod, resources, false)
            .map_err(|source| run_error(&record.config, "change its limits", source))?;
        record.config.resources = resources.clone();
        self.store.put_record(SANDBOXES, id.as_str(), &record).await?;
        if let Some(sandbox) = self.state.lock().sandboxes.get_mut(id) {
            sandbox.record.config.resources = resources.clone();
        }
        Ok(())
    }
}
