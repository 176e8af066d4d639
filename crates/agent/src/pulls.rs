//! Pulls of one pod: they run beside the worker's passes, wake it when they end, and end when the pod does.

use std::sync::Arc;
use std::time::Duration;

use image::{Credentials, Image, Keyring, Pull};
use spec::image_ref::ImageReference;
use spec::k8s_openapi::api::core::v1::{Container, Secret};
use spec::{ContainerName, VolumeName};
use tokio_util::task::AbortOnDropHandle;

use crate::actions::{PodActions, StartContainer};
use crate::clock::BootTime;
use crate::config_objects::ConfigObjects as _;
use crate::desired::DesiredPod;
use crate::events::EventSubject;
use crate::images::{
    ImageNeed, ImageProblem, WantedImage, absent_message, need_of, present_message, progress_message, pull_failure,
    pulled_message,
};
use crate::observation::{LatestRun, PodObservation};
use crate::status::Waiting;
use crate::volumes::chain;
use crate::worker::PodWorker;

/// How often the status tells how far a pull is, at most.
const TOLD_EVERY: Duration = Duration::from_secs(2);
/// How often an event does.
const EVENT_EVERY: Duration = Duration::from_secs(20);

/// What an image is for: a container itself, or a volume that it mounts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ImageUse {
    pub(crate) container: ContainerName,
    pub(crate) volume: Option<VolumeName>,
}

impl ImageUse {
    /// All images that a container needs, its own first.
    pub(crate) fn all(desired: &DesiredPod, container: &Container) -> Vec<(Self, WantedImage)> {
        let name = ContainerName::new(&container.name);
        let own = (Self { container: name.clone(), volume: None }, WantedImage::from(container));
        let is_mounted = |volume: &str| container.volume_mounts.iter().flatten().any(|mount| mount.name == volume);
        let volumes = desired.spec.volumes.iter().flatten().filter(|volume| is_mounted(&volume.name));
        let of_volumes = volumes.filter_map(|volume| {
            let usage = Self { container: name.clone(), volume: Some(VolumeName::new(&volume.name)) };
            Some((usage, WantedImage::from(volume.image.as_ref()?)))
        });
        std::iter::once(own).chain(of_volumes).collect()
    }
}

/// A pull for one start of a container.
pub(crate) struct PullForStart {
    wanted: WantedImage,
    attempt: u32,
    started: BootTime,
    /// When an event told how far it is.
    announced: BootTime,
    outcome: PullOutcome,
}

enum PullOutcome {
    UnderWay { pull: Pull, _wakes: AbortOnDropHandle<()> },
    Done(Result<Box<Image>, String>),
}

/// What a container that is to start has.
pub(crate) enum ImageState {
    /// Its image; and what to tell of it, if it was there.
    Ready(Box<Image>, Option<String>),
    /// It comes.
    Pulling,
    /// None.
    Problem(ImageProblem),
}

impl PodWorker {
    /// Begins what must be pulled for containers that are about to start, while volumes and sandbox are made.
    pub(crate) fn begin_pulls(&mut self, desired: &DesiredPod, actions: &PodActions) {
        self.pulls.retain(|usage, _| actions.start.iter().any(|start| start.name == usage.container));
        for start in &actions.start {
            let Some(container) = desired.container(&start.name) else { continue };
            for (usage, wanted) in ImageUse::all(desired, container) {
                self.begin_pull(desired, &usage, &wanted, start);
            }
        }
    }

    /// The image that a container would start with now, if it is settled.
    pub(crate) fn image_at_hand(&self, container: &Container, start: &StartContainer) -> Option<Image> {
        let (usage, wanted) = (ImageUse { container: start.name.clone(), volume: None }, WantedImage::from(container));
        match self.pull_for(&usage, &wanted, start) {
            Some(PullForStart { outcome: PullOutcome::Done(Ok(image)), .. }) => self.shared.images.get(&image.id),
            Some(_) => None,
            None => match need_of(&self.shared.images, &wanted) {
                ImageNeed::Nothing(image) => Some(*image),
                ImageNeed::Pull | ImageNeed::Impossible(_) => None,
            },
        }
    }

