//! What the client of a new Pod has submitted, found in what is stored of it: that is all the client owns.
//!
//! To write a Pod as JSON is a good part of its admission, so it is written once, when it is complete. Kept of it as it was before
//! are the parts that admission completes, and there are few of them; they stand in their old places while its owners are noted.

use serde::Serialize;
use serde_json::Value;
use spec::k8s_openapi::api::core::v1::{Container, Pod};

/// The parts of a new Pod that admission completes, as its client has submitted them.
#[derive(Debug, Clone)]
pub struct Submitted(Vec<Part>);

/// Fields of one object within the Pod; those without a value were not there.
#[derive(Debug, Clone)]
struct Part {
    /// A JSON pointer.
    object: String,
    fields: Vec<(&'static str, Option<Value>)>,
}

impl Submitted {
    /// To be called before anything but defaults has been filled in: each field that [`super::pod::POD`] completes after that stands here.
    pub fn of(pod: &Pod) -> Result<Self, serde_json::Error> {
        let mut parts = vec![
            Part { object: String::new(), fields: vec![("status", written(pod.status.as_ref())?)] },
            Part {
                object: "/metadata".to_owned(),
                fields: vec![("annotations", written(pod.metadata.annotations.as_ref())?)],
            },
        ];
        let Some(spec) = &pod.spec else { return Ok(Self(parts)) };
        let fields = vec![
            ("imagePullSecrets", written(spec.image_pull_secrets.as_ref())?),
            ("nodeName", written(spec.node_name.as_ref())?),
            ("nodeSelector", written(spec.node_selector.as_ref())?),
            ("overhead", written(spec.overhead.as_ref())?),
            ("preemptionPolicy", written(spec.preemption_policy.as_ref())?),
            ("priority", written(spec.priority.as_ref())?),
            ("priorityClassName", written(spec.priority_class_name.as_ref())?),
            ("tolerations", written(spec.tolerations.as_ref())?),
            ("volumes", written(spec.volumes.as_ref())?),
        ];
        parts.push(Part { object: "/spec".to_owned(), fields });
        let containers = spec.containers.iter().enumerate().map(|container| ("containers", container));
        let init = spec.init_containers.iter().flatten().enumerate().map(|container| ("initContainers", container));
        for (list, (index, container)) in containers.chain(init) {
            parts.push(Part { object: format!("/spec/{list}/{index}"), fields: of_container(container)? });
        }
        for (index, container) in spec.ephemeral_containers.iter().flatten().enumerate() {
            let fields = vec![("securityContext", written(container.security_context.as_ref())?)];
            parts.push(Part { object: format!("/spec/ephemeralContainers/{index}"), fields });
        }
        Ok(Self(parts))
    }

    /// Puts these parts into the Pod that was made of it, and keeps those that were there; the second time all is as before.
    pub fn exchange(&mut self, pod: &mut Value) {
        for Part { object, fields } in &mut self.0 {
            let Some(object) = pod.pointer_mut(object).and_then(Value::as_object_mut) else { continue };
            for (field, kept) in fields {
                // Most are as they were.
                if kept.as_ref() == object.get(*field) {
                    continue;
                }
                *kept = match kept.take() {
                    Some(value) => object.insert((*field).to_owned(), value),
                    None => object.remove(*field),
                };
            }
        }
    }

    /// What was submitted, of the Pod that was made of it.
    pub fn found_in(&self, pod: &Value) -> Value {
        let mut pod = pod.clone();
        Self(self.0.clone()).exchange(&mut pod);
        pod
    }
}

fn of_container(container: &Container) -> Result<Vec<(&'static str, Option<Value>)>, serde_json::Error> {
    Ok(vec![
        ("resources", written(container.resources.as_ref())?),
        ("securityContext", written(container.security_context.as_ref())?),
        ("volumeMounts", written(container.volume_mounts.as_ref())?),
    ])
}

fn written<T: Serialize>(field: Option<&T>) -> Result<Option<Value>, serde_json::Error> {
    field.map(serde_json::to_value).transpose()
}
