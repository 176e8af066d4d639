//! Starts what a pass decided to start: record, images, volumes, sandbox, files, then the containers in their order.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::Either;
use image::Image;
use runtime::{ContainerConfig, Mount, PodSandboxStatus, RuntimeError, SandboxRest};
use spec::hosts::kernel_hostname;
use spec::k8s_openapi::api::core::v1::Container;
use spec::resources::Amounts;
use spec::{ContainerId, ContainerName, Digest};
use steps::{Within as _, step};
use store::StoreError;

use crate::actions::{PodActions, RunSandbox, StartContainer};
use crate::backoff::{INITIAL, LONGEST, RETRY, RetryBackOff, VOLUME_INITIAL, VOLUME_LONGEST};
use crate::clock::{BootTime, Now};
use crate::config_objects::StoredConfigObjects;
use crate::container_config::{ContainerParts, container_config, sandbox_config};
use crate::desired::{DesiredPod, image_of};
use crate::environment::{ContainerConfigError, EnvironmentSources, pod_environment};
use crate::events::EventSubject;
use crate::health::has_post_start;
use crate::images::{ImageNeed, ImageProblem, WantedImage, complain, need_of};
use crate::machine_needs;
use crate::observation::{PodObservation, is_running};
use crate::on_disk::on_disk;
use crate::pod_files::{self, file_mounts, hostname, make_termination_log, render_pod_files, write_pod_files};
use crate::pulls::{ImageState, ImageUse, subject_of};
use crate::records::{PodRecord, image_holder};
use crate::resize::allocation_of;
use crate::status::Waiting;
use crate::volumes::{
    PlannedVolume, VolumeCause, VolumeError, VolumeImages, VolumeKind, chain, has_changeable_files, plan_volumes,
    pod_tmpfs, set_up_on_disk, volume_mounts, write_secret,
};
use crate::worker::{PassError, PodWorker};

/// Waits after a sandbox that could not be made.
const SANDBOX_INITIAL: Duration = Duration::from_secs(1);
const SANDBOX_LONGEST: Duration = Duration::from_mins(1);
/// Each time that this has passed an event tells once more of an image that does not come (kubelet, `backOffPeriod`).
const IMAGE_TOLD_EVERY: Duration = RETRY;
/// After this the status of a missing image changes from `ErrImagePull` to `ImagePullBackOff`, as the kubelet's next
/// look at the pod does it.
const IMAGE_LOOK_AGAIN: Duration = Duration::from_secs(5);
/// A start that failed is not repeated sooner, even where its back-off begins with none.
const START_AGAIN: Duration = Duration::from_secs(1);

