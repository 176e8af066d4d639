//! Rollouts, step by step: the sets are changed as the plan says, their Pods come and go, and the next plan is asked for.

use serde_json::json;
use spec::k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;
use crate::deployment::revision::REVISION;
use crate::deployment::sizes::{max_surge, max_unavailable, size, total, wanted};

/// A Deployment whose sets do at once what they are told, as far as their Pods get ready.
struct World {
    deployment: Deployment,
    sets: Vec<ReplicaSet>,
    now: Timestamp,
    ready: fn(&ReplicaSet) -> bool,
    made: u32,
}

impl World {
    fn new(replicas: i32, strategy: &serde_json::Value) -> Self {
        let deployment = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "default", "uid": "d", "generation": 1},
            "spec": {"replicas": replicas, "strategy": strategy, "progressDeadlineSeconds": 60,
                "revisionHistoryLimit": 2, "selector": {"matchLabels": {"app": "web"}}, "template": {
                "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "v1"}]}}},
        }))
        .unwrap();
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        Self { deployment, sets: Vec::new(), now, ready: |_| true, made: 0 }
    }

    fn rolling(replicas: i32, surge: i32, unavailable: i32) -> Self {
        let rolling = json!({"maxSurge": surge, "maxUnavailable": unavailable});
        Self::new(replicas, &json!({"type": "RollingUpdate", "rollingUpdate": rolling}))
    }

    fn set_image(&mut self, image: &str) {
        let containers = &mut self.deployment.spec.template.spec.as_mut().unwrap().containers;
        containers[0].image = Some(image.to_owned());
        *self.deployment.metadata.generation.as_mut().unwrap() += 1;
    }

    fn scale(&mut self, replicas: i32) {
        self.deployment.spec.replicas = Some(replicas);
        *self.deployment.metadata.generation.as_mut().unwrap() += 1;
    }

    /// One pass; says whether it changed anything.
    fn step(&mut self) -> bool {
        let running: Vec<String> = self
            .sets
            .iter()
            .filter(|set| set.status.as_ref().is_some_and(|status| status.replicas > 0))
            .filter_map(|set| set.metadata.uid.clone())
            .collect();
        let mut plan = plan(&self.deployment, &self.sets, &running, self.now);
        let mut changed = !plan.steps.is_empty();
        for step in std::mem::take(&mut plan.steps) {
            match step {
                Step::Create(set) => {
                    self.made += 1;
                    let mut set = *set;
                    plan.created(set.metadata.name.as_ref().unwrap(), self.now);
                    set.metadata.uid = Some(self.made.to_string());
                    set.metadata.creation_timestamp =
                        Some(Time(Timestamp::from_second(self.now.as_second() + i64::from(self.made)).unwrap()));
                    self.sets.push(set);
                }
                Step::Update { set, .. } => {
                    let place = self.sets.iter().position(|one| one.metadata.uid == set.metadata.uid).unwrap();
                    self.sets[place] = *set;
                }
                Step::Delete(meta) => self.sets.retain(|set| set.metadata.uid != meta.uid),
            }
        }
        changed |= self.deployment.status.as_ref() != Some(&plan.status);
        self.deployment.status = Some(plan.status);
        changed
    }

    /// The sets' own controllers do what they are told.
    fn let_sets_work(&mut self) -> bool {
        let mut changed = false;
        for set in &mut self.sets {
            let replicas = set.spec.replicas.unwrap();
            let ready = if (self.ready)(set) { replicas } else { 0 };
            let status = json!({"replicas": replicas, "readyReplicas": ready, "availableReplicas": ready});
            let status = serde_json::from_value(status).unwrap();
            changed |= set.status.as_ref() != Some(&status);
            set.status = Some(status);
        }
        changed
    }

    /// Passes until nothing changes any more; after each, no more and no fewer Pods than the strategy allows.
    fn settle(&mut self) {
        for _ in 0..100 {
            let deployment_moved = self.step();
            let most = wanted(&self.deployment) + max_surge(&self.deployment);
            assert!(total(&self.sets, size) <= most, "{} Pods, and {most} at most", total(&self.sets, size));
            if !self.let_sets_work() && !deployment_moved {
                return;
            }
        }
        panic!("does not come to rest: {:?}", self.sizes());
    }

    fn sizes(&self) -> Vec<i32> {
        self.sets.iter().map(size).collect()
    }

    fn condition(&self, kind: &str) -> (String, String) {
        let conditions = self.deployment.status.as_ref().unwrap().conditions.as_ref().unwrap();
        let found = conditions.iter().find(|condition| condition.type_.as_deref() == Some(kind)).unwrap();
        (found.status.clone().unwrap(), found.reason.clone().unwrap())
    }
}

