//! A daemon that starts anew: living sandboxes are taken over, dead ones cleared, what nobody knows is removed.

use std::collections::HashSet;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use infra::protocol::{ContainerReport, Event, Reply, VERSION};
use spec::{ContainerId, SandboxId};
use tokio::sync::mpsc;

use super::connection::{Connection, RequestError};
use super::exits::timestamp;
use super::records::{CONTAINERS, ContainerRecord, SANDBOXES, SandboxRecord};
use super::sandbox::{end_infra, has_ended, remove_directory, remove_file, until_ended};
use super::state::Container;
use super::{Kernel, LONG, OpenRuntimeError, PROMPT};
use crate::config::NetworkMode;
use crate::status::{ContainerState, PodSandboxState};

/// How long a daemon that starts waits for an infra process: they answer within milliseconds, and one that does not is not
/// lost, but known later.
const HELLO: Duration = Duration::from_secs(5);

/// What became of a sandbox' infra process while no daemon was there.
enum Found {
    Dead,
    Silent(Silent),
    Alive(Alive),
}

/// An infra process that lives and has not answered yet.
struct Silent {
    connection: Arc<Connection>,
    events: mpsc::UnboundedReceiver<Box<Event>>,
    infra: OwnedFd,
}

/// An infra process that answered.
struct Alive {
    connection: Arc<Connection>,
    events: mpsc::UnboundedReceiver<Box<Event>>,
    infra: OwnedFd,
    user_namespace: Option<OwnedFd>,
    /// Its network was set up and nothing of its making is missing.
    ready: bool,
    /// It is nobody's yet.
    spare: bool,
    version: u32,
    containers: Vec<ContainerReport>,
}

impl Kernel {
    /// Brings memory, records and kernel together. Records decide what is ours; what lives decides what goes on.
    pub(super) async fn recover(self: &Arc<Self>) -> Result<(), OpenRuntimeError> {
        let sandboxes: Vec<(String, SandboxRecord)> = self.store.records(SANDBOXES).map_err(OpenRuntimeError::Store)?;
        let containers: Vec<(String, ContainerRecord)> =
            self.store.records(CONTAINERS).map_err(OpenRuntimeError::Store)?;
        // Before anything is changed: whoever cannot take over all leaves all as it is.
        let found = self.reach_all(&sandboxes).await?;
        for (id, record) in &sandboxes {
            // Recorded ones have their ids; only one of an unborn kind could lack them, and is never ready.
            if let Err(error) = self.insert_sandbox(&SandboxId::new(id.as_str()), record.clone()) {
                tracing::warn!(sandbox = %id, error = &error as &dyn std::error::Error, "a sandbox is not taken over");
            }
        }
        for (id, record) in containers {
            if !sandboxes.iter().any(|(sandbox, _)| *sandbox == record.sandbox.as_str()) {
                // Its sandbox was removed, and the daemon died before this record went too. Its directory goes with all unknown ones.
                self.store.delete_record_soon(CONTAINERS, &id);
                continue;
            }
            let state = match &record.exit {
                Some(exit) => ContainerState::Exited(exit.clone().into()),
                None => ContainerState::Created,
            };
            self.state.lock().add_container(ContainerId::new(id), Container::new(record, state, None));
        }
        for ((id, record), found) in sandboxes.into_iter().zip(found) {
            self.recover_sandbox(&SandboxId::new(id), record, found).await;
        }
        self.remove_unknown().await
    }

    /// Asks all at once, so that several that do not answer cost no more than one.
    async fn reach_all(self: &Arc<Self>, all: &[(String, SandboxRecord)]) -> Result<Vec<Found>, OpenRuntimeError> {
        let asked: Vec<_> = all
            .iter()
            .map(|(id, record)| {
                let (kernel, id, record) = (Arc::clone(self), SandboxId::new(id.as_str()), record.clone());
                tokio::spawn(async move { kernel.reach(&id, &record).await })
            })
            .collect();
        let mut found = Vec::with_capacity(asked.len());
        for one in asked {
            // A task ends otherwise only when the whole daemon does.
            found.push(one.await.unwrap_or(Ok(Found::Dead))?);
        }
        Ok(found)
    }