/// A container that could not be started.
#[derive(Debug, Clone)]
pub(crate) struct StartFailure {
    kind: FailureKind,
    /// The image that the pod asked for then.
    image: String,
    pub(crate) waiting: Waiting,
    pub(crate) not_before: BootTime,
    back_off: Option<RetryBackOff>,
    /// Which image is missing, if that is it.
    wanted: Option<WantedImage>,
    /// Why its last pull failed.
    pull_error: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FailureKind {
    /// Heals when the image is there.
    Image,
    /// Heals when an object is there.
    Config,
    /// Tried again after a while.
    Other,
}

/// How a start begins, before its first container runs.
enum Begun {
    /// The sandbox is there, and the first container, if its turn has come: created, or why not.
    Ready { sandbox: Box<PodSandboxStatus>, first: Option<Result<ContainerId, RuntimeError>> },
    /// It goes no further until then. `done`: a sandbox was made.
    Failed { done: bool, retry_at: BootTime },
}

/// What a pass that starts things came to.
type Started = (bool, Option<BootTime>);

impl PodWorker {
    /// Whether anything was done, and when to try again what could not be.
    pub(crate) async fn start(
        &mut self,
        desired: &Arc<DesiredPod>,
        observed: &PodObservation,
        actions: &PodActions,
        now: Now,
    ) -> Result<Started, PassError> {
        if actions.run_sandbox.is_none() && actions.start.is_empty() {
            return Ok((false, None));
        }
        self.announce_scheduled(desired);
        if let Some(waits) = self.wait_of_sandbox_or_volumes(desired, actions, now) {
            return Ok((false, Some(waits)));
        }
        let planned = match step!("plan its volumes").in_scope(|| self.plan(desired)) {
            Ok(planned) => planned,
            Err(error) => return Ok((false, Some(self.volume_failed(desired, &error, now)))),
        };
        self.begin_pulls(desired, actions);
        let mut ahead = false;
        if planned.iter().any(PlannedVolume::is_on_disk) {
            let (volumes, take) = (planned.clone(), self.directory_ahead(actions));
            let directory = self.paths.directory.clone();
            let made = on_disk(move || {
                let ahead = take();
                set_up_on_disk(&volumes, &directory, now.wall).map(|()| ahead)
            });
            match made.within(step!("make the volumes")).await? {
                Ok(taken) => ahead = taken,
                Err(error) => return Ok((false, Some(self.volume_failed(desired, &error, now)))),
            }
        }
        // Together: no program runs before both are durable, and the next daemon finds what is made also where its record is missing.
        let store = self.shared.store.clone();
        let mut keeping = std::pin::pin!(self.keep(desired, actions).within(step!("keep its record and images")));
        let (kept, begun) = {
            let beginning = std::pin::pin!(self.begin(desired, observed, actions, (&planned, ahead), now));
            match futures::future::select(keeping.as_mut(), beginning).await {
                Either::Left((kept, beginning)) => (Some(kept), beginning.await),
                Either::Right((begun, _)) => (None, begun),
            }
        };
        let mut unkept = match (kept, &begun) {
            (Some(kept), _) => {
                self.note_kept(kept)?;
                None
            }
            // The record of a container takes them along, and its start waits for that.
            (None, Ok(Begun::Ready { first: Some(Ok(_)), .. })) => Some(keeping),
            (None, _) => {
                let (kept, _) = tokio::join!(keeping, store.flush());
                self.note_kept(kept)?;
                None
            }
        };
        let (sandbox, mut first) = match begun? {
            Begun::Ready { sandbox, first } => (sandbox, first),
            Begun::Failed { done, retry_at } => return Ok((done, Some(retry_at))),
        };
        let mut done = actions.run_sandbox.is_some();
        for (number, start) in actions.start.iter().enumerate() {
            let created = match number {
                0 => first.take(),
                _ => self.create_container(desired, &sandbox, start, &planned).await?,
            };
            let Some(created) = created else { continue };
            let starting = self.start_container(desired, start, created).within(step!("start a container"));
            let started = match unkept.take() {
                Some(keeping) => {
                    let (started, kept) = tokio::join!(starting, keeping);
                    self.note_kept(kept)?;
                    started?
                }
                None => starting.await?,
            };
            done |= started;
            if started && desired.container(&start.name).is_some_and(has_post_start) {
                // The rest waits for its hook.
                break;
            }
        }
        Ok((done, None))
    }

    /// Makes the sandbox if need be, then writes the pod's files while the first container is created. `ahead`: their directory was made
    /// ahead, and they are in it.
    async fn begin(
        &mut self,
        desired: &Arc<DesiredPod>,
        observed: &PodObservation,
        actions: &PodActions,
        (planned, ahead): (&[PlannedVolume], bool),
        now: Now,
    ) -> Result<Begun, PassError> {
        let (sandbox, rest) = match (&actions.run_sandbox, observed.ready_sandbox()) {
            (Some(run), _) => {
                let made = self.run_sandbox(desired, observed, run, planned, now);
                match made.within(step!("make the sandbox")).await? {
                    Ok(begun) => begun,
                    Err(retry_at) => return Ok(Begun::Failed { done: false, retry_at }),
                }
            }
            (None, Some(sandbox)) => (sandbox.clone(), futures::future::ok(()).boxed()),
            // Never reached: without a sandbox one is to be made.
            (None, None) => return Ok(Begun::Failed { done: false, retry_at: now.boot.after(START_AGAIN) }),
        };
        // Whatever comes of it, the rest of the sandbox is made first: the next pass takes it for whole.
        let (config, unplanned) = match actions.start.first() {
            Some(start) => match self
                .plan_container(desired, &sandbox, start, planned)
                .within(step!("plan the first container"))
                .await
            {
                Ok(config) => (config, None),
                Err(error) => (None, Some(error)),
            },
            None => (None, None),
        };
        let creating = async { Some(self.shared.runtime.create_container(&sandbox.id, config?).await) };
        let (whole, filled, first) = tokio::join!(
            rest,
            self.fill_sandbox(desired, &sandbox, actions, (planned, ahead)).within(step!("write the pod's files")),
            creating.within(step!("create the first container")),
        );
        if let Err(error) = whole {
            // It never ran, so it counts for nothing.
            if let Some(Ok(id)) = first {
                self.shared.runtime.remove_container(&id).await?;
            }
            self.shared.runtime.remove_pod_sandbox(&sandbox.id).await?;
            return Ok(Begun::Failed { done: false, retry_at: self.sandbox_failed(desired, &error, now) });
        }
        if let Some(run) = &actions.run_sandbox {
            self.sandbox_failure = None;
            for dead in &run.dead {
                self.shared.runtime.remove_pod_sandbox(dead).await?;
            }
        }
        if let Some(error) = unplanned {
            return Err(error);
        }
        match filled? {
            Ok(warnings) => {
                for warning in warnings {
                    self.shared.events.warning(EventSubject::pod(desired), "DNSConfigForming", warning);
                }
            }
            Err(error) => {
                if let Some(Ok(id)) = first {
                    self.shared.runtime.remove_container(&id).await?;
                }
                let retry_at = self.volume_failed(desired, &error, now);
                return Ok(Begun::Failed { done: actions.run_sandbox.is_some(), retry_at });
            }
        }
        self.volume_failure = None;
        self.note_written(&sandbox.id, planned);
        Ok(Begun::Ready { sandbox: Box::new(sandbox), first })
    }