fn pair(word: &str, reason: &str) -> (String, String) {
    (word.to_owned(), reason.to_owned())
}

#[test]
fn a_rolling_update_replaces_all_pods_within_its_bounds() {
    for (replicas, surge, unavailable) in [(1, 1, 0), (1, 0, 1), (3, 1, 1), (10, 3, 2), (4, 4, 0), (5, 0, 5)] {
        let mut world = World::rolling(replicas, surge, unavailable);
        world.settle();
        assert_eq!(world.sizes(), [replicas]);
        world.set_image("v2");
        world.settle();
        assert_eq!(world.sizes(), [0, replicas], "{replicas} {surge} {unavailable}");
        assert_eq!(world.condition("Progressing"), pair("True", "NewReplicaSetAvailable"));
        assert_eq!(world.condition("Available"), pair("True", "MinimumReplicasAvailable"));
    }
}

#[test]
fn enough_pods_stay_available_while_new_ones_do_not_get_ready() {
    let mut world = World::rolling(4, 1, 1);
    world.settle();
    world.set_image("broken");
    world.ready = |set| set.metadata.uid.as_deref() == Some("1");
    world.settle();
    let least = wanted(&world.deployment) - max_unavailable(&world.deployment);
    assert_eq!(world.sizes(), [least, 2]);
    assert_eq!(world.condition("Available"), pair("True", "MinimumReplicasAvailable"));
    assert_eq!(world.condition("Progressing"), pair("True", "ReplicaSetUpdated"));
    world.now = "2026-01-01T00:01:01Z".parse().unwrap();
    world.settle();
    assert_eq!(world.condition("Progressing"), pair("False", "ProgressDeadlineExceeded"));
    // Going back ends the trouble.
    world.set_image("v1");
    world.settle();
    assert_eq!(world.sizes(), [4, 0]);
    let annotations = world.sets[0].metadata.annotations.as_ref().unwrap();
    assert_eq!(annotations[REVISION], "3");
    assert_eq!(world.condition("Progressing"), pair("True", "NewReplicaSetAvailable"));
}

#[test]
fn recreate_ends_all_old_pods_before_the_first_new_one() {
    let mut world = World::new(3, &json!({"type": "Recreate"}));
    world.settle();
    world.set_image("v2");
    world.step();
    assert_eq!(world.sizes(), [0], "old Pods are told to go, and there is no new set yet");
    world.step();
    assert_eq!(world.sizes(), [0], "they are still there");
    world.let_sets_work();
    world.step();
    assert_eq!(world.sizes(), [0, 3]);
    world.settle();
    assert_eq!(world.condition("Progressing"), pair("True", "NewReplicaSetAvailable"));
}

#[test]
fn scaling_in_the_middle_of_a_rollout_keeps_proportions() {
    let mut world = World::rolling(10, 3, 2);
    world.settle();
    world.set_image("v2");
    world.ready = |set| set.metadata.uid.as_deref() == Some("1");
    world.settle();
    assert_eq!(world.sizes(), [8, 5]);
    world.scale(15);
    world.step();
    assert_eq!(world.sizes(), [11, 7], "as in the documentation of Deployments");
    world.ready = |_| true;
    world.settle();
    assert_eq!(world.sizes(), [0, 15]);
    world.scale(0);
    world.settle();
    assert_eq!(world.sizes(), [0, 0]);
}

#[test]
fn a_paused_deployment_is_scaled_and_not_rolled() {
    let mut world = World::rolling(2, 1, 0);
    world.settle();
    world.deployment.spec.paused = Some(true);
    world.set_image("v2");
    world.scale(5);
    world.settle();
    assert_eq!(world.sizes(), [5]);
    assert_eq!(world.condition("Progressing"), pair("Unknown", "DeploymentPaused"));
    world.deployment.spec.paused = None;
    world.settle();
    assert_eq!(world.sizes(), [0, 5]);
}

#[test]
fn as_many_old_templates_are_remembered_as_are_asked_for() {
    let mut world = World::rolling(1, 1, 0);
    for image in ["v1", "v2", "v3", "v4", "v5"] {
        world.set_image(image);
        world.settle();
    }
    assert_eq!(world.sizes(), [0, 0, 1]);
    let revisions: Vec<i64> = world.sets.iter().map(revision_of).collect();
    assert_eq!(revisions, [3, 4, 5]);
}

#[test]
fn a_name_that_is_taken_is_counted() {
    let world = World::rolling(1, 1, 0);
    let mut plan = plan(&world.deployment, &[], &[], world.now);
    assert!(matches!(plan.steps.as_slice(), [Step::Create(_)]));
    plan.collided();
    assert_eq!((plan.status.collision_count, plan.revision), (Some(1), None));
}
