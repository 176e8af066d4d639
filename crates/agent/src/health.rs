//! What probes and hooks find out about the containers of a pod, in each of its worker's passes.

use std::net::IpAddr;

use runtime::ContainerStatus;
use spec::k8s_openapi::api::core::v1::{Container, LifecycleHandler};
use spec::ordered::set_of;
use spec::{ContainerId, ContainerName};

use crate::actions::{PodLifecycle, StopCause};
use crate::clock::Now;
use crate::desired::DesiredPod;
use crate::events::EventSubject;
use crate::hooks::{EndedHook, Hook, HookKind, Joined};
use crate::observation::{PodObservation, RunFindings, is_running};
use crate::probes::{ProbeContext, ProbeKind};
use crate::start::pod_addresses;
use crate::worker::{PassError, PodWorker};

impl PodWorker {
    /// Takes in how a hook ended, and tells what a person should know of it.
    pub(crate) fn note_hook(&mut self, joined: Joined) {
        let Some(EndedHook { id, name, kind, result: Err(_) }) = self.hooks.note(joined) else { return };
        // What a command printed may be secret, so neither event nor log has it.
        tracing::warn!(container = %name, container_id = %id, hook = ?kind, "a lifecycle hook failed");
        let Some(desired) = self.desired.clone() else { return };
        let subject = EventSubject::container(&desired, &name);
        match kind {
            HookKind::PostStart => self.shared.events.warning(subject, "FailedPostStartHook", "PostStartHook failed"),
            HookKind::PreStop => self.shared.events.warning(subject, "FailedPreStopHook", "PreStopHook failed"),
        }
    }

    /// Makes it durable which postStart hooks have returned: the others are run again by the next daemon.
    pub(crate) async fn settle_hooks(&mut self) -> Result<(), PassError> {
        if self.hooks.returned.is_empty() {
            return Ok(());
        }
        let ended = std::mem::take(&mut self.hooks.returned);
        let saved = self.save_record(|record| record.post_start.retain(|id| !ended.contains(id))).await;
        if saved.is_err() {
            self.hooks.returned = ended;
        }
        saved
    }

    /// Fills what is known of the containers that run, and begins the probes and hooks whose time has come.
    pub(crate) fn find_out(&mut self, desired: &DesiredPod, observed: &mut PodObservation, now: Now) {
        let running: Vec<_> = observed.containers.iter().filter(|run| is_running(run)).cloned().collect();
        let ids = set_of(running.iter().map(|run| run.id.clone()));
        for failed in self.hooks.retain(&ids) {
            self.post_start_failed(desired, &failed.name, failed.message, now);
        }
        self.kills.retain(|id, _| ids.contains(id));
        self.probes.see(desired, &running);
        let pending = self.record.iter().flat_map(|record| &record.post_start);
        observed.in_post_start = set_of(pending.filter(|id| ids.contains(*id)).cloned());
        let address = pod_addresses(observed.ready_sandbox(), desired, &self.shared.node.addresses).first().copied();
        for run in &running {
            let Some(container) = desired.container(&run.name).filter(|container| has_any(container)) else { continue };
            let in_hook = observed.in_post_start.contains(&run.id);
            if !in_hook {
                self.probe(desired, container, run, address, now);
            }
            observed.findings.insert(run.id.clone(), self.findings(container, run, in_hook));
        }
        self.begin_post_starts(desired, observed, address);
    }

    fn findings(&self, container: &Container, run: &ContainerStatus, in_hook: bool) -> RunFindings {
        let health = self.probes.health(container, &run.id);
        let hook = self.hooks.has_failed(&run.id).then_some(StopCause::PostStartFailed);
        let probe = || match health.failed? {
            ProbeKind::Startup => Some(StopCause::StartupFailed),
            ProbeKind::Liveness => Some(StopCause::LivenessFailed),
            ProbeKind::Readiness => None,
        };
        RunFindings {
            started: health.started && !in_hook,
            ready: health.ready && !in_hook,
            condemned: hook.or_else(probe),
        }
    }

    fn probe(
        &mut self,
        desired: &DesiredPod,
        container: &Container,
        run: &ContainerStatus,
        address: Option<IpAddr>,
        now: Now,
    ) {
        let context = ProbeContext {
            runtime: &self.shared.runtime,
            events: &self.shared.events,
            wake: &self.bells.wake,
            now: now.wall,
            daemon_started: self.shared.started_at,
            address,
        };
        let ending = self.lifecycle != PodLifecycle::Syncing;
        self.probes.probe(desired, container, run, ending, &context);
    }

    /// A pod that ends breaks off what its containers still do to begin.
    fn begin_post_starts(&mut self, desired: &DesiredPod, observed: &PodObservation, address: Option<IpAddr>) {
        for run in observed.containers.iter().filter(|run| observed.in_post_start.contains(&run.id)) {
            let container = desired.container(&run.name);
            let handler = container.and_then(|container| container.lifecycle.as_ref()?.post_start.as_ref());
            match (self.lifecycle, container, handler) {
                (PodLifecycle::Syncing, Some(container), Some(handler)) => {
                    let hook = self.hook(handler, desired, container, &run.id, address);
                    self.hooks.begin(HookKind::PostStart, &run.id, &run.name, hook);
                }
                (PodLifecycle::Syncing | PodLifecycle::Terminating { .. } | PodLifecycle::Terminated, _, _) => {
                    self.hooks.break_off(HookKind::PostStart, &run.id);
                }
            }
        }
    }

    /// Begins the preStop hook of a container that is going to be ended, if it has one.
    pub(crate) fn begin_pre_stop(
        &mut self,
        desired: &DesiredPod,
        observed: &PodObservation,
        id: &ContainerId,
        name: &ContainerName,
    ) {
        let Some(container) = desired.container(name) else { return };
        let Some(handler) = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref()) else {
            return;
        };
        let address = pod_addresses(observed.ready_sandbox(), desired, &self.shared.node.addresses).first().copied();
        let hook = self.hook(handler, desired, container, id, address);
        self.hooks.begin(HookKind::PreStop, id, name, hook);
    }

    fn hook(
        &self,
        handler: &LifecycleHandler,
        desired: &DesiredPod,
        container: &Container,
        id: &ContainerId,
        address: Option<IpAddr>,
    ) -> Hook {
        Hook::new(handler, desired, container, id, address, (&self.shared.runtime, &self.shared.events))
    }
}

fn has_any(container: &Container) -> bool {
    container.startup_probe.is_some()
        || container.readiness_probe.is_some()
        || container.liveness_probe.is_some()
        || has_post_start(container)
}

/// Whether something is to be done right after the container's start.
pub(crate) fn has_post_start(container: &Container) -> bool {
    container.lifecycle.as_ref().is_some_and(|lifecycle| lifecycle.post_start.is_some())
}
