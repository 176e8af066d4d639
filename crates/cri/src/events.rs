//! `GetContainerEvents`: what happens to containers, as it happens.

use std::collections::HashMap;

use futures::Stream;
use futures::stream;
use runtime::{ContainerState, ContainerStatus};
use spec::{ContainerId, PodUid, Timestamp};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tonic::Status;

use crate::container_status;
use crate::pod_sandboxes::{self, nanos};
use crate::proto::{ContainerEventResponse, ContainerEventType};
use crate::service::Cri;

/// The step of its life that a container has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Created,
    Started,
    Stopped,
}

impl Step {
    fn of(state: &ContainerState) -> Self {
        match state {
            ContainerState::Created => Self::Created,
            ContainerState::Running { .. } => Self::Started,
            ContainerState::Exited(_) => Self::Stopped,
        }
    }

    fn event(self) -> ContainerEventType {
        match self {
            Self::Created => ContainerEventType::ContainerCreatedEvent,
            Self::Started => ContainerEventType::ContainerStartedEvent,
            Self::Stopped => ContainerEventType::ContainerStoppedEvent,
        }
    }
}

/// A caller's view: what it was told last of each container.
struct Watch {
    cri: Cri,
    changes: Receiver<runtime::RuntimeEvent>,
    known: HashMap<ContainerId, (PodUid, Step)>,
    waiting: Vec<ContainerEventResponse>,
}

impl Cri {
    /// Events from now on, until the caller goes.
    pub(crate) async fn watch(&self) -> impl Stream<Item = Result<ContainerEventResponse, Status>> + Send + use<> {
        let changes = self.0.runtime.events();
        let containers = self.0.runtime.list_containers().await;
        let known = containers.iter().map(|it| (it.id.clone(), (it.pod_uid.clone(), Step::of(&it.state)))).collect();
        let watch = Watch { cri: self.clone(), changes, known, waiting: Vec::new() };
        stream::unfold(watch, |mut watch| async move { Some((watch.next().await?, watch)) })
    }
}

impl Watch {
    async fn next(&mut self) -> Option<Result<ContainerEventResponse, Status>> {
        loop {
            if !self.waiting.is_empty() {
                return Some(Ok(self.waiting.remove(0)));
            }
            match self.changes.recv().await {
                Ok(change) => self.look(Some(&change.pod_uid)).await,
                // Some were missed: all are looked at.
                Err(RecvError::Lagged(_)) => self.look(None).await,
                Err(RecvError::Closed) => return None,
            }
        }
    }

    async fn look(&mut self, pod: Option<&PodUid>) {
        let (sandboxes, containers) = match pod {
            Some(uid) => self.cri.0.runtime.list_pod(uid).await,
            None => (self.cri.0.runtime.list_pod_sandboxes().await, self.cri.0.runtime.list_containers().await),
        };
        let of_sandbox = |container: &ContainerStatus| {
            sandboxes.iter().find(|sandbox| sandbox.id == container.sandbox_id).map(pod_sandboxes::status)
        };
        for container in &containers {
            let step = Step::of(&container.state);
            let before = self.known.insert(container.id.clone(), (container.pod_uid.clone(), step));
            let pod_sandbox_status = of_sandbox(container);
            for event in steps(before.map(|(_, step)| step), step) {
                let beside = containers.iter().filter(|other| other.sandbox_id == container.sandbox_id);
                self.waiting.push(ContainerEventResponse {
                    container_id: container.id.to_string(),
                    container_event_type: event as i32,
                    created_at: nanos(Timestamp::now()),
                    pod_sandbox_status: pod_sandbox_status.clone(),
                    containers_statuses: beside.map(container_status::status).collect(),
                });
            }
        }
        let gone = |id: &ContainerId, of: &PodUid| {
            pod.is_none_or(|pod| pod == of) && !containers.iter().any(|container| container.id == *id)
        };
        let deleted: Vec<ContainerId> =
            self.known.iter().filter(|(id, (of, _))| gone(id, of)).map(|(id, _)| id.clone()).collect();
        for id in deleted {
            self.known.remove(&id);
            self.waiting.push(ContainerEventResponse {
                container_id: id.to_string(),
                container_event_type: ContainerEventType::ContainerDeletedEvent as i32,
                created_at: nanos(Timestamp::now()),
                pod_sandbox_status: None,
                containers_statuses: Vec::new(),
            });
        }
    }
}

/// The steps between what was known and what is, each told once.
fn steps(before: Option<Step>, now: Step) -> Vec<ContainerEventType> {
    let all = [Step::Created, Step::Started, Step::Stopped];
    all.into_iter().filter(|step| before.is_none_or(|before| *step > before) && *step <= now).map(Step::event).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_step_is_left_out_and_none_told_twice() {
        use ContainerEventType::{
            ContainerCreatedEvent as Created, ContainerStartedEvent as Started, ContainerStoppedEvent as Stopped,
        };
        for (before, now, want) in [
            (None, Step::Created, vec![Created]),
            (None, Step::Stopped, vec![Created, Started, Stopped]),
            (Some(Step::Created), Step::Started, vec![Started]),
            (Some(Step::Created), Step::Stopped, vec![Started, Stopped]),
            (Some(Step::Started), Step::Started, vec![]),
        ] {
            assert_eq!(steps(before, now), want, "{before:?} {now:?}");
        }
    }
}