    /// Forgets failures whose reason is gone, so that what they held up starts at once.
    pub(crate) fn forget_healed_failures(&mut self, desired: &DesiredPod, observed: &PodObservation) {
        let addresses = pod_addresses(observed.ready_sandbox(), desired, &self.shared.node.addresses);
        let mut failures = std::mem::take(&mut self.failures);
        failures.retain(|name, failure| {
            let Some(container) = desired.container(name) else { return false };
            let healed = match failure.kind {
                _ if failure.image != image_of(container) => true,
                FailureKind::Image => failure
                    .wanted
                    .as_ref()
                    .is_none_or(|wanted| matches!(need_of(&self.shared.images, wanted), ImageNeed::Nothing(_))),
                FailureKind::Config => {
                    let name = pod_files::kernel_hostname(&self.shared.config, desired);
                    pod_environment(container, &self.sources(desired, &self.objects(), &addresses, &name)).is_ok()
                }
                FailureKind::Other => false,
            };
            !healed
        });
        self.failures = failures;
    }

    /// Writes what changed in `ConfigMap`s, Secrets and the pod itself into the volumes of running containers. An object
    /// that is gone leaves its volume as it is, as with the kubelet.
    pub(crate) async fn update_volumes(
        &mut self,
        desired: &DesiredPod,
        observed: &PodObservation,
        now: Now,
    ) -> Result<(), PassError> {
        let Some(sandbox) = observed.ready_sandbox() else { return Ok(()) };
        let changeable = desired.spec.volumes.iter().flatten().any(has_changeable_files);
        if !changeable || !observed.containers.iter().any(|run| run.sandbox_id == sandbox.id) {
            return Ok(());
        }
        let Ok(planned) = self.plan(desired) else { return Ok(()) };
        if self.is_written(&sandbox.id, &planned) {
            return Ok(());
        }
        let config_maps: Vec<_> =
            planned.iter().filter(|volume| matches!(volume.kind, VolumeKind::FilesOnDisk(_))).cloned().collect();
        let (directory, wall) = (self.paths.directory.clone(), now.wall);
        let on_disk = on_disk(move || set_up_on_disk(&config_maps, &directory, wall)).await?;
        let written = match on_disk {
            Ok(()) => self.write_secrets(sandbox, &planned).await,
            Err(error) => Err(error),
        };
        match written {
            Ok(()) => self.note_written(&sandbox.id, &planned),
            Err(error) => self.shared.events.warning(EventSubject::pod(desired), "FailedMount", error.to_string()),
        }
        Ok(())
    }

    fn announce_scheduled(&mut self, desired: &DesiredPod) {
        if !self.scheduled_announced && desired.status.start_time.is_none() {
            let message = format!("Successfully assigned {} to {}", desired.pod, self.shared.config.node_name);
            self.shared.events.of_start(EventSubject::pod(desired), "Scheduled", message);
        }
        self.scheduled_announced = true;
    }

    /// While a volume or the sandbox is in back-off nothing starts, unless a missing object has come meanwhile.
    fn wait_of_sandbox_or_volumes(&mut self, desired: &DesiredPod, actions: &PodActions, now: Now) -> Option<BootTime> {
        let sandbox = self.sandbox_failure.as_ref().filter(|_| actions.run_sandbox.is_some());
        if let Some(failure) = sandbox.filter(|failure| now.boot < failure.until) {
            return Some(failure.until);
        }
        let failure = self.volume_failure.as_ref().filter(|failure| now.boot < failure.until)?;
        let until = failure.until;
        if self.volumes_wait_for_objects && self.plan(desired).is_ok() {
            self.volume_failure = None;
            return None;
        }
        Some(until)
    }

