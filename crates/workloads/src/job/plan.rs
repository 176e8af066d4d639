//! What a pass does for a Job. Pure: the pass that follows sees what came of it.

use std::collections::HashSet;
use std::time::Duration;

use spec::Timestamp;
use spec::k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus, UncountedTerminatedPods};
use spec::k8s_openapi::api::core::v1::Pod;
use spec::k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::events::EventType;
use crate::job::failure_policy::{Verdict, judge};
use crate::job::indexes::Indexes;
use crate::job::pods::{has_failed, has_finalizer, index_of, is_indexed, replaces_only_failed, wait_after_failures};
use crate::pods::{give_up_order, has_ended, is_active, is_ready, is_terminating, phase};

/// At most as many Pods are made, deleted, or counted by one pass; the next follows at once.
const BURST: usize = 500;

/// What a pass does.
#[derive(Debug, Default)]
pub struct Plan<'a> {
    /// The status, which is written before anything else is done.
    pub status: JobStatus,
    /// Pods whose end is in the status now.
    pub release: Vec<&'a Pod>,
    /// Pods that are to go.
    pub delete: Vec<&'a Pod>,
    /// Whether the end of these counts for nothing.
    pub uncounted: bool,
    /// Pods that are to come, each with the completion that it works at.
    pub create: Vec<Option<i32>>,
    /// What is said of it.
    pub events: Vec<(EventType, &'static str, String)>,
    /// When to look again though nothing has happened.
    pub again: Option<Duration>,
    /// It has ended long ago, and is to go.
    pub remove_job: bool,
}

/// How a Job ends, once its Pods have.
struct Ending {
    failed: bool,
    reason: String,
    message: String,
}

impl Ending {
    fn failed(reason: &str, message: impl Into<String>) -> Self {
        Self { failed: true, reason: reason.to_owned(), message: message.into() }
    }

    fn complete() -> Self {
        let message = "Reached expected number of succeeded pods".to_owned();
        Self { failed: false, reason: "CompletionsReached".to_owned(), message }
    }

    /// The condition that tells of it before the last Pod is gone, and the one after.
    fn conditions(&self) -> [&'static str; 2] {
        if self.failed { ["FailureTarget", "Failed"] } else { ["SuccessCriteriaMet", "Complete"] }
    }
}

/// Compares a Job with its Pods.
pub fn plan<'a>(job: &Job, pods: &'a [Pod], now: Timestamp) -> Plan<'a> {
    let empty = JobSpec::default();
    let spec = job.spec.as_ref().unwrap_or(&empty);
    let mut plan = Plan { status: job.status.clone().unwrap_or_default(), ..Plan::default() };
    if let Some(ended) = ended_at(&plan.status) {
        plan.release = pods.iter().filter(|pod| has_finalizer(pod)).collect();
        retire(job, spec, ended, now, &mut plan);
        return plan;
    }
    let suspended = spec.suspend == Some(true);
    if plan.status.start_time.is_none() && !suspended {
        plan.status.start_time = Some(Time(now));
    }
    let mut count = Count::take(job, spec, pods, &mut plan);
    let mut ending = ending(job, spec, pods, &count, &mut plan, now);
    let active: Vec<&Pod> = pods.iter().filter(|pod| is_active(pod)).collect();
    if ending.is_some() {
        plan.delete.clone_from(&active);
    } else if job.metadata.deletion_timestamp.is_none() {
        manage(job, spec, pods, &active, &count, &mut plan, now);
        let left = active.len() - plan.delete.len();
        let enough = match spec.completions {
            None => count.succeeded() > 0,
            Some(completions) => count.succeeded() >= completions,
        };
        if enough && left == 0 && plan.create.is_empty() && !suspended {
            ending = Some(Ending::complete());
        } else {
            note_suspension(suspended, &mut plan, now);
        }
    }
    count.take_ended(job, spec, pods, ending.as_ref(), &mut plan);
    publish(job, spec, pods, count, ending, &mut plan, now);
    plan
}

/// When a Job ended.
fn ended_at(status: &JobStatus) -> Option<Timestamp> {
    let ends = |condition: &&JobCondition| {
        matches!(condition.type_.as_str(), "Complete" | "Failed") && condition.status == "True"
    };
    status.conditions.iter().flatten().find(ends)?.last_transition_time.as_ref().map(|time| time.0)
}

/// A Job that has ended goes after its time.
fn retire(job: &Job, spec: &JobSpec, ended: Timestamp, now: Timestamp, plan: &mut Plan<'_>) {
    let Some(seconds) = spec.ttl_seconds_after_finished else { return };
    if job.metadata.deletion_timestamp.is_some() {
        return;
    }
    let passed = Duration::try_from(now.duration_since(ended)).unwrap_or_default();
    let left = Duration::from_secs(u64::try_from(seconds).unwrap_or_default()).saturating_sub(passed);
    if left.is_zero() {
        plan.remove_job = true;
    } else {
        plan.again = Some(left);
    }
}