    /// What has become of an image of a container that is to start; its events are told once.
    pub(crate) fn image_for(
        &mut self,
        desired: &DesiredPod,
        usage: &ImageUse,
        wanted: &WantedImage,
        start: &StartContainer,
    ) -> ImageState {
        let present = match need_of(&self.shared.images, wanted) {
            ImageNeed::Impossible(problem) => return ImageState::Problem(problem),
            ImageNeed::Nothing(image) => Some(image),
            ImageNeed::Pull => None,
        };
        if let Some(state) = self.pulled(desired, usage, wanted, start) {
            return state;
        }
        match present {
            Some(image) => ImageState::Ready(image, Some(present_message(wanted))),
            None if self.begin_pull(desired, usage, wanted, start) => {
                self.pulled(desired, usage, wanted, start).unwrap_or(ImageState::Pulling)
            }
            None => {
                let message = self.last_pull_error(&start.name, wanted).unwrap_or_else(|| absent_message(wanted));
                ImageState::Problem(ImageProblem::BackingOff { message })
            }
        }
    }

    /// False while a back-off runs. The pull may be over at once.
    fn begin_pull(
        &mut self,
        desired: &DesiredPod,
        usage: &ImageUse,
        wanted: &WantedImage,
        start: &StartContainer,
    ) -> bool {
        let started = self.shared.clock.boot();
        if self.pull_for(usage, wanted, start).is_some() {
            return true;
        }
        if need_of(&self.shared.images, wanted) != ImageNeed::Pull {
            return true;
        }
        if self.pull_backs_off(&start.name, wanted, started) {
            return false;
        }
        let outcome = match self.start_pull(desired, usage, wanted) {
            Ok(pull) => {
                let (waits, wake) = (pull.clone(), Arc::clone(&self.bells.wake));
                let wakes = tokio::spawn(async move {
                    // What came of it, the pass reads.
                    drop(waits.finished().await);
                    wake.notify_one();
                });
                PullOutcome::UnderWay { pull, _wakes: AbortOnDropHandle::new(wakes) }
            }
            Err(message) => PullOutcome::Done(Err(message)),
        };
        let (wanted, attempt) = (wanted.clone(), start.attempt);
        self.pulls.insert(usage.clone(), PullForStart { wanted, attempt, started, announced: started, outcome });
        true
    }

    fn start_pull(&self, desired: &DesiredPod, usage: &ImageUse, wanted: &WantedImage) -> Result<Pull, String> {
        let reference: ImageReference = wanted.image.parse().map_err(|_an_identifier| absent_message(wanted))?;
        if !self.shared.images.has_registries() {
            return Err(absent_message(wanted));
        }
        let message = format!("Pulling image {:?}", wanted.image);
        self.shared.events.normal(subject_of(desired, usage), "Pulling", message);
        let credentials = self.pull_credentials(desired, &reference)?;
        self.shared.images.pull(&reference, credentials).ok_or_else(|| absent_message(wanted))
    }

    fn pulled(
        &mut self,
        desired: &DesiredPod,
        usage: &ImageUse,
        wanted: &WantedImage,
        start: &StartContainer,
    ) -> Option<ImageState> {
        let pull = self.pull_for(usage, wanted, start)?;
        match &pull.outcome {
            PullOutcome::UnderWay { pull: under_way, .. } => {
                let Some(outcome) = under_way.outcome() else { return Some(ImageState::Pulling) };
                let took = self.shared.clock.boot().since(pull.started);
                let outcome =
                    outcome.map(Box::new).map_err(|error| pull_failure(&self.shared.images, wanted, chain(&*error)));
                if let Ok(image) = &outcome {
                    let message = pulled_message(wanted, took, image.size);
                    self.shared.events.normal(subject_of(desired, usage), "Pulled", message);
                }
                if let Some(pull) = self.pulls.get_mut(usage) {
                    pull.outcome = PullOutcome::Done(outcome);
                }
                self.pulled(desired, usage, wanted, start)
            }
            PullOutcome::Done(Ok(image)) => {
                if let Some(image) = self.shared.images.get(&image.id) {
                    return Some(ImageState::Ready(Box::new(image), None));
                }
                // Removed before it could be held: it is pulled again.
                self.pulls.remove(usage);
                None
            }
            PullOutcome::Done(Err(message)) => {
                let message = message.clone();
                // The next attempt, after the back-off, is another pull.
                self.pulls.remove(usage);
                Some(ImageState::Problem(ImageProblem::PullFailed { message }))
            }
        }
    }