    fn volume_failed(&mut self, desired: &DesiredPod, error: &VolumeError, now: Now) -> BootTime {
        self.shared.events.warning(EventSubject::pod(desired), "FailedMount", error.to_string());
        self.volumes_wait_for_objects = self.plan(desired).is_err();
        let failure =
            RetryBackOff::after_failure(self.volume_failure.as_ref(), VOLUME_INITIAL, VOLUME_LONGEST, now.boot);
        let until = failure.until;
        self.volume_failure = Some(failure);
        until
    }

    /// Writes the pod's record and holds the images of its containers, as far as that is not done: they have their places among
    /// the store's writes when this returns, and the record of a container takes them along. What is given waits until they are
    /// durable.
    fn keep(
        &mut self,
        desired: &DesiredPod,
        actions: &PodActions,
    ) -> impl Future<Output = Result<Vec<(ContainerName, Digest)>, StoreError>> + Send + use<> {
        let saving = self.record.is_none().then(|| {
            let record =
                PodRecord { allocated: Some(allocation_of(&desired.spec)), ..PodRecord::new(self.pod.clone()) };
            let saving = record.save_with_next(&self.shared.store, &self.uid);
            self.record = Some(record);
            saving
        });
        let holds = actions.start.iter().filter_map(|start| {
            let image = self.image_at_hand(desired.container(&start.name)?, start)?;
            let held = self.held_images.get(&start.name).is_some_and(|held| *held == image.id);
            (!held).then(|| {
                let holder = image_holder(&self.pod, &self.uid, &start.name);
                let holding = self.shared.images.hold_with_next(&image.id, &holder);
                let name = start.name.clone();
                // An image that is removed in this moment is missed when its container starts.
                async move { holding.await.ok().map(|image| (name, image.id)) }
            })
        });
        let holds = futures::future::join_all(holds.collect::<Vec<_>>());
        let saving = async move {
            match saving {
                Some(saving) => saving.await,
                None => Ok(()),
            }
        };
        async move {
            let (saved, images) = tokio::join!(saving, holds);
            saved.map(|()| images.into_iter().flatten().collect())
        }
    }

    fn note_kept(&mut self, kept: Result<Vec<(ContainerName, Digest)>, StoreError>) -> Result<(), PassError> {
        match kept {
            Ok(images) => {
                self.held_images.extend(images);
                Ok(())
            }
            Err(error) => {
                // Only a first one is written here.
                self.record = None;
                Err(error.into())
            }
        }
    }

    async fn run_sandbox(
        &mut self,
        desired: &DesiredPod,
        observed: &PodObservation,
        run: &RunSandbox,
        planned: &[PlannedVolume],
        now: Now,
    ) -> Result<Result<(PodSandboxStatus, SandboxRest), BootTime>, PassError> {
        if !run.dead.is_empty() {
            // What the dead sandbox' containers came to is told before their records go.
            self.publish(desired, observed, &BTreeMap::new(), false).await?;
            let message = "Pod sandbox changed, it will be killed and re-created.";
            self.shared.events.normal(EventSubject::pod(desired), "SandboxChanged", message);
        }
        for dead in &run.dead {
            self.shared.runtime.stop_pod_sandbox(dead).await?;
        }
        let name = match kernel_hostname(&desired.object, &hostname(&self.shared.config, desired)) {
            Ok(name) => name,
            Err(error) => return Ok(Err(self.sandbox_failed(desired, &error, now))),
        };
        let has_selinux = self.shared.config.has_selinux;
        if let Err(unmet) = machine_needs::check(desired, &self.shared.store, has_selinux) {
            return Ok(Err(self.sandbox_failed(desired, &unmet, now)));
        }
        let pids_limit = self.shared.config.pod_pids_limit;
        let config =
            sandbox_config(desired, run.attempt, name, self.paths.logs.clone(), pod_tmpfs(planned), pids_limit);
        match self.shared.runtime.begin_pod_sandbox(config).await {
            Ok(begun) => Ok(Ok(begun)),
            Err(error) => Ok(Err(self.sandbox_failed(desired, &error, now))),
        }
    }