/// The ends of Pods: those in the counters, and those on their way there.
struct Count {
    succeeded: i32,
    failed: i32,
    waiting: UncountedTerminatedPods,
    done: Option<Indexes>,
    /// Uids of all that wait, or that have just begun to.
    recorded: HashSet<String>,
}

impl Count {
    /// What the status says, less those who wait no longer: their finalizer is gone.
    fn take<'a>(job: &Job, spec: &JobSpec, pods: &'a [Pod], plan: &mut Plan<'a>) -> Self {
        let status = &plan.status;
        let tracked: HashSet<&str> = pods.iter().filter(|pod| has_finalizer(pod)).map(uid).collect();
        let split = |list: Option<Vec<String>>| {
            list.unwrap_or_default().into_iter().partition::<Vec<String>, _>(|uid| tracked.contains(uid.as_str()))
        };
        let uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
        let (succeeding, succeeded) = split(uncounted.succeeded);
        let (failing, failed) = split(uncounted.failed);
        let number = |list: &Vec<String>| i32::try_from(list.len()).unwrap_or(i32::MAX);
        let completions = spec.completions.unwrap_or_default();
        let mut count = Self {
            succeeded: status.succeeded.unwrap_or_default() + number(&succeeded),
            failed: status.failed.unwrap_or_default() + number(&failed),
            recorded: succeeding.iter().chain(&failing).cloned().collect(),
            waiting: UncountedTerminatedPods { succeeded: Some(succeeding), failed: Some(failing) },
            done: is_indexed(job)
                .then(|| Indexes::parse(status.completed_indexes.as_deref().unwrap_or_default(), completions)),
        };
        count.take_ended(job, spec, pods, None, plan);
        count
    }

    /// Pods that have ended since, or that count as failed since the whole Job ends.
    fn take_ended<'a>(
        &mut self,
        job: &Job,
        spec: &JobSpec,
        pods: &'a [Pod],
        ending: Option<&Ending>,
        plan: &mut Plan<'a>,
    ) {
        let job_fails = ending.is_some_and(|ending| ending.failed);
        let job_goes = job.metadata.deletion_timestamp.is_some();
        for pod in pods.iter().filter(|pod| has_finalizer(pod)) {
            if self.recorded.len() >= BURST {
                return;
            }
            let (succeeded, failed) = (phase(pod) == "Succeeded", has_failed(job, pod) || job_fails);
            if !(succeeded || failed || job_goes || ending.is_some()) {
                continue;
            }
            if self.recorded.insert(uid(pod).to_owned()) {
                self.note(job, spec, pod, succeeded, failed);
            }
            if !plan.release.iter().any(|released| std::ptr::eq(*released, pod)) {
                plan.release.push(pod);
            }
        }
    }

    fn note(&mut self, job: &Job, spec: &JobSpec, pod: &Pod, succeeded: bool, failed: bool) {
        let index = index_of(job, pod);
        if succeeded {
            match (&mut self.done, index) {
                // The index alone keeps it from being counted twice.
                (Some(done), Some(index)) => done.insert(index),
                (Some(_), None) => {}
                (None, _) => self.waiting.succeeded.get_or_insert_default().push(uid(pod).to_owned()),
            }
        } else if failed
            && (self.done.is_none() || index.is_some())
            && judge(spec.pod_failure_policy.as_ref(), pod) != Verdict::Ignore
        {
            self.waiting.failed.get_or_insert_default().push(uid(pod).to_owned());
        }
    }

    fn succeeded(&self) -> i32 {
        let waiting = self.waiting.succeeded.as_ref().map_or(0, Vec::len);
        let counted = || self.succeeded + i32::try_from(waiting).unwrap_or(i32::MAX);
        self.done.as_ref().map_or_else(counted, Indexes::total)
    }

    fn failed(&self) -> i32 {
        self.failed + i32::try_from(self.waiting.failed.as_ref().map_or(0, Vec::len)).unwrap_or(i32::MAX)
    }

    fn is_settled(&self) -> bool {
        [&self.waiting.succeeded, &self.waiting.failed].into_iter().all(|list| list.as_ref().is_none_or(Vec::is_empty))
    }
}

fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// Whether the Job is to end now. What an earlier pass has found out holds.
fn ending(
    job: &Job,
    spec: &JobSpec,
    pods: &[Pod],
    count: &Count,
    plan: &mut Plan<'_>,
    now: Timestamp,
) -> Option<Ending> {
    for (kind, failed) in [("SuccessCriteriaMet", false), ("FailureTarget", true)] {
        if let Some(found) = condition(&plan.status, kind).filter(|found| found.status == "True") {
            let (reason, message) =
                (found.reason.clone().unwrap_or_default(), found.message.clone().unwrap_or_default());
            return Some(Ending { failed, reason, message });
        }
    }
    let verdicts =
        pods.iter().filter(|pod| has_failed(job, pod)).map(|pod| judge(spec.pod_failure_policy.as_ref(), pod));
    for verdict in verdicts {
        if let Verdict::FailJob(message) = verdict {
            return Some(Ending::failed("PodFailurePolicy", message));
        }
    }
    let limit = spec.backoff_limit.unwrap_or(6);
    if count.failed() > limit || restarts_exceed(spec, pods, limit) {
        return Some(Ending::failed("BackoffLimitExceeded", "Job has reached the specified backoff limit"));
    }
    let seconds = spec.active_deadline_seconds.filter(|_| spec.suspend != Some(true))?;
    let start = plan.status.start_time.as_ref()?.0;
    let passed = Duration::try_from(now.duration_since(start)).unwrap_or_default();
    let left = Duration::from_secs(u64::try_from(seconds).unwrap_or_default()).saturating_sub(passed);
    if left.is_zero() {
        return Some(Ending::failed("DeadlineExceeded", "Job was active longer than specified deadline"));
    }
    plan.again = Some(left);
    None
}

/// Where Pods restart their containers by themselves, these restarts are the failures.
fn restarts_exceed(spec: &JobSpec, pods: &[Pod], limit: i32) -> bool {
    let policy = spec.template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
    if policy != Some("OnFailure") {
        return false;
    }
    let running = pods.iter().filter(|pod| matches!(phase(pod), "Running" | "Pending"));
    let statuses = running.filter_map(|pod| pod.status.as_ref()).flat_map(|status| {
        status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten())
    });
    let restarts: i32 = statuses.map(|status| status.restart_count).sum();
    if limit == 0 { restarts > 0 } else { restarts >= limit }
}

/// Makes or deletes Pods, so that as many work as can be of use.
fn manage<'a>(
    job: &Job,
    spec: &JobSpec,
    pods: &'a [Pod],
    active: &[&'a Pod],
    count: &Count,
    plan: &mut Plan<'a>,
    now: Timestamp,
) {
    let (present, parallelism) = (active.len(), usize::try_from(spec.parallelism.unwrap_or(1)).unwrap_or_default());
    let wanted = match spec.completions {
        _ if spec.suspend == Some(true) => 0,
        None if count.succeeded() > 0 => present,
        None => parallelism,
        Some(completions) => usize::try_from(completions - count.succeeded()).unwrap_or_default().min(parallelism),
    };
    plan.uncounted = true;
    plan.delete = surplus(job, active, present.saturating_sub(wanted));
    if !plan.delete.is_empty() {
        return;
    }
    let going = pods.iter().filter(|pod| is_terminating(pod) && !has_ended(pod) && replaces_only_failed(job));
    let taken: Vec<&Pod> = active.iter().copied().chain(going).collect();
    let missing = wanted.saturating_sub(taken.len()).min(BURST);
    if missing == 0 {
        return;
    }
    let wait = wait_after_failures(job, pods, now);
    if !wait.is_zero() {
        plan.again = Some(plan.again.map_or(wait, |again| again.min(wait)));
        return;
    }
    plan.create = match &count.done {
        None => vec![None; missing],
        Some(done) => {
            let taken: HashSet<i32> = taken.iter().filter_map(|pod| index_of(job, pod)).collect();
            let free = |index: &i32| !done.contains(*index) && !taken.contains(index);
            (0..spec.completions.unwrap_or_default()).filter(free).take(missing).map(Some).collect()
        }
    };
}

/// Pods that are to go: two at one completion, those at none, and as many others as are too many.
fn surplus<'a>(job: &Job, active: &[&'a Pod], at_least: usize) -> Vec<&'a Pod> {
    let mut sorted = active.to_vec();
    spec::ordered::sort_by(&mut sorted, |a, b| give_up_order(a, b));
    let mut gone: Vec<&Pod> = Vec::new();
    if is_indexed(job) {
        let mut seen = HashSet::new();
        // What serves most is kept.
        for pod in sorted.iter().rev() {
            if !index_of(job, pod).is_some_and(|index| seen.insert(index)) {
                gone.push(pod);
            }
        }
    }
    let others: Vec<&Pod> = sorted.into_iter().filter(|pod| !gone.iter().any(|one| std::ptr::eq(*one, *pod))).collect();
    let more = at_least.saturating_sub(gone.len());
    gone.extend(others.into_iter().take(more));
    gone.truncate(BURST);
    gone
}

