//! Writes the status of a pod into the store, if it says anything new.

use std::collections::BTreeMap;

use runtime::{ContainerState, ContainerStatus, ExitReason};
use serde_json::Value;
use spec::decode::Writable as _;
use spec::k8s_openapi::api::core::v1 as core;
use spec::ordered::{map_of, sort_by_cached_key};
use spec::{ContainerId, ContainerName};
use store::{Change, ObjectValue, WriteError};

use crate::agent::pod_key;
use crate::desired::DesiredPod;
use crate::endings::{BY_THE_NODE, disrupt};
use crate::logs::files::RunLog;
use crate::logs::tail_text;
use crate::observation::PodObservation;
use crate::on_disk::on_disk;
use crate::pod_files::read_termination_log;
use crate::status::{StatusInputs, Waiting, pod_status};
use crate::timeline::{self, Shown};
use crate::worker::{PassError, PodWorker};

/// Lines and bytes of the log that stand in for a missing message (kubelet, `MaxContainerTerminationMessageLogLines`).
const FALLBACK_LINES: u64 = 80;
const FALLBACK_BYTES: usize = 2048;

/// A status that is durable.
pub(crate) struct StatusWritten {
    /// The revision of the object that it was written into.
    pub(crate) onto: Option<u64>,
    /// The object's revision since then.
    pub(crate) revision: Option<u64>,
}

impl PodWorker {
    /// Makes the status durable. `ended`: nothing of the pod will run again, so the phase is a terminal one.
    pub(crate) async fn publish(
        &mut self,
        desired: &DesiredPod,
        observed: &PodObservation,
        waiting: &BTreeMap<ContainerName, Waiting>,
        ended: bool,
    ) -> Result<(), PassError> {
        let status = self.next_status(desired, observed, waiting, ended);
        self.write_status(status, true).await?;
        Ok(())
    }

    /// The status as it is to be now; its changes are noted for the timeline.
    pub(crate) fn next_status(
        &mut self,
        desired: &DesiredPod,
        observed: &PodObservation,
        waiting: &BTreeMap<ContainerName, Waiting>,
        ended: bool,
    ) -> core::PodStatus {
        let newer = self.with_status_as_stored(desired);
        let desired = newer.as_ref().unwrap_or(desired);
        let inputs = StatusInputs {
            waiting: waiting.clone(),
            termination_messages: self.termination_messages.clone(),
            image_ids: self.image_ids(desired, observed),
            node_addresses: self.shared.node.addresses.clone(),
            ending: self.record.as_ref().and_then(|record| record.ending.clone()),
            ended,
        };
        let mut status = pod_status(desired, observed, &inputs, self.shared.clock.wall());
        let resize = self.resize.conditions(&desired.status, desired.generation(), self.shared.clock.wall());
        status.conditions.get_or_insert_default().retain(|condition| !condition.type_.starts_with("PodResize"));
        status.conditions.get_or_insert_default().extend(resize);
        if let Some(ending) = &inputs.ending {
            disrupt(&mut status, ending, &desired.status, self.shared.clock.wall());
        }
        self.note_changes(desired, &status);
        status
    }

    /// The Pod with the status that this pass has stored already, if it has: a condition that stays as it is keeps the time of
    /// that.
    fn with_status_as_stored(&self, desired: &DesiredPod) -> Option<DesiredPod> {
        let stored = self.shared.store.get(&pod_key(&self.pod))?;
        if stored.revision == desired.revision || spec::mirror::pod_uid(&stored.value) != Some(self.uid.as_str()) {
            return None;
        }
        let status = spec::decode::read(stored.value.get("status")?).ok()?;
        Some(DesiredPod { status, ..desired.clone() })
    }