    fn sandbox_failed(&mut self, desired: &DesiredPod, error: &dyn std::error::Error, now: Now) -> BootTime {
        let message = format!("Failed to create pod sandbox: {}", chain(error));
        self.shared.events.warning(EventSubject::pod(desired), "FailedCreatePodSandBox", message);
        let previous = self.sandbox_failure.as_ref();
        let failure = RetryBackOff::after_failure(previous, SANDBOX_INITIAL, SANDBOX_LONGEST, now.boot);
        let until = failure.until;
        self.sandbox_failure = Some(failure);
        until
    }

    /// Writes files that need the sandbox: those with its address, and Secrets in its memory. Gives what the events should say of
    /// the DNS configuration.
    async fn fill_sandbox(
        &self,
        desired: &Arc<DesiredPod>,
        sandbox: &PodSandboxStatus,
        actions: &PodActions,
        (planned, ahead): (&[PlannedVolume], bool),
    ) -> Result<Result<Vec<String>, VolumeError>, PassError> {
        let shared = Arc::clone(&self.shared);
        let (pod, directory) = (Arc::clone(desired), self.paths.directory.clone());
        let addresses = pod_addresses(Some(sandbox), desired, &self.shared.node.addresses);
        let runs: Vec<_> = actions.start.iter().map(|start| (start.name.clone(), start.attempt)).collect();
        let take = self.directory_ahead(actions);
        let files = on_disk(move || {
            let ahead = ahead || take();
            let files = render_pod_files(&shared.config, &pod, &addresses);
            write_pod_files(&directory, &files, ahead)?;
            // One made ahead has that of the first container.
            for (name, attempt) in runs.into_iter().skip(usize::from(ahead)) {
                make_termination_log(&directory, &name, attempt)?;
            }
            Ok::<_, crate::pod_files::PodFileError>(files)
        });
        let is_written = self.is_written(&sandbox.id, planned);
        let secrets = async { if is_written { Ok(()) } else { self.write_secrets(sandbox, planned).await } };
        let (files, secrets) = tokio::join!(files, secrets);
        Ok(match (files?, secrets) {
            (Ok(files), Ok(())) => Ok(files.dns_warnings),
            (Err(error), _) => {
                let volume = spec::VolumeName::new("pod-files");
                Err(VolumeError { volume, cause: VolumeCause::Unmet(chain(&error)) })
            }
            (_, Err(error)) => Err(error),
        })
    }

    /// Takes a directory that was made ahead, for a pod that has none and whose first container is to be started for the first
    /// time; whether it did. Blocks.
    fn directory_ahead(&self, actions: &PodActions) -> impl FnOnce() -> bool + Send + use<> {
        let first = actions.start.first().filter(|start| start.attempt == 0).map(|start| start.name.clone());
        let (ahead, directory) = (Arc::clone(&self.shared.directories_ahead), self.paths.directory.clone());
        move || first.is_some_and(|first| !directory.exists() && ahead.take(&directory, &first))
    }

    async fn write_secrets(&self, sandbox: &PodSandboxStatus, planned: &[PlannedVolume]) -> Result<(), VolumeError> {
        for volume in planned {
            let VolumeKind::FilesInMemory(payload) = &volume.kind else { continue };
            let root = match self.shared.runtime.open_pod_tmpfs(&sandbox.id, &volume.name).await {
                Ok(root) => root,
                Err(error) => {
                    return Err(VolumeError { volume: volume.name.clone(), cause: VolumeCause::Memory(error) });
                }
            };
            // In memory that waits for no disk.
            write_secret(&volume.name, payload, volume.group, &root, self.shared.clock.wall())?;
        }
        Ok(())
    }

    /// Creates a container; `None` while it cannot be: what hinders it is remembered.
    async fn create_container(
        &mut self,
        desired: &DesiredPod,
        sandbox: &PodSandboxStatus,
        start: &StartContainer,
        planned: &[PlannedVolume],
    ) -> Result<Option<Result<ContainerId, RuntimeError>>, PassError> {
        let Some(config) = self.plan_container(desired, sandbox, start, planned).await? else { return Ok(None) };
        let creating = self.shared.runtime.create_container(&sandbox.id, config);
        Ok(Some(creating.within(step!("create a container")).await))
    }

