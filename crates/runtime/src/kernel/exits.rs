//! How containers end: what infra reports, and what is concluded when nobody is left to report.

use std::fs;

use futures::FutureExt as _;
use infra::protocol::{ContainerReport, End, ExitReport, Request, exit_record_name};
use spec::{ContainerId, Timestamp};

use super::cgroups::CgroupPath;
use super::records::{CONTAINERS, ContainerRecord};
use super::{Kernel, PROMPT};
use crate::config::PidMode;
use crate::status::{ContainerExit, ContainerState, ExitReason};

/// Exit code of a container that was lost, as the kubelet reports it (`ContainerStatusUnknown`).
const LOST: i32 = 137;

impl Kernel {
    /// Takes note of an exit that infra reported: its cgroup is emptied and removed, the exit stored, then told.
    pub(super) async fn container_exited(&self, report: &ContainerReport) {
        let id = ContainerId::new(report.id.as_str());
        let Some(exit) = &report.exit else { return };
        let Ok(record) = self.state.container_record(&id) else { return };
        if record.exit.is_none() {
            let Some(cgroup) = self.container_cgroup(&id, &record) else { return };
            // Read before the directory goes: exit code 137 alone does not mean out of memory.
            let out_of_memory = self.cgroups.oom_kills(&cgroup) > 0;
            let conclusion = conclude(report.started_at, exit, out_of_memory);
            // With the first process of a PID namespace the kernel ends all others, and waits for them (pid_namespaces(7)).
            let empty = record.config.pid == PidMode::Container;
            if !self.settle(&id, record.clone(), &cgroup, empty, conclusion).await {
                // infra's own record of it is what the next daemon finds.
                return;
            }
        }
        if let Ok(connection) = self.state.connection(&record.sandbox) {
            let forget = Request::Forget { id: report.id.clone() };
            if let Err(error) = connection.request(&forget, &[], PROMPT).await {
                tracing::debug!(container = %id, error = &error as &dyn std::error::Error, "infra keeps an exit record");
            }
        }
    }

    /// A container whose infra process is gone: its exit record says how it ended, or nobody knows.
    pub(super) async fn settle_lost_container(&self, id: &ContainerId) {
        let Ok(record) = self.state.container_record(id) else { return };
        let never_started =
            self.state.watch_container(id).is_some_and(|state| matches!(*state.borrow(), ContainerState::Created));
        let Some(cgroup) = self.container_cgroup(id, &record) else { return };
        if record.exit.is_some() {
            return;
        }
        let path = self.config.sandbox_directory(&record.sandbox).join(exit_record_name(id.as_str()));
        let report = fs::read(path).ok().and_then(|bytes| minicbor::decode::<ContainerReport>(&bytes).ok());
        let exit = match report {
            Some(ContainerReport { started_at, exit: Some(exit), .. }) => {
                conclude(started_at, &exit, self.cgroups.oom_kills(&cgroup) > 0)
            }
            // It waits to be removed with its sandbox.
            Some(_) | None if never_started => return,
            Some(_) | None => ContainerExit {
                started_at: None,
                finished_at: Timestamp::now(),
                exit_code: LOST,
                reason: ExitReason::Unknown,
            },
        };
        self.settle(id, record, &cgroup, false, exit).await;
    }

    /// Tells an exit, and is back when it is stored, or cannot be: whether it is. A stopped container means: its cgroup is empty;
    /// the directories of one go when the exit has been told. `empty`: whether it is known to be.
    pub(super) async fn settle(
        &self,
        id: &ContainerId,
        mut record: ContainerRecord,
        cgroup: &CgroupPath,
        empty: bool,
        exit: ContainerExit,
    ) -> bool {
        if !empty && !self.cgroups.is_empty(cgroup) {
            self.remove_cgroup_of(id, cgroup).await;
        }
        record.exit = Some(exit.clone().into());
        // Nothing that follows from the exit is durable before it: its place among the writes is taken here.
        let stored = self.store.put_record(CONTAINERS, id.as_str(), &record).boxed().shared();
        let uid = {
            let mut inner = self.state.lock();
            if let Some(container) = inner.containers.get_mut(id) {
                container.record = record.clone();
                container.prepared = None;
                container.storing_end = Some(stored.clone());
                container.state.send_replace(ContainerState::Exited(exit));
            }
            inner.sandboxes.get(&record.sandbox).map(|sandbox| sandbox.record.config.uid.clone())
        };
        if let Some(uid) = uid {
            self.state.announce(&uid);
        }
        self.remove_cgroup_of(id, cgroup).await;
        let stored = stored.await;
        if let Some(container) = self.state.lock().containers.get_mut(id) {
            container.storing_end = None;
        }
        if let Err(error) = &stored {
            tracing::error!(container = %id, error = error as &dyn std::error::Error, "an exit cannot be stored");
        }
        stored.is_ok()
    }

    async fn remove_cgroup_of(&self, id: &ContainerId, cgroup: &CgroupPath) {
        if let Err(error) = self.cgroups.remove(cgroup).await {
            tracing::warn!(container = %id, error = &error as &dyn std::error::Error, "a control group is not removed");
        }
    }

    pub(super) fn container_cgroup(&self, id: &ContainerId, record: &ContainerRecord) -> Option<CgroupPath> {
        let sandbox = self.state.sandbox_record(&record.sandbox).ok()?;
        Some(CgroupPath::of(&sandbox.config).container(id))
    }
}

fn conclude(started_at: i64, exit: &ExitReport, out_of_memory: bool) -> ContainerExit {
    ContainerExit {
        started_at: (started_at != 0).then(|| timestamp(started_at)),
        finished_at: timestamp(exit.finished_at),
        exit_code: match exit.end {
            End::Code(code) => code,
            End::Signal(signal) => 128 + signal,
        },
        reason: if out_of_memory { ExitReason::OomKilled } else { ExitReason::Exited },
    }
}

/// Wall time of infra's nanoseconds; its 64 bits always fit.
pub(super) fn timestamp(nanoseconds: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap_or(Timestamp::UNIX_EPOCH)
}
