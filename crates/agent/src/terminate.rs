//! The end of a pod: its containers stop, its sandbox and volumes go, then its object, and at last what only the daemon knows of it.

use std::collections::BTreeMap;
use std::io::ErrorKind::NotFound;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use runtime::RuntimeError;
use steps::{Scope, Within as _, step};
use store::{Change, WriteError};

#[cfg(not(test))]
use crate::actions::containers_to_end;
use crate::actions::{PodLifecycle, StopContainer};
use crate::agent::pod_key;
use crate::clock::{BootTime, Now};
use crate::desired::DesiredPod;
use crate::directories::remove_tree;
use crate::events::EventSubject;
use crate::observation::PodObservation;
use crate::on_disk::on_disk;
use crate::records::{PodRecord, image_holders};
#[cfg(test)]
use crate::simulation::mutants::containers_to_end;
use crate::worker::{Next, PassError, PodWorker};

/// No container has less time than this to end, whatever is asked for and however much of the grace period others have
/// used up (kubelet, `minimumGracePeriodInSeconds`).
const LEAST_GRACE: Duration = Duration::from_secs(2);
/// preStop hooks have at least this, also those of a pod that is gone without any grace (kubelet,
/// `calculateEffectiveGracePeriod`).
pub(crate) const LEAST_POD_GRACE: Duration = Duration::from_secs(1);
/// Wait before a stop that failed is tried again.
const STOP_RETRY: Duration = Duration::from_secs(1);

/// When a pod that is being deleted must have ended. The object says it in wall time, which may jump: what remains is
/// never more than the grace period.
pub(crate) fn deadline_of(desired: &DesiredPod, now: Now) -> Option<BootTime> {
    let deletion = desired.object.metadata.deletion_timestamp.as_ref()?;
    let grace = desired.object.metadata.deletion_grace_period_seconds.unwrap_or_default();
    let grace = Duration::from_secs(u64::try_from(grace).unwrap_or_default());
    // The API writes whole seconds: without the lost fraction a program could have a second less than it was promised.
    let remaining = crate::clock::wall_between(now.wall, deletion.0).saturating_add(Duration::from_secs(1));
    Some(now.boot.after(remaining.min(grace.max(LEAST_POD_GRACE))))
}

/// The pod's own grace period.
pub(crate) fn grace_of(desired: &DesiredPod) -> Duration {
    let grace = desired.spec.termination_grace_period_seconds.and_then(|grace| u64::try_from(grace).ok());
    Duration::from_secs(grace.unwrap_or(30))
}

impl PodWorker {
    pub(crate) async fn terminate_pass(
        &mut self,
        desired: Option<&DesiredPod>,
        observed: &PodObservation,
        deadline: BootTime,
        now: Now,
    ) -> Result<Next, PassError> {
        let stop = containers_to_end(desired, observed);
        if stop.is_empty() {
            // One that was never let in has no end to tell of.
            if let Some(desired) = desired
                && self.is_admitted(desired, observed)
            {
                let status = self.next_status(desired, observed, &BTreeMap::new(), true);
                // Beside each other, infra told first: how the containers ended is known until the sandbox is removed, after this. One
                // that cannot be stopped cannot be removed either, and that is told.
                let stop = self.stop_sandboxes(observed).within(step!("stop the sandbox"));
                let publish = self.write_status(status, true).within(step!("publish the end"));
                let (_stopped, published) = tokio::join!(biased; stop, publish);
                published?;
            }
            self.lifecycle = PodLifecycle::Terminated;
            return self.clean_up(desired, observed).await;
        }
        let in_time = now.boot < deadline;
        if let Some(desired) = desired.or(self.removed.clone().as_deref()) {
            // All of them, also of those whose turn comes later (kubelet, `killContainer`).
            for container in &stop {
                self.announce_stop(desired, container);
                if in_time {
                    self.begin_pre_stop(desired, observed, &container.id, &container.name);
                }
            }
        }
        for container in stop.iter().filter(|stop| !in_time || stop.after.is_empty()) {
            self.stop_after_hook(container, deadline, now);
        }
        let waits = in_time && stop.iter().any(|stop| !stop.after.is_empty() || self.hooks.holds_back_stop(&stop.id));
        if *self.tell_at.get_or_insert(now.boot.after(self.shared.config.ending_delay)) <= now.boot {
            self.tell_at = None;
            if let Some(desired) = desired {
                self.publish(desired, observed, &BTreeMap::new(), false).await?;
            }
        }
        let times = self.stop_again_at(now.boot).into_iter().chain(self.tell_at).chain(waits.then_some(deadline));
        Ok(Next::Wait(times.min()))
    }