    async fn recover_sandbox(self: &Arc<Self>, id: &SandboxId, record: SandboxRecord, found: Found) {
        let (connection, infra) = match found {
            // Of another version it may not know how to become a Pod's.
            Found::Alive(alive) if record.spare && alive.spare && alive.ready && alive.version == VERSION => {
                self.take_over(id, &record, alive).await;
                return self.spares.add(id.clone());
            }
            // A daemon that died after the record of an assignment and before infra heard of it left a spare one.
            Found::Alive(alive)
                if alive.ready
                    && !record.stopped
                    && !record.spare
                    && !alive.spare
                    && self.has_its_cgroup(&record, &alive) =>
            {
                return self.take_over(id, &record, alive).await;
            }
            Found::Silent(silent) if !record.stopped && !record.spare => return self.leave_alone(id, record, silent),
            Found::Alive(Alive { connection, infra, .. }) | Found::Silent(Silent { connection, infra, .. }) => {
                (Some(connection), Some(Arc::new(infra)))
            }
            Found::Dead => (None, None),
        };
        if let Some(sandbox) = self.state.lock().sandboxes.get_mut(id) {
            (sandbox.connection, sandbox.infra) = (connection, infra);
        }
        // A failure is tried again when the agent removes the sandbox.
        if let Err(error) = self.release(id, &record).await {
            tracing::warn!(sandbox = %id, error = &error as &dyn std::error::Error, "a dead sandbox is not all released");
        }
        // Of a spare one the agent knows nothing.
        if record.spare
            && let Err(error) = self.remove_sandbox(id).await
        {
            tracing::warn!(sandbox = %id, error = &error as &dyn std::error::Error, "a spare sandbox is not all removed");
        }
    }

    /// A daemon that died before the first container started may not have made the Pod's cgroup, or not have limited it.
    fn has_its_cgroup(&self, record: &SandboxRecord, alive: &Alive) -> bool {
        let made = if alive.containers.is_empty() { self.make_pod_cgroup(&record.config) } else { Ok(()) };
        if let Err(error) = &made {
            tracing::warn!(pod = %record.config.pod, error = error as &dyn std::error::Error, "a sandbox is not taken over");
        }
        made.is_ok()
    }

    /// Nothing of the sandbox is touched until its infra process has answered or ended; others do not wait for it.
    fn leave_alone(self: &Arc<Self>, id: &SandboxId, record: SandboxRecord, silent: Silent) {
        tracing::warn!(pod = %record.config.pod, sandbox = %id, "an infra process lives but does not answer: its pod is left as it is");
        let Silent { connection, events, infra } = silent;
        let infra = Arc::new(infra);
        if let Some(sandbox) = self.state.lock().sandboxes.get_mut(id) {
            sandbox.state = PodSandboxState::Silent;
            sandbox.connection = Some(Arc::clone(&connection));
            sandbox.infra = Some(Arc::clone(&infra));
        }
        let (kernel, id) = (Arc::clone(self), id.clone());
        tokio::spawn(async move {
            let found = tokio::select! {
                found = kernel.hear(&record, connection, events, LONG) => found,
                _ended = until_ended(&infra) => Ok(Found::Dead),
            };
            // Somebody may have ended the sandbox meanwhile.
            if !kernel.state.sandbox_record(&id).is_ok_and(|record| !record.stopped) {
                return;
            }
            let pod = record.config.uid.clone();
            match found {
                Ok(found) => {
                    tracing::info!(pod = %record.config.pod, sandbox = %id, "an infra process has answered or ended at last");
                    kernel.recover_sandbox(&id, record, found).await;
                }
                Err(error) => {
                    tracing::error!(sandbox = %id, error = &error as &dyn std::error::Error, "a sandbox stays as it is");
                }
            }
            kernel.state.announce(&pod);
        });
    }

    /// Finds out what an infra process holds, if it lives; an error if it is of a later version than we are. Also that
    /// of a sandbox that was being stopped: the daemon may have died before it had told infra to end.
    async fn reach(&self, id: &SandboxId, record: &SandboxRecord) -> Result<Found, OpenRuntimeError> {
        let Ok((connection, events)) = Connection::open(&self.config.socket(id)) else { return Ok(Found::Dead) };
        self.hear(record, connection, events, HELLO).await
    }

    /// Waits so long for infra to answer.
    async fn hear(
        &self,
        record: &SandboxRecord,
        connection: Arc<Connection>,
        events: mpsc::UnboundedReceiver<Box<Event>>,
        limit: Duration,
    ) -> Result<Found, OpenRuntimeError> {
        let newer = |speaks| OpenRuntimeError::NewerInfra { pod: record.config.pod.clone(), speaks, known: VERSION };
        let (reply, descriptors) = match connection.hello(limit).await {
            // Every version answers with its state, and one that we cannot read is of a later one.
            Err(RequestError::Unknown) => return Err(newer(None)),
            Err(RequestError::Gone(_) | RequestError::Failed(..)) => return Ok(Found::Dead),
            // Not to answer is not to be dead.
            Err(RequestError::TimedOut(_)) => {
                return Ok(match connection.peer() {
                    Ok(infra) if !connection.is_closed() && !has_ended(&infra) => {
                        Found::Silent(Silent { connection, events, infra })
                    }
                    _ => Found::Dead,
                });
            }
            Ok(answer) => answer,
        };
        let Reply::State { version, booted, containers, ready, spare } = reply else { return Ok(Found::Dead) };
        if version > VERSION {
            return Err(newer(Some(version)));
        }
        let mut descriptors = descriptors.into_iter();
        let Some(infra) = descriptors.next() else { return Ok(Found::Dead) };
        // After its network namespace and route socket.
        let user_namespace = descriptors.nth(2);
        let ready = booted && ready;
        Ok(Found::Alive(Alive { connection, events, infra, user_namespace, ready, spare, version, containers }))
    }

