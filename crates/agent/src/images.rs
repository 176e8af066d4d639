//! What the pull policy asks for, and the kubelet's words about images (`pkg/kubelet/images`). Pure.

use std::time::Duration;

use image::{Image, ImageStore};
use spec::k8s_openapi::api::core::v1::Container;

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

/// What is to be done for the image of a container.
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
pub fn need_of(images: &ImageStore, container: &Container) -> ImageNeed {
    let present = match images.resolve(image_of(container)) {
        Ok(present) => present,
        Err(error) => return ImageNeed::Impossible(ImageProblem::InvalidName { message: error.to_string() }),
    };
    match (container.image_pull_policy.as_deref(), present) {
        (Some("Always"), _) if images.has_registries() => ImageNeed::Pull,
        (_, Some(image)) => ImageNeed::Nothing(Box::new(image)),
        (Some("Never"), None) => ImageNeed::Impossible(ImageProblem::NeverPull),
        (_, None) => ImageNeed::Pull,
    }
}

/// The event about an image that is there.
pub fn present_message(container: &Container) -> String {
    let image = image_of(container);
    match container.image_pull_policy.as_deref() {
        Some("Always") => format!(
            "Container image {image:?} already present on machine and used as it is: there is no registry to pull from"
        ),
        _ => format!("Container image {image:?} already present on machine and can be accessed by the pod"),
    }
}

/// The event about an image that came.
pub fn pulled_message(container: &Container, took: Duration, size: u64) -> String {
    let (image, took) = (image_of(container), go_duration_exact(took));
    format!("Successfully pulled image {image:?} in {took} ({took} including waiting). Image size: {size} bytes.")
}

/// The complaint about an image when there is no registry.
pub fn absent_message(container: &Container) -> String {
    let image = image_of(container);
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
pub fn complain(problem: &ImageProblem, container: &Container) -> ImageComplaint {
    let image = image_of(container);
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
    fn problems_are_worded_as_the_kubelet_words_them() {
        let container = Container { image: Some("x".to_owned()), ..Container::default() };
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