    /// Makes a status durable that differs from the stored one; `None` if it does not. `bound`: the pod is this node's.
    pub(crate) async fn write_status(
        &self,
        status: core::PodStatus,
        bound: bool,
    ) -> Result<Option<StatusWritten>, PassError> {
        let mut status = status.write().unwrap_or_default();
        if let Some(stored) = self.shared.store.get(&pod_key(&self.pod)) {
            keep_foreign_conditions(&stored.value, &mut status);
            if stored.value.get("status") == Some(&status) {
                self.write_timeline().await;
                return Ok(None);
            }
        }
        let (uid, node) = (self.uid.clone(), bound.then(|| self.shared.config.node_name.clone()));
        let written = self.shared.store.write(pod_key(&self.pod), move |present| {
            let onto = present.map(|present| present.revision);
            let next = present
                .filter(|present| spec::mirror::pod_uid(&present.value.tree()) == Some(uid.as_str()))
                .and_then(|present| with_status(&present.value, status, node.as_deref()));
            Ok::<_, std::convert::Infallible>((next.map_or(Change::Keep, Change::Put), onto))
        });
        let (written, ()) = tokio::join!(written, self.write_timeline());
        match written {
            Ok(written) => Ok(Some(StatusWritten {
                onto: written.outcome,
                revision: written.object.map(|object| object.revision),
            })),
            Err(WriteError::Refused(never)) => match never {},
            Err(WriteError::Store(error)) => Err(error.into()),
        }
    }

    pub(crate) fn note_changes(&mut self, desired: &DesiredPod, status: &core::PodStatus) {
        let mut shown = self.shown.take().unwrap_or_else(|| Shown::of(desired, &desired.status));
        let timelines = self.shared.events.timelines();
        for moment in shown.advance(desired, status, self.shared.clock.wall()) {
            timelines.note(&self.uid, moment);
        }
        self.shown = Some(shown);
    }

    /// Moments go into the pod's file once its directory is there. They are for people: an error is told and no more.
    async fn write_timeline(&self) {
        let timelines = self.shared.events.timelines();
        let moments = timelines.waiting(&self.uid);
        if moments.is_empty() {
            return;
        }
        let directory = self.paths.directory.clone();
        let written = on_disk(move || (timeline::append(&directory, &moments), moments)).await;
        match written {
            Ok((Ok(true), moments)) => timelines.written(&self.uid, &moments),
            Ok((Ok(false), _)) => {}
            Ok((Err(error), moments)) => {
                timelines.written(&self.uid, &moments);
                tracing::warn!(%error, "cannot write the timeline");
            }
            Err(error) => tracing::error!(%error, "the writing of a timeline was lost"),
        }
    }

    fn image_ids(&self, desired: &DesiredPod, observed: &PodObservation) -> BTreeMap<ContainerName, String> {
        let names = desired.containers().map(|(_, container)| ContainerName::new(&container.name));
        map_of(names.filter_map(|name| {
            let run = observed.runs(&name).find(|run| run.state != ContainerState::Created)?;
            let digest = self.shared.images.get(&run.image_id).and_then(|image| image.repo_digests.first().cloned());
            Some((name.clone(), digest.unwrap_or_else(|| run.image_id.to_string())))
        }))
    }

    /// Reads what dead containers say of their end, once for each.
    pub(crate) async fn read_termination_messages(&mut self, observed: &PodObservation) -> Result<(), PassError> {
        let Some(desired) = self.desired.clone() else { return Ok(()) };
        let known = Self::known_runs(observed);
        self.termination_messages.retain(|id, _| known.contains(id));
        let dead = observed.containers.iter().filter(|run| !self.termination_messages.contains_key(&run.id));
        let dead: Vec<_> = dead.filter_map(|run| self.message_source(&desired, run)).collect();
        if dead.is_empty() {
            return Ok(());
        }
        let share = MAX_POD_MESSAGE_BYTES / desired.containers().count().max(1);
        // What a container has just written is little, and in memory; a log may be neither.
        let waits = dead.iter().any(|source| source.fallback.is_some());
        let read = move || {
            dead.into_iter().map(|source| (source.id.clone(), shortened(source.read(), share))).collect::<Vec<_>>()
        };
        self.termination_messages.extend(if waits { on_disk(read).await? } else { read() });
        Ok(())
    }

