//! Whether the image of a container is on this machine, and the kubelet's words if it is not. Pure.

use image::{Image, ImageStore};
use spec::k8s_openapi::api::core::v1::Container;

use crate::backoff::RetryBackOff;
use crate::clock::BootTime;
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
    /// It is not there, and there is no registry to pull it from.
    Absent,
}

/// Finds the image of a container.
pub fn find_image(images: &ImageStore, container: &Container) -> Result<Image, ImageProblem> {
    let reference = image_of(container);
    match images.resolve(reference) {
        Ok(Some(image)) => Ok(image),
        Ok(None) if container.image_pull_policy.as_deref() == Some("Never") => Err(ImageProblem::NeverPull),
        Ok(None) => Err(ImageProblem::Absent),
        Err(error) => Err(ImageProblem::InvalidName { message: error.to_string() }),
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

/// What to say about a problem: the waiting state, and the events in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageComplaint {
    /// `state.waiting`.
    pub waiting: Waiting,
    /// Reason and message of warnings.
    pub events: Vec<(&'static str, String)>,
}

/// Words a problem as the kubelet does (`pkg/kubelet/images`). While the back-off runs, nothing is tried again.
pub fn complain(
    problem: &ImageProblem,
    container: &Container,
    back_off: Option<&RetryBackOff>,
    now: BootTime,
) -> ImageComplaint {
    let image = image_of(container);
    match problem {
        ImageProblem::InvalidName { message } => {
            let message = format!("Failed to apply default image tag {image:?}: {message}");
            ImageComplaint {
                events: vec![("InspectFailed", message.clone()), ("Failed", "Error: InvalidImageName".to_owned())],
                waiting: Waiting { reason: "InvalidImageName", message },
            }
        }
        ImageProblem::NeverPull => {
            let message = format!("Container image {image:?} is not present with pull policy of Never");
            ImageComplaint {
                events: vec![("ErrImageNeverPull", message.clone()), ("Failed", "Error: ErrImageNeverPull".to_owned())],
                waiting: Waiting { reason: "ErrImageNeverPull", message },
            }
        }
        ImageProblem::Absent => {
            let absent = format!(
                "image {image:?} is not on this machine, and there is no registry to pull it from; load it with: monopod image load"
            );
            if back_off.is_some_and(|back_off| now < back_off.until) {
                let message = format!("Back-off pulling image {image:?}: ErrImagePull: {absent}");
                return ImageComplaint {
                    events: vec![
                        ("BackOff", format!("Back-off pulling image {image:?}")),
                        ("Failed", "Error: ImagePullBackOff".to_owned()),
                    ],
                    waiting: Waiting { reason: "ImagePullBackOff", message },
                };
            }
            ImageComplaint {
                events: vec![
                    ("Failed", format!("Failed to pull image {image:?}: {absent}")),
                    ("Failed", "Error: ErrImagePull".to_owned()),
                ],
                waiting: Waiting { reason: "ErrImagePull", message: absent },
            }
        }
    }
}
