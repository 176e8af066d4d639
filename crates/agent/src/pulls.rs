//! Pulls of one pod: they run beside the worker's passes, wake it when they end, and end when the pod does.

use std::sync::Arc;

use image::{Credentials, Image, Keyring, Pull};
use spec::ContainerName;
use spec::image_ref::ImageReference;
use spec::k8s_openapi::api::core::v1::{Container, Secret};
use tokio_util::task::AbortOnDropHandle;

use crate::actions::{PodActions, StartContainer};
use crate::clock::BootTime;
use crate::config_objects::{ConfigObjects as _, StoredConfigObjects};
use crate::desired::{DesiredPod, image_of};
use crate::events::EventSubject;
use crate::images::{ImageNeed, ImageProblem, absent_message, need_of, present_message, pulled_message};
use crate::volumes::chain;
use crate::worker::PodWorker;

/// A pull for one start of a container.
pub(crate) struct PullForStart {
    /// As the pod writes it.
    image: String,
    attempt: u32,
    started: BootTime,
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
        self.pulls.retain(|name, _| actions.start.iter().any(|start| start.name == *name));
        for start in &actions.start {
            if let Some(container) = desired.container(&start.name) {
                self.begin_pull(desired, container, start);
            }
        }
    }

    /// The image that a container would start with now, if it is settled.
    pub(crate) fn image_at_hand(&self, container: &Container, start: &StartContainer) -> Option<Image> {
        match self.pull_for(container, start) {
            Some(PullForStart { outcome: PullOutcome::Done(Ok(image)), .. }) => self.shared.images.get(&image.id),
            Some(_) => None,
            None => match need_of(&self.shared.images, container) {
                ImageNeed::Nothing(image) => Some(*image),
                ImageNeed::Pull | ImageNeed::Impossible(_) => None,
            },
        }
    }

    /// What has become of the image of a container that is to start; its events are told once.
    pub(crate) fn image_for(
        &mut self,
        desired: &DesiredPod,
        container: &Container,
        start: &StartContainer,
    ) -> ImageState {
        let present = match need_of(&self.shared.images, container) {
            ImageNeed::Impossible(problem) => return ImageState::Problem(problem),
            ImageNeed::Nothing(image) => Some(image),
            ImageNeed::Pull => None,
        };
        if let Some(state) = self.pulled(desired, container, start) {
            return state;
        }
        match present {
            Some(image) => ImageState::Ready(image, Some(present_message(container))),
            None if self.begin_pull(desired, container, start) => {
                self.pulled(desired, container, start).unwrap_or(ImageState::Pulling)
            }
            None => {
                let message = self.last_pull_error(&start.name).unwrap_or_else(|| absent_message(container));
                ImageState::Problem(ImageProblem::BackingOff { message })
            }
        }
    }

    /// False while a back-off runs. The pull may be over at once.
    fn begin_pull(&mut self, desired: &DesiredPod, container: &Container, start: &StartContainer) -> bool {
        let started = self.shared.clock.boot();
        if self.pull_for(container, start).is_some() {
            return true;
        }
        if need_of(&self.shared.images, container) != ImageNeed::Pull {
            return true;
        }
        if self.pull_backs_off(&start.name, started) {
            return false;
        }
        let outcome = match self.start_pull(desired, container) {
            Ok(pull) => {
                let (waits, wake) = (pull.clone(), Arc::clone(&self.wake));
                let wakes = tokio::spawn(async move {
                    // What came of it, the pass reads.
                    drop(waits.finished().await);
                    wake.notify_one();
                });
                PullOutcome::UnderWay { pull, _wakes: AbortOnDropHandle::new(wakes) }
            }
            Err(message) => PullOutcome::Done(Err(message)),
        };
        let pull = PullForStart { image: image_of(container).to_owned(), attempt: start.attempt, started, outcome };
        self.pulls.insert(start.name.clone(), pull);
        true
    }

    fn start_pull(&self, desired: &DesiredPod, container: &Container) -> Result<Pull, String> {
        let reference: ImageReference =
            image_of(container).parse().map_err(|_an_identifier| absent_message(container))?;
        if !self.shared.images.has_registries() {
            return Err(absent_message(container));
        }
        let subject = EventSubject::container(desired, &ContainerName::new(&container.name));
        let message = format!("Pulling image {:?}", image_of(container));
        self.shared.events.normal(subject, "Pulling", message);
        let credentials = self.pull_credentials(desired, &reference)?;
        self.shared.images.pull(&reference, credentials).ok_or_else(|| absent_message(container))
    }

    fn pulled(&mut self, desired: &DesiredPod, container: &Container, start: &StartContainer) -> Option<ImageState> {
        let pull = self.pull_for(container, start)?;
        match &pull.outcome {
            PullOutcome::UnderWay { pull: under_way, .. } => {
                let Some(outcome) = under_way.outcome() else { return Some(ImageState::Pulling) };
                let took = self.shared.clock.boot().since(pull.started);
                let outcome = outcome.map(Box::new).map_err(|error| chain(&*error));
                if let Ok(image) = &outcome {
                    let subject = EventSubject::container(desired, &start.name);
                    self.shared.events.normal(subject, "Pulled", pulled_message(container, took, image.size));
                }
                if let Some(pull) = self.pulls.get_mut(&start.name) {
                    pull.outcome = PullOutcome::Done(outcome);
                }
                self.pulled(desired, container, start)
            }
            PullOutcome::Done(Ok(image)) => {
                if let Some(image) = self.shared.images.get(&image.id) {
                    return Some(ImageState::Ready(Box::new(image), None));
                }
                // Removed before it could be held: it is pulled again.
                self.pulls.remove(&start.name);
                None
            }
            PullOutcome::Done(Err(message)) => {
                let message = message.clone();
                // The next attempt, after the back-off, is another pull.
                self.pulls.remove(&start.name);
                Some(ImageState::Problem(ImageProblem::PullFailed { message }))
            }
        }
    }

    fn pull_for(&self, container: &Container, start: &StartContainer) -> Option<&PullForStart> {
        let pull = self.pulls.get(&start.name)?;
        (pull.image == image_of(container) && pull.attempt == start.attempt).then_some(pull)
    }

    /// Of the pod's `imagePullSecrets`, in their order. A missing one is told and left out, as with the kubelet.
    fn pull_credentials(&self, desired: &DesiredPod, reference: &ImageReference) -> Result<Vec<Credentials>, String> {
        let objects = StoredConfigObjects { store: &self.shared.store, namespace: &self.pod.pod_namespace };
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
