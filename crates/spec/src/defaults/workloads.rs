//! Defaults of the kinds that make Pods: Deployment, ReplicaSet and Job.
//!
//! Source: `pkg/apis/apps/v1/defaults.go` and `pkg/apis/batch/v1/defaults.go` of Kubernetes.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::pod::{default_pod_spec, set_text};

/// Fills in replicas, strategy, history and deadline.
pub fn default_deployment(deployment: &mut Deployment) {
    let spec = &mut deployment.spec;
    default_template(&mut spec.template);
    spec.replicas.get_or_insert(1);
    spec.revision_history_limit.get_or_insert(10);
    spec.progress_deadline_seconds.get_or_insert(600);
    let strategy = spec.strategy.get_or_insert_default();
    set_text(&mut strategy.type_, "RollingUpdate");
    if strategy.type_.as_deref() == Some("RollingUpdate") {
        let rolling = strategy.rolling_update.get_or_insert_default();
        let quarter = || IntOrString::String("25%".to_owned());
        rolling.max_unavailable.get_or_insert_with(quarter);
        rolling.max_surge.get_or_insert_with(quarter);
    }
}

/// Fills in replicas.
pub fn default_replica_set(set: &mut ReplicaSet) {
    let spec = &mut set.spec;
    spec.replicas.get_or_insert(1);
    if let Some(template) = &mut spec.template {
        default_template(template);
    }
}

/// Fills in how often and how many at a time.
pub fn default_job(job: &mut Job) {
    let Some(spec) = &mut job.spec else { return };
    default_template(&mut spec.template);
    default_job_spec(spec);
    let labels = spec.template.metadata.as_ref().and_then(|metadata| metadata.labels.clone());
    if job.metadata.labels.as_ref().is_none_or(std::collections::BTreeMap::is_empty) {
        job.metadata.labels = labels;
    }
}

fn default_job_spec(spec: &mut JobSpec) {
    if spec.completions.is_none() && spec.parallelism.is_none() {
        spec.completions = Some(1);
    }
    spec.parallelism.get_or_insert(1);
    let per_index = spec.backoff_limit_per_index.is_some();
    spec.backoff_limit.get_or_insert(if per_index { i32::MAX } else { 6 });
    set_text(&mut spec.completion_mode, "NonIndexed");
    spec.suspend.get_or_insert(false);
    spec.manual_selector.get_or_insert(false);
    let has_policy = spec.pod_failure_policy.is_some();
    set_text(&mut spec.pod_replacement_policy, if has_policy { "Failed" } else { "TerminatingOrFailed" });
    for rule in spec.pod_failure_policy.iter_mut().flat_map(|policy| &mut policy.rules) {
        for pattern in rule.on_pod_conditions.iter_mut().flatten() {
            if pattern.status.as_deref().is_none_or(str::is_empty) {
                pattern.status = Some("True".to_owned());
            }
        }
    }
}

/// Fills in a template as if it were a Pod.
fn default_template(template: &mut PodTemplateSpec) {
    if let Some(spec) = &mut template.spec {
        default_pod_spec(spec);
    }
}
