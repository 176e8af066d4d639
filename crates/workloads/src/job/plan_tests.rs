//! Jobs from begin to end: Pods end as a seed says, passes are cut short after any of their writes, and each end must be
//! counted once.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use spec::k8s_openapi::api::batch::v1::Job;

use super::*;
use crate::job::pods::{TRACKING, new_pod};

/// A Job, its Pods, and a clock.
struct World {
    job: Job,
    pods: Vec<Pod>,
    now: Timestamp,
    made: u32,
    /// How each Pod that has ended did: by uid.
    ends: BTreeMap<String, bool>,
}

impl World {
    fn new(spec: &Value) -> Self {
        let mut whole = json!({
            "parallelism": 1, "backoffLimit": 6, "completionMode": "NonIndexed", "suspend": false,
            "podReplacementPolicy": "TerminatingOrFailed",
            "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}},
        });
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let job = json!({"metadata": {"name": "work", "namespace": "default", "uid": "j"}, "spec": whole});
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        Self { job: serde_json::from_value(job).unwrap(), pods: Vec::new(), now, made: 0, ends: BTreeMap::new() }
    }

    /// One pass of which only as many writes get through.
    fn pass(&mut self, mut writes: usize) {
        let pods = self.pods.clone();
        let plan = plan(&self.job, &pods, self.now);
        let mut may_write = || {
            let may = writes > 0;
            writes = writes.saturating_sub(1);
            may
        };
        if self.job.status.as_ref() != Some(&plan.status) {
            if !may_write() {
                return;
            }
            self.job.status = Some(plan.status.clone());
        }
        for pod in &plan.release {
            if may_write() {
                self.release(pod.metadata.uid.as_ref());
            }
        }
        for pod in &plan.delete {
            if plan.uncounted && may_write() {
                self.release(pod.metadata.uid.as_ref());
            }
            if may_write() {
                let found = self.pods.iter_mut().find(|one| one.metadata.uid == pod.metadata.uid);
                found.unwrap().metadata.deletion_timestamp = Some(Time(self.now));
            }
        }
        for index in &plan.create {
            if may_write() {
                self.made += 1;
                let mut pod = new_pod(&self.job, *index);
                pod.metadata.name = Some(format!("p{}", self.made));
                pod.metadata.uid = Some(format!("u{}", self.made));
                pod.metadata.creation_timestamp = Some(Time(self.now));
                pod.status = serde_json::from_value(json!({"phase": "Running"})).unwrap();
                self.pods.push(pod);
            }
        }
        // What is deleted and has ended goes, as soon as nobody holds it.
        self.pods.retain(|pod| !(is_terminating(pod) && has_ended(pod) && !has_finalizer(pod)));
    }

    fn release(&mut self, uid: Option<&String>) {
        let pod = self.pods.iter_mut().find(|pod| pod.metadata.uid.as_ref() == uid).unwrap();
        pod.metadata.finalizers.as_mut().unwrap().retain(|finalizer| finalizer != TRACKING);
    }

    /// A running Pod ends.
    fn end(&mut self, place: usize, well: bool) {
        let now = self.now;
        let pod = &mut self.pods[place];
        let (phase, code) = if well { ("Succeeded", 0) } else { ("Failed", 1) };
        pod.status = serde_json::from_value(json!({"phase": phase, "containerStatuses": [
            {"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
             "state": {"terminated": {"exitCode": code, "finishedAt": now}}}]}))
        .unwrap();
        self.ends.insert(pod.metadata.uid.clone().unwrap(), well);
    }

    fn running(&self) -> Vec<usize> {
        (0..self.pods.len()).filter(|place| !has_ended(&self.pods[*place])).collect()
    }

    fn wait(&mut self, seconds: i64) {
        self.now = Timestamp::from_second(self.now.as_second() + seconds).unwrap();
    }

    /// Passes until nothing changes any more.
    fn settle(&mut self) {
        for _ in 0..50 {
            let before = (self.job.status.clone(), self.pods.clone());
            self.pass(usize::MAX);
            if before == (self.job.status.clone(), self.pods.clone()) {
                return;
            }
        }
        panic!("does not come to rest: {:?}", self.job.status);
    }

    fn status(&self) -> &JobStatus {
        self.job.status.as_ref().unwrap()
    }