fn note_suspension(suspended: bool, plan: &mut Plan<'_>, now: Timestamp) {
    let word = condition(&plan.status, "Suspended").map(|condition| condition.status.clone());
    match (suspended, word.as_deref()) {
        (true, None | Some("False")) => {
            set_condition(&mut plan.status, "Suspended", "True", "JobSuspended", "Job suspended", now);
            plan.status.start_time = None;
            plan.events.push((EventType::Normal, "Suspended", "Job suspended".to_owned()));
        }
        (false, Some("True")) => {
            set_condition(&mut plan.status, "Suspended", "False", "JobResumed", "Job resumed", now);
            plan.status.start_time = Some(Time(now));
            plan.events.push((EventType::Normal, "Resumed", "Job resumed".to_owned()));
        }
        _ => {}
    }
}

/// The counters, and how the Job ends if it does: at last once nothing of it is left to be counted.
fn publish(
    job: &Job,
    spec: &JobSpec,
    pods: &[Pod],
    count: Count,
    ending: Option<Ending>,
    plan: &mut Plan<'_>,
    now: Timestamp,
) {
    let is_kept = |pod: &&Pod| is_active(pod) && !plan.delete.iter().any(|gone| std::ptr::eq(*gone, *pod));
    let kept: Vec<&Pod> = pods.iter().filter(is_kept).collect();
    let going = pods.iter().filter(|pod| is_terminating(pod) && !has_ended(pod)).count() + plan.delete.len();
    let number = |number: usize| Some(i32::try_from(number).unwrap_or(i32::MAX));
    let status = &mut plan.status;
    status.active = number(kept.len()).filter(|active| *active > 0);
    status.ready = number(kept.iter().filter(|pod| is_ready(pod)).count());
    status.terminating = number(going);
    let settled = count.is_settled();
    let succeeded = if count.done.is_some() { count.succeeded() } else { count.succeeded };
    status.succeeded = Some(succeeded).filter(|count| *count > 0);
    status.failed = Some(count.failed).filter(|count| *count > 0);
    status.completed_indexes = count.done.as_ref().map(Indexes::write).filter(|text| !text.is_empty());
    status.uncounted_terminated_pods = Some(UncountedTerminatedPods {
        succeeded: count.waiting.succeeded.filter(|list| !list.is_empty()),
        failed: count.waiting.failed.filter(|list| !list.is_empty()),
    });
    let Some(ending) = ending else { return };
    let [target, last] = ending.conditions();
    set_condition(status, target, "True", &ending.reason, &ending.message, now);
    // Whatever has a finalizer yet is released by this pass; the next one finds nothing left.
    let tracked = pods.iter().any(has_finalizer);
    if !settled || tracked || going > 0 || !kept.is_empty() {
        return;
    }
    set_condition(status, last, "True", &ending.reason, &ending.message, now);
    if ending.failed {
        let reason = failure_reason(&ending.reason);
        plan.events.push((EventType::Warning, reason, ending.message));
    } else {
        status.completion_time = Some(Time(now));
        if spec.completions.is_some_and(|completions| succeeded > completions) {
            let message = "Too many succeeded pods running after completion count reached".to_owned();
            plan.events.push((EventType::Warning, "TooManySucceededPods", message));
        }
        plan.events.push((EventType::Normal, "Completed", "Job completed".to_owned()));
    }
    plan.again = spec
        .ttl_seconds_after_finished
        .filter(|_| job.metadata.deletion_timestamp.is_none())
        .map(|seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or_default()));
}

/// Reasons of Events are words of this crate, and a condition's is a text of the store.
fn failure_reason(reason: &str) -> &'static str {
    match reason {
        "PodFailurePolicy" => "PodFailurePolicy",
        "DeadlineExceeded" => "DeadlineExceeded",
        _ => "BackoffLimitExceeded",
    }
}

fn condition<'a>(status: &'a JobStatus, kind: &str) -> Option<&'a JobCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}

/// Sets a condition; one that has this word already stays as it is.
fn set_condition(status: &mut JobStatus, kind: &str, word: &str, reason: &str, message: &str, now: Timestamp) {
    if condition(status, kind).is_some_and(|condition| condition.status == word) {
        return;
    }
    let conditions = status.conditions.get_or_insert_default();
    conditions.retain(|condition| condition.type_ != kind);
    conditions.push(JobCondition {
        type_: kind.to_owned(),
        status: word.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    });
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