    fn message_source(&self, desired: &DesiredPod, run: &ContainerStatus) -> Option<MessageSource> {
        let failed = match &run.state {
            ContainerState::Exited(exit) => match exit.reason {
                ExitReason::StartFailed { .. } | ExitReason::Unknown => return None,
                ExitReason::Exited | ExitReason::OomKilled => exit.exit_code != 0,
            },
            ContainerState::Created | ContainerState::Running { .. } => return None,
        };
        let policy = desired.container(&run.name)?.termination_message_policy.as_deref();
        let directory = self.paths.logs.strip_prefix(&self.shared.config.log_dir).unwrap_or(&self.paths.logs);
        let log = RunLog {
            log_dir: self.shared.config.log_dir.clone(),
            directory: directory.join(run.name.as_str()),
            attempt: run.attempt,
        };
        Some(MessageSource {
            id: run.id.clone(),
            name: run.name.clone(),
            attempt: run.attempt,
            pod_dir: self.paths.directory.clone(),
            fallback: (failed && policy == Some("FallbackToLogsOnError")).then_some(log),
        })
    }
}

/// Bytes of all messages of a pod together (kubelet, `MaxPodTerminationMessageLogLength`).
const MAX_POD_MESSAGE_BYTES: usize = 12 << 10;

/// Where the message of a dead run is.
struct MessageSource {
    id: ContainerId,
    name: ContainerName,
    attempt: u32,
    pod_dir: std::path::PathBuf,
    fallback: Option<RunLog>,
}

impl MessageSource {
    fn read(&self) -> String {
        let message = read_termination_log(&self.pod_dir, &self.name, self.attempt);
        match &self.fallback {
            Some(log) if message.is_empty() => tail_text(log, FALLBACK_LINES, FALLBACK_BYTES).unwrap_or_else(|error| {
                tracing::warn!(%error, container = %self.name, "cannot read the log for a termination message");
                String::new()
            }),
            Some(_) | None => message,
        }
    }
}

fn shortened(mut message: String, bytes: usize) -> String {
    if message.len() > bytes {
        let end = (0..=bytes).rev().find(|&end| message.is_char_boundary(end)).unwrap_or_default();
        message.truncate(end);
    }
    message
}

/// The status with the conditions of other writers as they are in the store now.
fn keep_foreign_conditions(present: &Value, status: &mut Value) {
    let text =
        |condition: &Value, field: &str| condition.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let is_foreign = |condition: &Value| {
        let type_ = text(condition, "type");
        // Others tell of disruptions, too.
        let of_the_node = type_ == "DisruptionTarget" && text(condition, "reason") == BY_THE_NODE;
        !of_the_node && !crate::conditions::is_ours(&type_)
    };
    let Some(ours) = status.get_mut("conditions").and_then(Value::as_array_mut) else { return };
    ours.retain(|condition| !is_foreign(condition));
    let written: Vec<String> = ours.iter().map(|condition| text(condition, "type")).collect();
    let present = present.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    let foreign = present.filter(|condition| is_foreign(condition) && !written.contains(&text(condition, "type")));
    ours.extend(foreign.cloned());
    sort_by_cached_key(ours, |condition| crate::conditions::place(&text(condition, "type")));
}

/// The object with this status; `None` if that would take a terminal phase back.
fn with_status(present: &ObjectValue, mut status: Value, node_name: Option<&str>) -> Option<Value> {
    let phase = |status: Option<&Value>| status?.get("phase")?.as_str().map(str::to_owned);
    let is_terminal = |phase: Option<String>| matches!(phase.as_deref(), Some("Succeeded" | "Failed"));
    let tree = present.tree();
    keep_foreign_conditions(&tree, &mut status);
    if is_terminal(phase(tree.get("status"))) && !is_terminal(phase(Some(&status))) {
        return None;
    }
    drop(tree);
    let mut next = present.take_tree();
    let fields = next.as_object_mut()?;
    fields.insert("status".to_owned(), status);
    if let (Some(name), Some(spec)) = (node_name, fields.get_mut("spec").and_then(Value::as_object_mut)) {
        spec.insert("nodeName".to_owned(), Value::from(name));
    }
    Some(next)
}