    fn holds(&self, kind: &str) -> Option<&str> {
        let found = condition(self.status(), kind).filter(|condition| condition.status == "True")?;
        found.reason.as_deref()
    }

    fn counts(&self) -> (i32, i32, i32) {
        let number = |number: Option<i32>| number.unwrap_or_default();
        (number(self.status().active), number(self.status().succeeded), number(self.status().failed))
    }
}

/// The next number of a seed (Numerical Recipes' LCG).
fn draw(seed: &mut u64, below: usize) -> usize {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    usize::try_from(*seed >> 33).unwrap() % below
}

#[test]
fn a_job_is_complete_after_enough_successes() {
    let mut world = World::new(&json!({"completions": 3, "parallelism": 2}));
    world.settle();
    assert_eq!((world.pods.len(), world.counts()), (2, (2, 0, 0)));
    for _ in 0..3 {
        let place = world.running()[0];
        world.end(place, true);
        world.settle();
    }
    assert_eq!(world.counts(), (0, 3, 0));
    assert_eq!(world.holds("Complete"), Some("CompletionsReached"));
    assert!(world.status().completion_time.is_some());
}

#[test]
fn an_indexed_job_has_a_pod_for_each_index() {
    let mut world = World::new(&json!({"completions": 5, "parallelism": 5, "completionMode": "Indexed"}));
    world.settle();
    let mut indexes: Vec<_> = world.pods.iter().map(|pod| index_of(&world.job, pod)).collect();
    indexes.sort_unstable();
    assert_eq!(indexes, (0..5).map(Some).collect::<Vec<_>>());
    for place in [1, 2, 4] {
        world.end(place, true);
    }
    world.wait(1);
    world.end(0, false);
    world.settle();
    assert_eq!(world.status().completed_indexes.as_deref(), Some("1,2,4"));
    assert_eq!((world.counts(), world.pods.len()), ((1, 3, 1), 5), "the failed one waits");
    world.wait(11);
    world.settle();
    assert_eq!(index_of(&world.job, world.pods.last().unwrap()), Some(0));
    for place in world.running() {
        world.end(place, true);
    }
    world.settle();
    assert_eq!(world.status().completed_indexes.as_deref(), Some("0-4"));
    assert_eq!(world.holds("Complete"), Some("CompletionsReached"));
}

#[test]
fn too_many_failures_end_a_job() {
    let mut world = World::new(&json!({"completions": 2, "parallelism": 2, "backoffLimit": 1}));
    world.settle();
    world.end(0, false);
    world.settle();
    assert_eq!(world.holds("Failed"), None);
    world.wait(11);
    world.settle();
    assert_eq!(world.running().len(), 2);
    let place = world.running()[0];
    world.end(place, false);
    world.settle();
    assert_eq!(world.holds("FailureTarget"), Some("BackoffLimitExceeded"));
    assert_eq!(world.holds("Failed"), None, "the last Pod is still going");
    let place = world.running()[0];
    world.end(place, false);
    world.settle();
    assert_eq!((world.holds("Failed"), world.counts()), (Some("BackoffLimitExceeded"), (0, 0, 3)));
}

#[test]
fn a_deadline_ends_a_job() {
    let mut world = World::new(&json!({"completions": 1, "activeDeadlineSeconds": 30}));
    world.settle();
    assert_eq!(plan(&world.job, &world.pods, world.now).again, Some(Duration::from_secs(30)));
    world.wait(30);
    world.settle();
    world.end(0, false);
    world.settle();
    assert_eq!(world.holds("Failed"), Some("DeadlineExceeded"));
}

#[test]
fn a_suspended_job_has_no_pods_and_counts_none_of_those_it_had() {
    let mut world = World::new(&json!({"completions": 2, "parallelism": 2}));
    world.settle();
    world.job.spec.as_mut().unwrap().suspend = Some(true);
    world.settle();
    assert_eq!((world.holds("Suspended"), world.status().start_time.as_ref()), (Some("JobSuspended"), None));
    for place in world.running().into_iter().rev() {
        world.end(place, false);
    }
    world.settle();
    assert_eq!(world.counts(), (0, 0, 0));
    world.job.spec.as_mut().unwrap().suspend = Some(false);
    world.settle();
    assert_eq!((world.running().len(), world.counts().0), (2, 2));
    assert!(world.status().start_time.is_some());
}