    /// What a container is created from; `None` while it cannot be: what hinders it is remembered.
    async fn plan_container(
        &mut self,
        desired: &DesiredPod,
        sandbox: &PodSandboxStatus,
        start: &StartContainer,
        planned: &[PlannedVolume],
    ) -> Result<Option<ContainerConfig>, PassError> {
        let Some(container) = desired.container(&start.name) else { return Ok(None) };
        let now = self.shared.clock.now();
        let Some((image, volume_images)) = self.images_for(desired, container, start, now).await? else {
            return Ok(None);
        };
        let addresses = pod_addresses(Some(sandbox), desired, &self.shared.node.addresses);
        let name = pod_files::kernel_hostname(&self.shared.config, desired);
        let objects = self.objects();
        let sources = self.sources(desired, &objects, &addresses, &name);
        let mut mounts = match mounts_of(container, planned, &volume_images, &self.paths.directory, &sources) {
            Ok(mounts) => mounts,
            Err((heals, error)) => {
                self.failed(desired, container, heals, "CreateContainerConfigError", error.to_string(), RETRY, now);
                return Ok(None);
            }
        };
        let target = match self.target_of(desired, sandbox, &start.name).await {
            Ok(target) => target,
            Err(message) => {
                let heals = FailureKind::Other;
                self.failed(desired, container, heals, "CreateContainerConfigError", message, RETRY, now);
                return Ok(None);
            }
        };
        mounts.extend(file_mounts(container, &self.paths.directory, start.attempt));
        let parts = ContainerParts {
            attempt: start.attempt,
            image: &image,
            sources: &sources,
            mounts,
            node_memory: self.shared.node.memory_bytes,
            target,
        };
        let config = match container_config(container, parts) {
            Ok(config) => config,
            Err(error) => {
                let lacks_objects = pod_environment(container, &sources).is_err();
                let heals = if lacks_objects { FailureKind::Config } else { FailureKind::Other };
                self.failed(desired, container, heals, "CreateContainerConfigError", error.to_string(), RETRY, now);
                return Ok(None);
            }
        };
        if let Some(back_off) = start.back_off.clone() {
            let name = start.name.clone();
            self.save_record(|record| drop(record.back_offs.insert(name, back_off))).await?;
        }
        if let Some(unstarted) = &start.unstarted {
            self.shared.runtime.remove_container(unstarted).await?;
        }
        Ok(Some(config))
    }

    /// Starts what was created. Whether anything came of it; what hindered it is remembered.
    async fn start_container(
        &mut self,
        desired: &DesiredPod,
        start: &StartContainer,
        created: Result<ContainerId, RuntimeError>,
    ) -> Result<bool, PassError> {
        let Some(container) = desired.container(&start.name) else { return Ok(false) };
        let (subject, now) = (EventSubject::container(desired, &start.name), self.shared.clock.now());
        let id = match created {
            Ok(id) => id,
            Err(error) => {
                let reason = match &error {
                    RuntimeError::ContainerConfig { .. } => "CreateContainerConfigError",
                    RuntimeError::NoSuchSandbox(_)
                    | RuntimeError::NoSuchContainer(_)
                    | RuntimeError::NotRunning { .. }
                    | RuntimeError::SandboxNotReady { .. }
                    | RuntimeError::SandboxSilent { .. }
                    | RuntimeError::RunSandbox { .. }
                    | RuntimeError::CreateContainer { .. }
                    | RuntimeError::StartContainer { .. }
                    | RuntimeError::Exec { .. }
                    | RuntimeError::Remove { .. }
                    | RuntimeError::Connect { .. }
                    | RuntimeError::Store(_) => "CreateContainerError",
                };
                let message = with_pod_of(error.in_words(), desired, container);
                self.failed(desired, container, FailureKind::Other, reason, message, RETRY, now);
                return Ok(false);
            }
        };
        self.shared.events.of_start(subject.clone(), "Created", "Container created");
        if has_post_start(container) {
            let id = id.clone();
            self.save_record(|record| record.post_start.extend([id])).await?;
        }
        if let Err(error) = self.shared.runtime.start_container(&id).await {
            let message = error.in_words();
            self.failed(desired, container, FailureKind::Other, "RunContainerError", message, START_AGAIN, now);
            return Ok(true);
        }
        self.failures.remove(&start.name);
        self.shared.events.of_start(subject, "Started", "Container started");
        Ok(true)
    }

