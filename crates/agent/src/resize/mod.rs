//! In-place resize: a running pod gets more or less CPU and memory, as far as the node has it (KEP-1287).
//!
//! First the node consents (or the resize is deferred, or infeasible), which is durable; then the cgroups follow, and what
//! must be started anew is. A program that uses more memory than its new limit would leave keeps its old one.

mod allocation;
mod plan;
mod told;

use std::time::Duration;

use spec::Timestamp;
use spec::k8s_openapi::api::core::v1 as core;
use spec::k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use spec::placement::Demand;

pub(crate) use allocation::{Allocation, allocation_of, apply};

use crate::actions::{PodActions, StopCause, StopContainer};
use crate::clock::{BootTime, Now};
use crate::container_config::pod_limits;
use crate::desired::DesiredPod;
use crate::events::EventSubject;
use crate::observation::PodObservation;
use crate::worker::{Next, PassError, PodWorker};
use plan::{Step, deferred, infeasible, steps, widest};
use told::told;

/// When a resize that failed is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// What of a resize the status tells.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ResizeState {
    /// Resources that the spec wishes for and that were not granted.
    pub(crate) wanted: Option<Allocation>,
    /// Reason and message of `PodResizePending`.
    pending: Option<(&'static str, String)>,
    /// Whether containers do not have yet what was granted.
    in_progress: bool,
    /// What hinders that.
    error: Option<String>,
    /// When to try again.
    pub(crate) retry_at: Option<BootTime>,
}

impl PodWorker {
    /// Brings resources to what the spec wishes for; what comes instead of the rest of the pass, if anything does.
    pub(crate) async fn resize(
        &mut self,
        desired: &DesiredPod,
        observed: &PodObservation,
        now: Now,
    ) -> Result<Option<Next>, PassError> {
        self.resize.retry_at = None;
        match self.resize.wanted.clone() {
            Some(wanted) => {
                if self.grant(desired, wanted).await? {
                    return Ok(Some(Next::Again));
                }
            }
            None => self.resize.pending = None,
        }
        self.carry_out(desired, observed, now).await
    }

    /// Whether the node consents; it is durable then.
    async fn grant(&mut self, desired: &DesiredPod, wanted: Allocation) -> Result<bool, PassError> {
        let mut whole = desired.object.clone();
        if let Some(spec) = &mut whole.spec {
            allocation::set(spec, &wanted);
        }
        let (demand, node) = (Demand::of(&whole), self.shared.node_view());
        let wanted_spec = whole.spec.unwrap_or_default();
        let refused = match infeasible(&demand, &node) {
            Some(message) => Some(("Infeasible", message)),
            None => {
                self.shared.room.resize(&self.uid, demand, &node).err().map(|misfit| ("Deferred", deferred(&misfit)))
            }
        };
        let Some((reason, message)) = refused else {
            self.save_record(|record| record.allocated = Some(wanted)).await?;
            self.shared.look_for_room();
            // To be read again, with what was granted.
            self.desired = None;
            let message = told("started", &wanted_spec, desired.generation(), None);
            self.shared.events.normal(EventSubject::pod(desired), "ResizeStarted", message);
            return Ok(true);
        };
        if self.resize.pending.as_ref() != Some(&(reason, message.clone())) {
            let text = told(reason, &wanted_spec, desired.generation(), Some(&message));
            self.shared.events.warning(EventSubject::pod(desired), format!("Resize{reason}"), text);
            self.resize.pending = Some((reason, message));
        }
        Ok(false)
    }

    /// Gives containers what was granted.
    async fn carry_out(
        &mut self,
        desired: &DesiredPod,
        observed: &PodObservation,
        now: Now,
    ) -> Result<Option<Next>, PassError> {
        let Some(sandbox) = observed.ready_sandbox() else { return Ok(None) };
        let steps = steps(desired, observed, self.shared.node.memory_bytes);
        // A daemon that was started with another limit of processes does not impose it on what runs.
        let whole = pod_limits(desired, sandbox.resources.pids_limit);
        let done = steps.is_empty() && sandbox.resources == whole;
        let was_in_progress = std::mem::replace(&mut self.resize.in_progress, !done);
        if done {
            self.resize.error = None;
            if was_in_progress {
                let message = told("completed", &desired.spec, desired.generation(), None);
                self.shared.events.normal(EventSubject::pod(desired), "ResizeCompleted", message);
            }
            return Ok(None);
        }
        let (restarts, updates): (Vec<Step>, Vec<Step>) = steps.into_iter().partition(|step| step.restart);
        if let Some(error) = self.below_usage(&updates, sandbox, &whole).await {
            return Ok(self.resize_failed(desired, error, now));
        }
        match self.update(sandbox, &whole, &updates, !restarts.is_empty()).await {
            Ok(()) => self.resize.error = None,
            Err(error) => return Ok(self.resize_failed(desired, crate::volumes::chain(&error), now)),
        }
        let stop = restarts.into_iter().map(|step| StopContainer {
            id: step.id,
            name: step.name,
            cause: StopCause::Resized,
            after: Vec::new(),
        });
        let actions = PodActions { stop: stop.collect(), ..PodActions::default() };
        let stopped = !actions.stop.is_empty() && self.stop_replaced(desired, observed, &actions, now).await?;
        Ok((stopped || !updates.is_empty()).then_some(Next::Again))
    }