    /// How far pulls are, for containers that never ran; and when to tell it again.
    pub(crate) fn pulls_under_way(
        &mut self,
        desired: &DesiredPod,
        observed: &PodObservation,
    ) -> (Vec<(ContainerName, Waiting)>, Option<BootTime>) {
        let now = self.shared.clock.boot();
        let mut told = Vec::new();
        // The kubelet's word for what comes before the first start.
        let reason = if desired.init_containers().is_empty() { "ContainerCreating" } else { "PodInitializing" };
        let mut is_any = false;
        for (usage, pull) in &mut self.pulls {
            let PullOutcome::UnderWay { pull: under_way, .. } = &pull.outcome else { continue };
            is_any = true;
            let Some(message) = progress_message(&under_way.progress()) else { continue };
            if now.since(pull.announced) >= EVENT_EVERY {
                pull.announced = now;
                let text = format!("Image {:?}: {message}", pull.wanted.image);
                self.shared.events.normal(subject_of(desired, usage), "Pulling", text);
            }
            if matches!(observed.latest_run(&usage.container), LatestRun::Never) {
                told.push((usage.container.clone(), Waiting { reason, message }));
            }
        }
        (told, is_any.then(|| now.after(TOLD_EVERY)))
    }

    fn pull_for(&self, usage: &ImageUse, wanted: &WantedImage, start: &StartContainer) -> Option<&PullForStart> {
        let pull = self.pulls.get(usage)?;
        (pull.wanted == *wanted && pull.attempt == start.attempt).then_some(pull)
    }

    /// Of the pod's `imagePullSecrets`, in their order. A missing one is told and left out, as with the kubelet.
    fn pull_credentials(&self, desired: &DesiredPod, reference: &ImageReference) -> Result<Vec<Credentials>, String> {
        let objects = self.objects();
        let (mut credentials, mut missing) = (Vec::new(), Vec::new());
        for secret in desired.spec.image_pull_secrets.iter().flatten() {
            let keyring = objects.secret(&secret.name).and_then(|object| keyring_of(&object));
            match keyring {
                Some(keyring) => {
                    let found = keyring.and_then(|keyring| keyring.find(reference));
                    let found = found.map_err(|error| format!("secret {:?}: {}", secret.name, chain(&error)))?;
                    credentials.extend(found);
                }
                None => missing.push(secret.name.as_str()),
            }
        }
        if !missing.is_empty() {
            let message = format!(
                "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                missing.join(", ")
            );
            self.shared.events.warning(EventSubject::pod(desired), "FailedToRetrieveImagePullSecret", message);
        }
        Ok(credentials)
    }
}

/// Volumes are the pod's, as with the kubelet.
pub(crate) fn subject_of(desired: &DesiredPod, usage: &ImageUse) -> EventSubject {
    match usage.volume {
        Some(_) => EventSubject::pod(desired),
        None => EventSubject::container(desired, &usage.container),
    }
}

/// `None` if the Secret is of another type.
fn keyring_of(secret: &Secret) -> Option<Result<Keyring, image::CredentialsError>> {
    let data = secret.data.as_ref()?;
    match secret.type_.as_deref() {
        Some("kubernetes.io/dockerconfigjson") => {
            data.get(".dockerconfigjson").map(|json| Keyring::from_docker_config(&json.0))
        }
        Some("kubernetes.io/dockercfg") => data.get(".dockercfg").map(|json| Keyring::from_dockercfg(&json.0)),
        _ => None,
    }
}