    /// The image of a container and those of its volumes, held; `None` while one comes, or cannot.
    async fn images_for(
        &mut self,
        desired: &DesiredPod,
        container: &Container,
        start: &StartContainer,
        now: Now,
    ) -> Result<Option<(Box<Image>, VolumeImages)>, PassError> {
        let (mut own, mut volumes) = (None, VolumeImages::new());
        for (usage, wanted) in ImageUse::all(desired, container) {
            let (image, message) = match self.image_for(desired, &usage, &wanted, start) {
                ImageState::Ready(image, message) => (image, message),
                // Its end wakes the worker.
                ImageState::Pulling => return Ok(None),
                ImageState::Problem(problem) => {
                    self.image_failed(desired, container, &usage, wanted, problem, now);
                    return Ok(None);
                }
            };
            if let Some(message) = message {
                self.shared.events.of_start(subject_of(desired, &usage), "Pulled", message);
            }
            if let Some(volume) = usage.volume {
                self.hold_volume_image(&start.name, &image).await;
                volumes.insert(volume, image.id);
            } else {
                self.hold_image(&start.name, &image).await?;
                own = Some(image);
            }
        }
        Ok(own.map(|own| (own, volumes)))
    }

    /// Until the container's own image is given back, too.
    async fn hold_volume_image(&mut self, name: &ContainerName, image: &Image) {
        let key = (name.clone(), image.id.clone());
        if self.held_volumes.contains(&key) {
            return;
        }
        match self.shared.images.hold(&image.id, &image_holder(&self.pod, &self.uid, name)).await {
            Ok(_image) => drop(self.held_volumes.insert(key)),
            // Removed in this moment, or the store is full: mounting it will say so.
            Err(error) => {
                tracing::warn!(error = %chain(&error), container = %name, "cannot hold the image of a volume");
            }
        }
    }

    /// The running container whose processes an ephemeral container sees, if it has a target; or the kubelet's word for
    /// one that does not run.
    async fn target_of(
        &self,
        desired: &DesiredPod,
        sandbox: &PodSandboxStatus,
        name: &ContainerName,
    ) -> Result<Option<ContainerId>, String> {
        let Some(target) = desired.target_of(name) else { return Ok(None) };
        let (_, runs) = self.shared.runtime.list_pod(&self.uid).await;
        let found = runs.iter().find(|run| run.name == target && run.sandbox_id == sandbox.id && is_running(run));
        found.map(|run| Some(run.id.clone())).ok_or_else(|| format!("unable to find target container {target}"))
    }

    async fn hold_image(&mut self, name: &ContainerName, image: &Image) -> Result<(), PassError> {
        if self.held_images.get(name).is_some_and(|held| *held == image.id) {
            return Ok(());
        }
        let holder = image_holder(&self.pod, &self.uid, name);
        match self.shared.images.hold(&image.id, &holder).await {
            Ok(image) => drop(self.held_images.insert(name.clone(), image.id)),
            // Removed in this moment, or the store is full: creating the container will say so.
            Err(error) => tracing::warn!(error = %chain(&error), container = %name, "cannot hold an image"),
        }
        Ok(())
    }

    fn image_failed(
        &mut self,
        desired: &DesiredPod,
        container: &Container,
        usage: &ImageUse,
        wanted: WantedImage,
        problem: ImageProblem,
        now: Now,
    ) {
        let name = usage.container.clone();
        let complaint = complain(&problem, &wanted);
        let subject = subject_of(desired, usage);
        for (reason, message) in complaint.events {
            self.shared.events.warning(subject.clone(), reason, message);
        }
        let previous = self.failures.get(&name).and_then(|failure| failure.back_off.clone());
        let (back_off, not_before, pull_error) = match problem {
            ImageProblem::InvalidName { .. } | ImageProblem::NeverPull => {
                (None, now.boot.after(IMAGE_TOLD_EVERY), None)
            }
            ImageProblem::BackingOff { message } => {
                let until = previous.as_ref().map_or(now.boot, |running| running.until);
                (previous, until.min(now.boot.after(IMAGE_TOLD_EVERY)), Some(message))
            }
            ImageProblem::PullFailed { message } => {
                let back_off = RetryBackOff::after_failure(previous.as_ref(), INITIAL, LONGEST, now.boot);
                let look_again = now.boot.after(IMAGE_LOOK_AGAIN).min(back_off.until);
                (Some(back_off), look_again, Some(message))
            }
        };
        let (kind, image) = (FailureKind::Image, image_of(container).to_owned());
        let waiting = complaint.waiting;
        let wanted = Some(wanted);
        self.failures.insert(name, StartFailure { kind, image, waiting, not_before, back_off, wanted, pull_error });
    }

    /// Whether a pull of an image of the container failed so lately that it is not tried again yet.
    pub(crate) fn pull_backs_off(&self, name: &ContainerName, wanted: &WantedImage, now: BootTime) -> bool {
        let failure = self.failures.get(name).filter(|failure| failure.wanted.as_ref() == Some(wanted));
        failure.and_then(|failure| failure.back_off.as_ref()).is_some_and(|back_off| now < back_off.until)
    }

