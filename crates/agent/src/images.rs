//! What the pull policy asks for, and the kubelet's words about images (`pkg/kubelet/images`). Pure.

use std::time::Duration;

use image::{Image, ImageStore, LayerStage, PullProgress};
use spec::k8s_openapi::api::core::v1::{Container, ImageVolumeSource};

use crate::desired::image_of;
use crate::status::Waiting;

/// Why a container has no image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageProblem {
    /// The reference means nothing.
    InvalidName {
        /// Why.
        message: String,
    },
    /// `imagePullPolicy: Never`, and it is not there.
    NeverPull,
    /// It could not be pulled.
    PullFailed {
        /// The registry's word.
        message: String,
    },
    /// It could not be pulled, and is not tried again yet.
    BackingOff {
        /// Why it could not.
        message: String,
    },
}

/// An image that is asked for, by a container or by a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedImage {
    /// As the pod writes it.
    pub image: String,
    /// `Always`, `IfNotPresent` or `Never`.
    pub policy: String,
}

impl From<&Container> for WantedImage {
    fn from(container: &Container) -> Self {
        let policy = container.image_pull_policy.clone().unwrap_or_default();
        Self { image: image_of(container).to_owned(), policy }
    }
}

impl From<&ImageVolumeSource> for WantedImage {
    fn from(source: &ImageVolumeSource) -> Self {
        let policy = source.pull_policy.clone().unwrap_or_default();
        Self { image: source.reference.clone().unwrap_or_default(), policy }
    }
}

/// What is to be done for an image.
#[derive(Debug, Clone, PartialEq)]
pub enum ImageNeed {
    /// It is here and good as it is.
    Nothing(Box<Image>),
    /// The registry has to be asked.
    Pull,
    /// Nothing helps.
    Impossible(ImageProblem),
}

/// Decides by the pull policy. Without registries, what is here is good enough for `Always`.
pub fn need_of(images: &ImageStore, wanted: &WantedImage) -> ImageNeed {
    let present = match images.resolve(&wanted.image) {
        Ok(present) => present,
        Err(error) => return ImageNeed::Impossible(ImageProblem::InvalidName { message: error.to_string() }),
    };
    match (wanted.policy.as_str(), present) {
        ("Always", _) if images.has_registries() => ImageNeed::Pull,
        (_, Some(image)) => ImageNeed::Nothing(Box::new(image)),
        ("Never", None) => ImageNeed::Impossible(ImageProblem::NeverPull),
        (_, None) => ImageNeed::Pull,
    }
}

/// The event about an image that is there.
pub fn present_message(wanted: &WantedImage) -> String {
    let image = &wanted.image;
    match wanted.policy.as_str() {
        "Always" => format!(
            "Container image {image:?} already present on machine and used as it is: there is no registry to pull from"
        ),
        _ => format!("Container image {image:?} already present on machine and can be accessed by the pod"),
    }
}

/// The event about an image that came.
pub fn pulled_message(wanted: &WantedImage, took: Duration, size: u64) -> String {
    let (image, took) = (&wanted.image, go_duration_exact(took));
    format!("Successfully pulled image {image:?} in {took} ({took} including waiting). Image size: {size} bytes.")
}

/// What came of a pull that failed, with the way out if the image is here all the same: it was loaded, and `Always` asks
/// the registry for it, as on Kubernetes.
pub fn pull_failure(images: &ImageStore, wanted: &WantedImage, error: String) -> String {
    let image = &wanted.image;
    if wanted.policy != "Always" || !matches!(images.resolve(image), Ok(Some(_))) {
        return error;
    }
    format!(
        "{error}; image {image:?} is on this machine, but imagePullPolicy Always (the default for the tag latest) asks the registry: use IfNotPresent or Never to run what is here"
    )
}

/// How far a pull is; `None` until the layers are known.
pub fn progress_message(progress: &PullProgress) -> Option<String> {
    let layers = &progress.layers;
    let is_done = |stage: LayerStage| matches!(stage, LayerStage::Present | LayerStage::Pulled);
    let done = layers.iter().filter(|layer| is_done(layer.stage)).count();
    let coming = || layers.iter().filter(|layer| layer.stage != LayerStage::Present);
    let (size, received): (u64, u64) = (coming().map(|one| one.size).sum(), coming().map(|one| one.received).sum());
    let percent = received.saturating_mul(100).checked_div(size)?;
    let (size, received) = (megabytes(size), megabytes(received));
    Some(format!("pulling image: {percent} % ({received} of {size} MB), {done} of {} layers are here", layers.len()))
}

/// With one digit after the point.
fn megabytes(bytes: u64) -> String {
    format!("{}.{}", bytes / 1_000_000, bytes / 100_000 % 10)
}