    fn resize_failed(&mut self, desired: &DesiredPod, error: String, now: Now) -> Option<Next> {
        if self.resize.error.as_ref() != Some(&error) {
            let message = told("error", &desired.spec, desired.generation(), Some(&error));
            self.shared.events.warning(EventSubject::pod(desired), "ResizeError", message);
        }
        self.resize.error = Some(error);
        self.resize.retry_at = Some(now.boot.after(RETRY));
        None
    }

    /// The pod's own limits are never below those of its containers: wider first, and tight only in the end.
    async fn update(
        &self,
        sandbox: &runtime::PodSandboxStatus,
        whole: &runtime::LinuxResources,
        updates: &[Step],
        more_to_come: bool,
    ) -> Result<(), runtime::RuntimeError> {
        let between = widest(&sandbox.resources, whole);
        if between != sandbox.resources {
            self.shared.runtime.update_pod_sandbox_resources(&sandbox.id, &between).await?;
        }
        for step in updates {
            self.shared.runtime.update_container_resources(&step.id, &step.resources).await?;
        }
        if !more_to_come && between != *whole {
            self.shared.runtime.update_pod_sandbox_resources(&sandbox.id, whole).await?;
        }
        Ok(())
    }

    /// Why memory cannot be taken from a container, or from the pod: it is in use.
    async fn below_usage(
        &self,
        updates: &[Step],
        sandbox: &runtime::PodSandboxStatus,
        whole: &runtime::LinuxResources,
    ) -> Option<String> {
        let present = sandbox.resources.memory_limit_bytes.unwrap_or(u64::MAX);
        let pod_limit = whole.memory_limit_bytes.filter(|limit| *limit < present);
        let shrinks = |step: &&Step| {
            let present = step.present.memory_limit_bytes.unwrap_or(u64::MAX);
            step.resources.memory_limit_bytes.is_some_and(|limit| limit < present)
        };
        let mut shrinking = updates.iter().filter(shrinks).peekable();
        if shrinking.peek().is_none() && pod_limit.is_none() {
            return None;
        }
        let usage = self.shared.runtime.pod_usage(&self.uid).await;
        let says = |whose: &str, limit: u64, used: u64| {
            let fault = format!("attempting to set {whose} memory limit ({limit}) below current usage ({used})");
            (used >= limit).then(|| format!("cannot decrease memory limits: {fault}"))
        };
        let of_the_pod = pod_limit.and_then(|limit| says("pod", limit, usage.cgroup.working_set));
        of_the_pod.or_else(|| {
            shrinking.find_map(|step| {
                let limit = step.resources.memory_limit_bytes?;
                let used = usage.containers.iter().find(|one| one.id == step.id)?.cgroup.working_set;
                says(&format!("container {:?}", step.name.as_str()), limit, used)
            })
        })
    }
}

impl ResizeState {
    /// The conditions that tell of it.
    pub(crate) fn conditions(
        &self,
        stored: &core::PodStatus,
        generation: Option<i64>,
        now: Timestamp,
    ) -> Vec<core::PodCondition> {
        let pending =
            self.pending.as_ref().map(|(reason, message)| ("PodResizePending", Some(*reason), Some(message.clone())));
        let error = self.error.clone();
        let in_progress = (self.in_progress || error.is_some())
            .then(|| ("PodResizeInProgress", error.as_ref().map(|_| "Error"), error.clone()));
        let condition = |(type_, reason, message): (&str, Option<&str>, Option<String>)| {
            let before = stored.conditions.iter().flatten().find(|one| one.type_ == type_);
            core::PodCondition {
                type_: type_.to_owned(),
                status: "True".to_owned(),
                reason: reason.map(str::to_owned),
                message,
                observed_generation: generation,
                last_transition_time: before.and_then(|before| before.last_transition_time.clone()).or(Some(Time(now))),
                last_probe_time: None,
            }
        };
        pending.into_iter().chain(in_progress).map(condition).collect()
    }
}

#[cfg(test)]
mod tests;