    async fn take_over(self: &Arc<Self>, id: &SandboxId, record: &SandboxRecord, alive: Alive) {
        let addresses = match record.config.network {
            NetworkMode::Pod => self.network.addresses(id),
            NetworkMode::Host => Vec::new(),
        };
        if let Some(sandbox) = self.state.lock().sandboxes.get_mut(id).filter(|sandbox| !sandbox.record.stopped) {
            sandbox.state = PodSandboxState::Ready;
            sandbox.addresses = addresses;
            sandbox.connection = Some(alive.connection);
            sandbox.infra = Some(Arc::new(alive.infra));
            sandbox.user_namespace = alive.user_namespace.map(Arc::new);
            sandbox.infra_version = alive.version;
        }
        for report in &alive.containers {
            let container = ContainerId::new(report.id.as_str());
            if report.exit.is_some() {
                self.container_exited(report).await;
            } else {
                let started_at = timestamp(report.started_at);
                self.state.set_container_state(&container, ContainerState::Running { started_at });
                // Nobody heard of rotations meanwhile.
                self.pack_logs_later(&container);
            }
        }
        let (follower, id, events) = (Arc::clone(self), id.clone(), alive.events);
        tokio::spawn(async move { follower.follow(&id, events).await });
    }

    /// Removes what no record names: a daemon died between making a thing and recording it, or between the other two.
    async fn remove_unknown(&self) -> Result<(), OpenRuntimeError> {
        let (live, known, pods, containers) = {
            let inner = self.state.lock();
            let live: HashSet<SandboxId> = inner
                .sandboxes
                .iter()
                .filter(|(_, sandbox)| !sandbox.record.stopped)
                .map(|(id, _)| id.clone())
                .collect();
            let known: HashSet<String> = inner.sandboxes.keys().map(|id| id.as_str().to_owned()).collect();
            let pods: HashSet<String> = inner
                .sandboxes
                .values()
                .filter(|sandbox| !sandbox.record.stopped)
                .map(|sandbox| sandbox.record.config.uid.as_str().to_owned())
                .collect();
            let containers: HashSet<String> = inner.containers.keys().map(|id| id.as_str().to_owned()).collect();
            (live, known, pods, containers)
        };
        self.end_unknown_infra(&known).await;
        self.remove_unknown_cgroups(&pods, &containers).await;
        let sockets: HashSet<String> = known.iter().map(|id| format!("{id}.sock")).collect();
        remove_others(self.config.sandboxes(), &known);
        remove_others(self.config.containers(), &containers);
        for ahead in [self.config.containers_ahead(), self.config.logs_ahead()] {
            remove_others(ahead, &HashSet::new());
        }
        remove_others(self.config.sockets(), &sockets);
        self.network.retain(&live).await.map_err(OpenRuntimeError::Network)
    }

    /// A store that was restored knows nothing of what was started after its backup. Such an infra process is in no Pod's
    /// control group, so it is found by its socket.
    async fn end_unknown_infra(&self, known: &HashSet<String>) {
        for entry in fs::read_dir(self.config.sockets()).into_iter().flatten().filter_map(Result::ok) {
            let name = entry.file_name();
            let id = name.to_str().and_then(|name| name.strip_suffix(".sock"));
            let Some(id) = id.filter(|id| !known.contains(*id)) else { continue };
            let Ok((connection, _events)) = Connection::open(&entry.path()) else { continue };
            let answer = connection.hello(PROMPT).await;
            let infra = answer.ok().and_then(|(_state, descriptors)| descriptors.into_iter().next());
            if let Err(error) = end_infra(Some(connection), infra.map(Arc::new)).await {
                tracing::warn!(sandbox = %id, error = &error as &dyn std::error::Error, "an unknown infra process is not ended");
            }
        }
    }

    async fn remove_unknown_cgroups(&self, pods: &HashSet<String>, containers: &HashSet<String>) {
        for (path, uid) in self.cgroups.pods() {
            let mut doomed = Vec::new();
            if pods.contains(uid.as_str()) {
                let inside = self.cgroups.containers(&path);
                doomed
                    .extend(inside.iter().filter(|id| !containers.contains(id.as_str())).map(|id| path.container(id)));
            } else {
                doomed.push(path);
            }
            for path in doomed {
                if let Err(error) = self.cgroups.remove(&path).await {
                    tracing::warn!(error = &error as &dyn std::error::Error, "an unknown control group is not removed");
                }
            }
        }
    }
}

fn remove_others(directory: PathBuf, known: &HashSet<String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok) {
        if entry.file_name().to_str().is_some_and(|name| known.contains(name)) {
            continue;
        }
        let path = entry.path();
        let removed = if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_directory(&path)
        } else {
            remove_file(&path)
        };
        if let Err(error) = removed {
            tracing::warn!(path = %path.display(), %error, "something unknown is not removed");
        }
    }
}