    /// When stops that failed are tried again. One that is due was asked for again by this pass; if not, nobody wants it any
    /// more: its container has ended, or its image was changed back.
    pub(crate) fn stop_again_at(&self, now: BootTime) -> Option<BootTime> {
        self.stop_failures.values().map(|failed| failed.after(STOP_RETRY)).filter(|at| *at > now).min()
    }

    /// Asks the runtime in the background, once for each nearer deadline.
    pub(crate) fn stop_container(&mut self, container: &StopContainer, deadline: BootTime, now: Now) {
        let asked = self.stopping.get(&container.id).copied();
        let failed = self.stop_failures.get(&container.id);
        if asked.is_some_and(|asked| asked <= deadline)
            || failed.is_some_and(|&failed| now.boot < failed.after(STOP_RETRY))
        {
            return;
        }
        // Asked again, it is no failure until it fails again: nobody looks again before.
        self.stop_failures.remove(&container.id);
        self.stopping.insert(container.id.clone(), deadline);
        let (runtime, id) = (Arc::clone(&self.shared.runtime), container.id.clone());
        let grace = deadline.since(now.boot).max(LEAST_GRACE);
        let step = Scope::of_pod(&self.shared.config.steps, self.uid.as_str()).in_scope(|| step!("end the container"));
        let stopping = async move {
            let result = runtime.stop_container(&id, None, grace).await;
            (id, result)
        };
        self.stops.spawn(stopping.within(step));
    }

    /// Gives back all that an ended pod holds. A pod that is not deleted keeps object, status and logs. The object of one that is
    /// goes once nothing runs and no volume is left; what remains of its files then is nobody's but the daemon's, and goes by the
    /// pod's record.
    pub(crate) async fn clean_up(
        &mut self,
        desired: Option<&DesiredPod>,
        observed: &PodObservation,
    ) -> Result<Next, PassError> {
        if !self.cleaned {
            self.give_back(desired, observed).within(step!("remove the sandbox")).await?;
            self.remove(&self.paths.directory.join("volumes")).within(step!("remove its volumes")).await?;
            self.shared.immutable.leave(&self.uid);
            self.cleaned = true;
            self.shared.make_room(&self.uid);
        }
        match desired {
            Some(desired) if desired.object.metadata.deletion_timestamp.is_none() => Ok(Next::Wait(None)),
            Some(_) => {
                self.object_gone = self.delete_object().within(step!("remove the object")).await?;
                self.forget().await?;
                if self.object_gone { Ok(Next::Gone) } else { self.give_up_grace().await }
            }
            None => {
                self.forget().await?;
                Ok(Next::Gone)
            }
        }
    }

    /// Removes the rest of the pod's files, and its record.
    async fn forget(&mut self) -> Result<(), PassError> {
        self.remove(&self.paths.directory).within(step!("remove its files")).await?;
        if self.record.is_some() {
            self.remove(&self.paths.logs).within(step!("remove its logs")).await?;
            PodRecord::delete(&self.shared.store, &self.uid);
            self.record = None;
            // Nobody waits for it any more. No daemon that comes next is to find it, nor a static pod that comes back with this UID.
            self.shared.store.flush().await?;
        }
        Ok(())
    }