#[test]
fn restarts_of_containers_count_where_pods_restart_by_themselves() {
    let template = json!({"spec": {"restartPolicy": "OnFailure", "containers": [{"name": "c", "image": "i"}]}});
    let mut world = World::new(&json!({"completions": 1, "backoffLimit": 2, "template": template}));
    world.settle();
    world.pods[0].status = serde_json::from_value(json!({"phase": "Running", "containerStatuses": [
        {"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 2}]}))
    .unwrap();
    world.settle();
    assert_eq!(world.holds("FailureTarget"), Some("BackoffLimitExceeded"));
}

#[test]
fn a_rule_may_end_a_job_or_overlook_a_failure() {
    let rules = json!({"rules": [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [1]}}]});
    let spec = json!({"completions": 1, "podFailurePolicy": rules, "podReplacementPolicy": "Failed"});
    let mut world = World::new(&spec);
    world.settle();
    world.end(0, false);
    let condition = json!([{"type": "DisruptionTarget", "status": "True"}]);
    world.pods[0].status.as_mut().unwrap().conditions = serde_json::from_value(condition).unwrap();
    world.settle();
    assert_eq!((world.counts(), world.holds("FailureTarget")), ((0, 0, 0), None));
    world.wait(11);
    world.settle();
    let place = world.running()[0];
    world.end(place, false);
    world.settle();
    assert_eq!(world.holds("Failed"), Some("PodFailurePolicy"));
}

#[test]
fn a_job_goes_some_time_after_its_end() {
    let mut world = World::new(&json!({"completions": 1, "ttlSecondsAfterFinished": 60}));
    world.settle();
    world.end(0, true);
    world.settle();
    let next = plan(&world.job, &world.pods, world.now);
    assert_eq!((next.remove_job, next.again), (false, Some(Duration::from_mins(1))));
    world.wait(60);
    assert!(plan(&world.job, &world.pods, world.now).remove_job);
}

/// Whatever is cut short, each end is counted once, and no more Pods work than may.
#[test]
fn each_end_is_counted_once_whatever_is_cut_short() {
    for seed in 0..400_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let completions = 1 + draw(&mut state, 5);
        let parallelism = 1 + draw(&mut state, 3);
        let mode = ["NonIndexed", "Indexed"][draw(&mut state, 2)];
        let replacement = ["TerminatingOrFailed", "Failed"][draw(&mut state, 2)];
        let mut world = World::new(&json!({
            "completions": completions, "parallelism": parallelism, "completionMode": mode,
            "podReplacementPolicy": replacement, "backoffLimit": 1000}));
        for _ in 0..200 {
            match draw(&mut state, 6) {
                0 | 1 => {
                    let writes = draw(&mut state, 6);
                    world.pass(writes);
                }
                2 | 3 => {
                    let running = world.running();
                    if !running.is_empty() {
                        let place = running[draw(&mut state, running.len())];
                        let well = draw(&mut state, 3) > 0;
                        world.end(place, well);
                    }
                }
                4 => world.wait(700),
                _ => {
                    let suspend = draw(&mut state, 8) == 0;
                    world.job.spec.as_mut().unwrap().suspend = Some(suspend);
                }
            }
            let active = world.pods.iter().filter(|pod| is_active(pod)).count();
            assert!(active <= parallelism, "seed {seed}: {active} Pods work, and {parallelism} may");
        }
        world.job.spec.as_mut().unwrap().suspend = Some(false);
        for _ in 0..50 {
            world.wait(700);
            world.settle();
            for place in world.running() {
                world.end(place, true);
            }
        }
        let wells = world.ends.values().filter(|well| **well).count();
        let (active, succeeded, failed) = world.counts();
        let wanted = i32::try_from(completions).unwrap();
        assert_eq!((active, world.holds("Complete")), (0, Some("CompletionsReached")), "seed {seed}: {:?}", world.job);
        assert_eq!(succeeded, wanted, "seed {seed}");
        let bad = i32::try_from(world.ends.len() - wells).unwrap();
        assert!(failed <= bad, "seed {seed}: {failed} failures, and {bad} Pods have failed");
    }
}
