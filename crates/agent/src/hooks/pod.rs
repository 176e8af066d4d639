//! The hooks of one Pod that are under way, and those that have ended.

use std::collections::{BTreeMap, BTreeSet};

use spec::{ContainerId, ContainerName};
use tokio::task::{AbortHandle, JoinError, JoinSet};

use super::run::{Hook, HookFailure};

/// Which hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum HookKind {
    /// Right after the start: until it returns, nothing else of the Pod starts.
    PostStart,
    /// Before the signal that ends a container.
    PreStop,
}

/// A hook that has ended.
pub(crate) struct EndedHook {
    pub(crate) id: ContainerId,
    pub(crate) name: ContainerName,
    pub(crate) kind: HookKind,
    pub(crate) result: Result<(), HookFailure>,
}

/// A container whose postStart hook failed.
#[derive(Debug, Clone)]
pub(crate) struct FailedStart {
    pub(crate) name: ContainerName,
    pub(crate) message: String,
}

/// What ends a wait for hooks.
pub(crate) type Joined = Result<EndedHook, JoinError>;

/// Dropping it breaks off what is under way.
#[derive(Default)]
pub(crate) struct PodHooks {
    tasks: JoinSet<EndedHook>,
    under_way: BTreeMap<(ContainerId, HookKind), AbortHandle>,
    /// preStop hooks that nobody waits for any more.
    pre_stopped: BTreeSet<ContainerId>,
    /// postStart hooks that returned well, of which the record still says otherwise.
    pub(crate) returned: BTreeSet<ContainerId>,
    /// postStart hooks that failed, so that their containers are ended, and why.
    failed: BTreeMap<ContainerId, FailedStart>,
}

impl PodHooks {
    /// Begins a hook unless it is under way or has ended.
    pub(crate) fn begin(&mut self, kind: HookKind, id: &ContainerId, name: &ContainerName, hook: Hook) {
        let ended = match kind {
            HookKind::PostStart => self.returned.contains(id) || self.failed.contains_key(id),
            HookKind::PreStop => self.pre_stopped.contains(id),
        };
        let key = (id.clone(), kind);
        if ended || self.under_way.contains_key(&key) {
            return;
        }
        let (id, name) = (id.clone(), name.clone());
        let task = self.tasks.spawn(async move { EndedHook { id, name, kind, result: hook.run().await } });
        self.under_way.insert(key, task);
    }

    /// Breaks a hook off.
    pub(crate) fn break_off(&mut self, kind: HookKind, id: &ContainerId) {
        if let Some(task) = self.under_way.remove(&(id.clone(), kind)) {
            task.abort();
        }
        if kind == HookKind::PreStop {
            self.pre_stopped.insert(id.clone());
        }
    }

    /// Whether the container's preStop hook is under way.
    pub(crate) fn holds_back_stop(&self, id: &ContainerId) -> bool {
        self.under_way.contains_key(&(id.clone(), HookKind::PreStop))
    }

    /// Whether the container's postStart hook has failed.
    pub(crate) fn has_failed(&self, id: &ContainerId) -> bool {
        self.failed.contains_key(id)
    }

    /// Forgets runs that do not run any more; their hooks have nothing left to do. Returns those among them that ended
    /// because their postStart hook had failed.
    pub(crate) fn retain(&mut self, running: &BTreeSet<ContainerId>) -> Vec<FailedStart> {
        self.under_way.retain(|(id, _), task| {
            let kept = running.contains(id);
            if !kept {
                task.abort();
            }
            kept
        });
        for ids in [&mut self.pre_stopped, &mut self.returned] {
            ids.retain(|id| running.contains(id));
        }
        let (failed, ended) = std::mem::take(&mut self.failed).into_iter().partition(|(id, _)| running.contains(id));
        self.failed = failed;
        BTreeMap::into_values(ended).collect()
    }

    /// The next hook that ends; `None` if none is under way.
    pub(crate) async fn join_next(&mut self) -> Option<Joined> {
        self.tasks.join_next().await
    }

    /// A hook that has ended already.
    pub(crate) fn try_join_next(&mut self) -> Option<Joined> {
        self.tasks.try_join_next()
    }

    /// Takes in how one ended. `None` for those that were broken off.
    pub(crate) fn note(&mut self, joined: Joined) -> Option<EndedHook> {
        let ended = match joined {
            Ok(ended) => ended,
            Err(error) => {
                if error.is_panic() {
                    tracing::error!(%error, "a lifecycle hook was lost");
                }
                self.under_way.retain(|_, task| task.id() != error.id());
                return None;
            }
        };
        self.under_way.remove(&(ended.id.clone(), ended.kind))?;
        let id = ended.id.clone();
        match (ended.kind, &ended.result) {
            (HookKind::PreStop, _) => self.pre_stopped.extend([id]),
            (HookKind::PostStart, Ok(())) => self.returned.extend([id]),
            (HookKind::PostStart, Err(failure)) => {
                let failed = FailedStart { name: ended.name.clone(), message: failure.to_string() };
                self.failed.insert(id, failed);
            }
        }
        Some(ended)
    }
}