/// The complaint about an image when there is no registry.
pub fn absent_message(wanted: &WantedImage) -> String {
    let image = &wanted.image;
    format!(
        "image {image:?} is not on this machine, and there is no registry to pull it from; load it with: monopod image load"
    )
}

/// What to say about a problem: the waiting state, and the events in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageComplaint {
    /// `state.waiting`.
    pub waiting: Waiting,
    /// Reason and message of warnings.
    pub events: Vec<(&'static str, String)>,
}

/// Words a problem as the kubelet does.
pub fn complain(problem: &ImageProblem, wanted: &WantedImage) -> ImageComplaint {
    let image = &wanted.image;
    let (reason, message, event) = match problem {
        ImageProblem::InvalidName { message } => {
            let message = format!("Failed to apply default image tag {image:?}: {message}");
            ("InvalidImageName", message.clone(), ("InspectFailed", message))
        }
        ImageProblem::NeverPull => {
            let message = format!("Container image {image:?} is not present with pull policy of Never");
            ("ErrImageNeverPull", message.clone(), ("ErrImageNeverPull", message))
        }
        ImageProblem::PullFailed { message } => {
            let event = ("Failed", format!("Failed to pull image {image:?}: {message}"));
            ("ErrImagePull", message.clone(), event)
        }
        ImageProblem::BackingOff { message } => {
            let event = format!("Back-off pulling image {image:?}");
            ("ImagePullBackOff", format!("{event}: ErrImagePull: {message}"), ("BackOff", event))
        }
    };
    let events = vec![event, ("Failed", format!("Error: {reason}"))];
    ImageComplaint { waiting: Waiting { reason, message }, events }
}

/// A duration as Go prints it, cut to milliseconds: `85ms`, `1.2s`, `1m2.5s`.
fn go_duration_exact(duration: Duration) -> String {
    let (seconds, millis) = (duration.as_secs(), duration.subsec_millis());
    if seconds == 0 {
        return if millis == 0 { "0s".to_owned() } else { format!("{millis}ms") };
    }
    let fraction = format!(".{millis:03}");
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    match (seconds / 3600, seconds / 60 % 60) {
        (0, 0) => format!("{seconds}{fraction}s"),
        (0, minutes) => format!("{minutes}m{}{fraction}s", seconds % 60),
        (hours, minutes) => format!("{hours}h{minutes}m{}{fraction}s", seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_print_as_in_go() {
        for (millis, text) in [
            (0, "0s"),
            (85, "85ms"),
            (1000, "1s"),
            (1200, "1.2s"),
            (1023, "1.023s"),
            (62_500, "1m2.5s"),
            (3_600_000, "1h0m0s"),
        ] {
            assert_eq!(go_duration_exact(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn progress_counts_what_has_to_come() {
        let layer = |size, received, stage| image::LayerProgress {
            digest: format!("sha256:{:064}", 1).parse().unwrap(),
            size,
            received,
            stage,
        };
        let layers = vec![
            layer(900_000_000, 0, LayerStage::Present),
            layer(3_000_000, 3_000_000, LayerStage::Pulled),
            layer(7_250_000, 100_000, LayerStage::Pulling),
        ];
        let message = progress_message(&PullProgress { layers }).unwrap();
        assert_eq!(message, "pulling image: 30 % (3.1 of 10.2 MB), 2 of 3 layers are here");
        assert_eq!(progress_message(&PullProgress::default()), None);
        assert_eq!(progress_message(&PullProgress { layers: vec![layer(5, 0, LayerStage::Present)] }), None);
    }

    #[test]
    fn problems_are_worded_as_the_kubelet_words_them() {
        let container = WantedImage { image: "x".to_owned(), policy: "Always".to_owned() };
        let said = |problem| {
            let complaint = complain(&problem, &container);
            (complaint.waiting.reason, complaint.waiting.message, complaint.events)
        };
        let message = "no such host".to_owned();
        let failed = said(ImageProblem::PullFailed { message: message.clone() });
        let events = vec![
            ("Failed", "Failed to pull image \"x\": no such host".to_owned()),
            ("Failed", "Error: ErrImagePull".to_owned()),
        ];
        assert_eq!(failed, ("ErrImagePull", message.clone(), events));
        let waiting = said(ImageProblem::BackingOff { message });
        let events = vec![
            ("BackOff", "Back-off pulling image \"x\"".to_owned()),
            ("Failed", "Error: ImagePullBackOff".to_owned()),
        ];
        let text = "Back-off pulling image \"x\": ErrImagePull: no such host".to_owned();
        assert_eq!(waiting, ("ImagePullBackOff", text, events));
        let pulled = pulled_message(&container, Duration::from_millis(1200), 42);
        assert_eq!(pulled, "Successfully pulled image \"x\" in 1.2s (1.2s including waiting). Image size: 42 bytes.");
    }
}
