//! What a pass does for a Deployment. Pure: the pass that follows sees what came of it.

use std::time::Duration;

use spec::Timestamp;
use spec::k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use spec::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::deployment::progress::{self, Progress, set_condition};
use crate::deployment::revision::{annotate_newest, created, new_set, newest, revision_of};
use crate::deployment::rollout::{self, Sets};

/// One write.
#[derive(Debug)]
pub enum Step {
    /// A set for a new template.
    Create(Box<ReplicaSet>),
    /// A set with another size or other annotations.
    Update {
        /// What it becomes.
        set: Box<ReplicaSet>,
        /// Its size before.
        from: i32,
    },
    /// A set that is no longer remembered.
    Delete(Box<ObjectMeta>),
}

/// What a pass does.
#[derive(Debug)]
pub struct Plan {
    /// Writes to sets, in this order.
    pub steps: Vec<Step>,
    /// The Deployment's status after them.
    pub status: DeploymentStatus,
    /// The revision of its newest template, once that has a set.
    pub revision: Option<String>,
    /// When to look again though nothing has happened.
    pub again: Option<Duration>,
    deadline: bool,
}

impl Plan {
    /// The set for the new template is there.
    pub fn created(&mut self, name: &str, now: Timestamp) {
        if self.deadline {
            let message = format!("Created new replica set {name:?}");
            set_condition(&mut self.status, "Progressing", "True", "NewReplicaSetCreated", &message, now);
        }
    }

    /// It is not, since its name is taken.
    pub fn collided(&mut self) {
        *self.status.collision_count.get_or_insert(0) += 1;
        self.revision = None;
    }

    /// It is not, for another reason.
    pub fn create_failed(&mut self, message: &str, now: Timestamp) {
        self.revision = None;
        if self.deadline {
            set_condition(&mut self.status, "Progressing", "False", "ReplicaSetCreateError", message, now);
        }
    }
}

/// Compares what is wanted with the sets that there are. `running` are the uids of sets whose Pods have not ended.
pub fn plan(deployment: &Deployment, sets: &[ReplicaSet], running: &[String], now: Timestamp) -> Plan {
    let mut sets = Sets::new(deployment, sets);
    let mut plan = Plan {
        steps: Vec::new(),
        status: deployment.status.clone().unwrap_or_default(),
        revision: None,
        again: None,
        deadline: progress::has_deadline(deployment),
    };
    if deployment.metadata.deletion_timestamp.is_some() {
        plan.status = progress::counted(deployment, &sets, plan.status, now);
        return plan;
    }
    progress::note_pause(deployment, &mut plan.status, now);
    let paused = deployment.spec.paused == Some(true);
    if paused || rollout::is_scaling(deployment, &sets) {
        sets.keep_newest(deployment, &mut plan);
        rollout::scale(deployment, &mut sets);
        if paused {
            sets.forget_old(deployment, &mut plan);
        }
        sets.write_changes(&mut plan);
        plan.status = progress::counted(deployment, &sets, plan.status, now);
        return plan;
    }
    if rollout::may_create(deployment, &sets, running) {
        sets.keep_or_make_newest(deployment, &mut plan);
    } else {
        sets.keep_newest(deployment, &mut plan);
    }
    let moved = rollout::roll(deployment, &mut sets, running);
    if !moved && progress::is_complete(deployment, &plan.status) {
        sets.forget_old(deployment, &mut plan);
    }
    sets.write_changes(&mut plan);
    let Progress { status, again } = progress::rolled(deployment, &sets, &plan.status, now);
    (plan.status, plan.again) = (status, again);
    plan
}

impl Sets {
    /// Sorts the sets of a Deployment into the newest and the others.
    fn new(deployment: &Deployment, sets: &[ReplicaSet]) -> Self {
        let mut old = sets.to_vec();
        let newest = newest(deployment, &old).map(|index| old.remove(index));
        spec::ordered::sort_by(&mut old, |a, b| created(a).cmp(&created(b)));
        Self { original: newest.iter().chain(&old).cloned().collect(), newest, old, is_new: false }
    }

    /// Gives the newest set what it has from the Deployment.
    fn keep_newest(&mut self, deployment: &Deployment, plan: &mut Plan) {
        let revision = self.next_revision();
        let Some(newest) = &mut self.newest else { return };
        annotate_newest(deployment, newest, revision);
        newest.spec.min_ready_seconds = deployment.spec.min_ready_seconds;
        plan.revision = Some(revision_of(newest).to_string());
    }

    /// The same; without one, it is made.
    fn keep_or_make_newest(&mut self, deployment: &Deployment, plan: &mut Plan) {
        if self.newest.is_none() {
            self.newest = Some(new_set(deployment, self.next_revision()));
            self.is_new = true;
        }
        self.keep_newest(deployment, plan);
    }

    fn next_revision(&self) -> i64 {
        self.old.iter().map(revision_of).max().unwrap_or_default() + 1
    }

    /// Removes the oldest sets without Pods, beyond as many as are to be remembered.
    fn forget_old(&mut self, deployment: &Deployment, plan: &mut Plan) {
        let Some(limit) = deployment.spec.revision_history_limit.filter(|limit| *limit != i32::MAX) else { return };
        let mut present: Vec<&ReplicaSet> =
            self.old.iter().filter(|set| set.metadata.deletion_timestamp.is_none()).collect();
        let surplus = present.len().saturating_sub(usize::try_from(limit).unwrap_or_default());
        spec::ordered::sort_by_key(&mut present, |set| revision_of(set));
        for set in present.into_iter().take(surplus) {
            let status = set.status.clone().unwrap_or_default();
            let settled = set.metadata.generation <= status.observed_generation;
            if status.replicas == 0 && set.spec.replicas == Some(0) && settled {
                plan.steps.push(Step::Delete(Box::new(set.metadata.clone())));
            }
        }
    }

    /// Turns what was changed into writes.
    fn write_changes(&self, plan: &mut Plan) {
        for set in self.newest.iter().chain(&self.old) {
            match self.original.iter().find(|original| original.metadata.uid == set.metadata.uid) {
                None if self.is_new => plan.steps.push(Step::Create(Box::new(set.clone()))),
                Some(original) if original != set => {
                    let from = original.spec.replicas.unwrap_or(1);
                    plan.steps.push(Step::Update { set: Box::new(set.clone()), from });
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