    /// Sandboxes with their containers, and images.
    async fn give_back(&mut self, desired: Option<&DesiredPod>, observed: &PodObservation) -> Result<(), PassError> {
        if let Err(error) = self.remove_sandboxes(observed).await {
            if let Some(desired) = desired {
                let message = format!("error killing pod: {}", crate::volumes::chain(&error));
                self.shared.events.warning(EventSubject::pod(desired), "FailedKillPod", message);
            }
            return Err(error.into());
        }
        // All of them: a container of which neither spec nor runtime knows any more may have held one, too.
        self.shared.images.release_all(&image_holders(&self.pod, &self.uid));
        self.held_images.clear();
        self.held_volumes.clear();
        Ok(())
    }

    /// All that can be; gives the first failure.
    async fn stop_sandboxes(&self, observed: &PodObservation) -> Result<(), RuntimeError> {
        let stops = observed.sandboxes.iter().map(|sandbox| self.shared.runtime.stop_pod_sandbox(&sandbox.id));
        join_all(stops).await.into_iter().collect()
    }

    /// The same.
    async fn remove_sandboxes(&self, observed: &PodObservation) -> Result<(), RuntimeError> {
        let removals = observed.sandboxes.iter().map(|sandbox| self.shared.runtime.remove_pod_sandbox(&sandbox.id));
        join_all(removals).await.into_iter().collect()
    }

    async fn remove(&self, directory: &Path) -> Result<(), PassError> {
        if matches!(directory.symlink_metadata(), Err(error) if error.kind() == NotFound) {
            return Ok(());
        }
        let directory = directory.to_owned();
        on_disk(move || remove_tree(&directory))
            .await?
            .map_err(|source| PassError::Files { step: "remove the directory of the pod", source })
    }

    /// Whether it is gone; one that finalizers hold is not.
    async fn delete_object(&self) -> Result<bool, PassError> {
        let uid = self.uid.clone();
        let written = self.shared.store.write(pod_key(&self.pod), move |present| {
            // Another pod of the same name is none of ours.
            let ours = present.is_some_and(|present| spec::mirror::pod_uid(&present.value) == Some(uid.as_str()));
            let held = present.is_some_and(|present| {
                let finalizers = present.value.pointer("/metadata/finalizers").and_then(serde_json::Value::as_array);
                finalizers.is_some_and(|finalizers| !finalizers.is_empty())
            });
            let change = if ours && !held { Change::Delete } else { Change::Keep };
            Ok::<_, std::convert::Infallible>((change, !(ours && held)))
        });
        match written.await {
            Ok(written) => {
                self.shared.static_pods.notify_one();
                Ok(written.outcome)
            }
            Err(WriteError::Refused(never)) => match never {},
            Err(WriteError::Store(error)) => Err(error.into()),
        }
    }

    /// Nothing of the pod is left but its object, which finalizers hold: its grace period is over, so that the API drops
    /// it with the last of them.
    async fn give_up_grace(&self) -> Result<Next, PassError> {
        let uid = self.uid.clone();
        let written = self.shared.store.write(pod_key(&self.pod), move |present| {
            let next = present.and_then(|present| without_grace(&present.value, uid.as_str()));
            Ok::<_, std::convert::Infallible>((next.map_or(Change::Keep, Change::Put), ()))
        });
        match written.await {
            Ok(_) => Ok(Next::Wait(None)),
            Err(WriteError::Refused(never)) => match never {},
            Err(WriteError::Store(error)) => Err(error.into()),
        }
    }
}

fn without_grace(present: &serde_json::Value, uid: &str) -> Option<serde_json::Value> {
    let metadata = present.get("metadata")?;
    let grace = metadata.get("deletionGracePeriodSeconds").and_then(serde_json::Value::as_i64)?;
    if spec::mirror::pod_uid(present) != Some(uid) || grace == 0 {
        return None;
    }
    let mut next = present.clone();
    next.get_mut("metadata")?.as_object_mut()?.insert("deletionGracePeriodSeconds".to_owned(), 0.into());
    Some(next)
}