    /// Why the last pull of an image of the container failed.
    pub(crate) fn last_pull_error(&self, name: &ContainerName, wanted: &WantedImage) -> Option<String> {
        self.failures.get(name).filter(|failure| failure.wanted.as_ref() == Some(wanted))?.pull_error.clone()
    }

    #[expect(clippy::too_many_arguments, reason = "they are the fields of one failure")]
    fn failed(
        &mut self,
        desired: &DesiredPod,
        container: &Container,
        kind: FailureKind,
        reason: &'static str,
        message: String,
        wait: Duration,
        now: Now,
    ) {
        let name = ContainerName::new(&container.name);
        let subject = EventSubject::container(desired, &name);
        self.shared.events.warning(subject, "Failed", format!("Error: {message}"));
        let failure = StartFailure {
            kind,
            image: image_of(container).to_owned(),
            waiting: Waiting { reason, message },
            not_before: now.boot.after(wait),
            back_off: None,
            wanted: None,
            pull_error: None,
        };
        self.failures.insert(name, failure);
    }

    /// A container that was ended since its postStart hook failed waits as one that could not be started.
    pub(crate) fn post_start_failed(&mut self, desired: &DesiredPod, name: &ContainerName, message: String, now: Now) {
        let image = desired.container(name).map(image_of).unwrap_or_default().to_owned();
        let failure = StartFailure {
            kind: FailureKind::Other,
            image,
            waiting: Waiting { reason: "PostStartHookError", message },
            not_before: now.boot.after(START_AGAIN),
            back_off: None,
            wanted: None,
            pull_error: None,
        };
        self.failures.insert(name.clone(), failure);
    }

    pub(crate) fn objects(&self) -> StoredConfigObjects<'_> {
        let namespace = &self.pod.pod_namespace;
        StoredConfigObjects {
            store: &self.shared.store,
            namespace,
            tokens: &self.tokens,
            user: &self.uid,
            immutable: &self.shared.immutable,
        }
    }

    fn sources<'a>(
        &'a self,
        desired: &'a DesiredPod,
        objects: &'a StoredConfigObjects<'a>,
        pod_addresses: &'a [IpAddr],
        hostname: &'a str,
    ) -> EnvironmentSources<'a> {
        EnvironmentSources {
            desired,
            objects,
            pod_addresses,
            node_addresses: &self.shared.node.addresses,
            node_name: &self.shared.config.node_name,
            hostname,
            allocatable: self.allocatable(),
        }
    }

    /// What the node can give.
    fn allocatable(&self) -> Amounts {
        let allocatable = &self.shared.node.capacity.allocatable;
        Amounts { cpu_millis: allocatable.get("cpu").copied(), memory_bytes: allocatable.get("memory").copied() }
    }

    fn plan(&self, desired: &DesiredPod) -> Result<Vec<PlannedVolume>, VolumeError> {
        plan_volumes(desired, &self.objects(), self.allocatable())
    }
}

/// The kubelet says of whom such a refusal is (`verifyRunAsNonRoot`), which a runtime does not know.
fn with_pod_of(message: String, desired: &DesiredPod, container: &Container) -> String {
    if !message.starts_with("container has runAsNonRoot") {
        return message;
    }
    format!("{message} (pod: \"{}\", container: {})", desired.kubelet_name(), container.name)
}

/// The mounts of a container's volumes. Only `subPathExpr` needs the environment for that.
fn mounts_of(
    container: &Container,
    planned: &[PlannedVolume],
    images: &VolumeImages,
    directory: &Path,
    sources: &EnvironmentSources<'_>,
) -> Result<Vec<Mount>, (FailureKind, ContainerConfigError)> {
    let variables = if container.volume_mounts.iter().flatten().any(|mount| mount.sub_path_expr.is_some()) {
        pod_environment(container, sources).map_err(|error| (FailureKind::Config, error))?
    } else {
        Vec::new()
    };
    volume_mounts(container, planned, images, directory, &variables).map_err(|error| (FailureKind::Other, error))
}

pub(crate) fn pod_addresses(sandbox: Option<&PodSandboxStatus>, desired: &DesiredPod, node: &[IpAddr]) -> Vec<IpAddr> {
    match sandbox {
        Some(_) if desired.host_network() => node.to_vec(),
        Some(sandbox) => sandbox.addresses.clone(),
        None => Vec::new(),
    }
}
