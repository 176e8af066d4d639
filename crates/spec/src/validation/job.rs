//! Rules for Jobs.
//!
//! Source: `pkg/apis/batch/validation` of Kubernetes.

use std::collections::HashSet;

use k8s_openapi::api::batch::v1::{Job, JobSpec, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::json;

use super::names;
use super::pod::one_of;
use super::workloads::{label_selector, not_negative, selects_template, template};
use crate::field::{Errors, FieldError, FieldReason, Path};

const MOST_PARALLEL_INDEXED: i32 = 100_000;
const MOST_FAILURE_RULES: usize = 20;
const MOST_EXIT_CODES: usize = 255;
const NOT_HERE: &str = "is not supported by monopod yet";

/// Checks a Job.
pub fn validate_job(new: &Job, old: Option<&Job>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let path = Path::root("spec");
    let Some(spec) = &new.spec else {
        errors.required(&path, "");
        return errors.into_vec();
    };
    job_spec(&mut errors, &path, spec);
    host_names(&mut errors, new, spec);
    if let Some(old) = old.and_then(|old| old.spec.as_ref()) {
        fixed_fields(&mut errors, &path, spec, old);
    }
    errors.into_vec()
}

fn job_spec(errors: &mut Errors, path: &Path<'_>, spec: &JobSpec) {
    for (field, number) in [
        ("parallelism", spec.parallelism),
        ("completions", spec.completions),
        ("backoffLimit", spec.backoff_limit),
        ("ttlSecondsAfterFinished", spec.ttl_seconds_after_finished),
    ] {
        not_negative(errors, &path.child(field), number);
    }
    if let Some(seconds) = spec.active_deadline_seconds.filter(|seconds| *seconds < 0) {
        errors.invalid(&path.child("activeDeadlineSeconds"), seconds, super::workloads::NOT_NEGATIVE);
    }
    let modes = ["Indexed", "NonIndexed"];
    one_of(errors, &path.child("completionMode"), spec.completion_mode.as_deref(), &modes);
    if is_indexed(spec) {
        if spec.completions.is_none() {
            errors.required(&path.child("completions"), "when completion mode is Indexed");
        }
        if let Some(parallelism) = spec.parallelism.filter(|number| *number > MOST_PARALLEL_INDEXED) {
            let detail =
                format!("must be less than or equal to {MOST_PARALLEL_INDEXED} when completion mode is Indexed");
            errors.invalid(&path.child("parallelism"), parallelism, detail);
        }
    }
    let absent = [
        ("backoffLimitPerIndex", spec.backoff_limit_per_index.is_some()),
        ("maxFailedIndexes", spec.max_failed_indexes.is_some()),
        ("successPolicy", spec.success_policy.is_some()),
        ("managedBy", spec.managed_by.is_some()),
        ("scheduling", spec.scheduling.is_some()),
    ];
    for (field, _) in absent.into_iter().filter(|(_, given)| *given) {
        errors.forbidden(&path.child(field), NOT_HERE);
    }
    let policies: &[&str] =
        if spec.pod_failure_policy.is_some() { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
    one_of(errors, &path.child("podReplacementPolicy"), spec.pod_replacement_policy.as_deref(), policies);
    failure_policy(errors, &path.child("podFailurePolicy"), spec);
    match &spec.selector {
        Some(selector) => {
            label_selector(errors, &path.child("selector"), selector);
            selects_template(errors, &path.child("template"), selector, &spec.template);
        }
        None => errors.required(&path.child("selector"), ""),
    }
    job_template(errors, &path.child("template"), &spec.template, spec.pod_failure_policy.is_some());
}

fn is_indexed(spec: &JobSpec) -> bool {
    spec.completion_mode.as_deref() == Some("Indexed")
}

/// A template whose Pods end by themselves.
fn job_template(errors: &mut Errors, path: &Path<'_>, template_spec: &PodTemplateSpec, has_policy: bool) {
    template(errors, path, template_spec);
    let policy = template_spec.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()).unwrap_or_default();
    let (path, field) = (path.child("spec"), "restartPolicy");
    match policy {
        "" | "Always" => errors.required(&path.child(field), "valid values: \"OnFailure\", \"Never\""),
        "OnFailure" if has_policy => {
            errors.invalid(
                &path.child(field),
                policy,
                "only \"Never\" is supported when podFailurePolicy is specified",
            );
        }
        // Any other word is refused with the template.
        _ => {}
    }
}

/// An indexed Job gives each Pod a host name that ends in its index.
fn host_names(errors: &mut Errors, job: &Job, spec: &JobSpec) {
    let Some(last) = spec.completions.filter(|count| is_indexed(spec) && *count > 0) else { return };
    let name = job.metadata.name.as_deref().unwrap_or_default();
    let host_name = format!("{name}-{}", last - 1);
    if !names::dns_label(&host_name).is_empty() {
        let detail = format!("will not able to create pod with invalid DNS label: {host_name}");
        errors.invalid(&Path::root("metadata").child("name"), name, detail);
    }
}

fn failure_policy(errors: &mut Errors, path: &Path<'_>, spec: &JobSpec) {
    let Some(policy) = &spec.pod_failure_policy else { return };
    let path = path.child("rules");
    if policy.rules.len() > MOST_FAILURE_RULES {
        errors.too_many(&path, policy.rules.len(), MOST_FAILURE_RULES);
    }
    let containers: HashSet<&str> = spec
        .template
        .spec
        .iter()
        .flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()))
        .map(|container| container.name.as_str())
        .collect();
    for (index, rule) in policy.rules.iter().enumerate() {
        failure_rule(errors, &path.index(index), rule, &containers);
    }
}

fn failure_rule(errors: &mut Errors, path: &Path<'_>, rule: &PodFailurePolicyRule, containers: &HashSet<&str>) {
    let action = path.child("action");
    match rule.action.as_str() {
        "FailIndex" => errors.invalid(&action, "FailIndex", "requires the backoffLimitPerIndex to be set"),
        other => one_of(errors, &action, Some(other), &["Count", "FailIndex", "FailJob", "Ignore"]),
    }
    if let Some(codes) = &rule.on_exit_codes {
        exit_codes(errors, &path.child("onExitCodes"), codes, containers);
    }
    let list = path.child("onPodConditions");
    let patterns = rule.on_pod_conditions.as_deref().unwrap_or_default();
    for (index, pattern) in patterns.iter().enumerate() {
        let path = list.index(index);
        for fault in names::qualified_name(&pattern.type_) {
            errors.invalid(&path.child("type"), pattern.type_.as_str(), fault);
        }
        one_of(errors, &path.child("status"), pattern.status.as_deref(), &["False", "True", "Unknown"]);
    }
    match (rule.on_exit_codes.is_some(), patterns.is_empty()) {
        (true, false) => omitted(errors, path, "specifying both OnExitCodes and OnPodConditions is not supported"),
        (false, true) => omitted(errors, path, "specifying one of OnExitCodes and OnPodConditions is required"),
        (true, true) | (false, false) => {}
    }
}

fn omitted(errors: &mut Errors, path: &Path<'_>, detail: &str) {
    errors.add(path, FieldReason::Invalid, json!({}), detail);
}

fn exit_codes(
    errors: &mut Errors,
    path: &Path<'_>,
    codes: &PodFailurePolicyOnExitCodesRequirement,
    containers: &HashSet<&str>,
) {
    one_of(errors, &path.child("operator"), Some(codes.operator.as_str()), &["In", "NotIn"]);
    if let Some(name) = codes.container_name.as_deref().filter(|name| !containers.contains(name)) {
        let detail = "must be one of the container or initContainer names in the pod template";
        errors.invalid(&path.child("containerName"), name, detail);
    }
    let list = path.child("values");
    match codes.values.len() {
        0 => errors.invalid(&list, json!(codes.values), "at least one value is required"),
        count if count > MOST_EXIT_CODES => errors.too_many(&list, count, MOST_EXIT_CODES),
        _ => {}
    }
    let mut seen = HashSet::new();
    for (index, code) in codes.values.iter().enumerate() {
        if codes.operator == "In" && *code == 0 {
            errors.invalid(&list.index(index), 0, "must not be 0 for the In operator");
        }
        if !seen.insert(code) {
            errors.duplicate(&list.index(index), *code);
        }
    }
    if !codes.values.is_sorted() {
        errors.invalid(&list, json!(codes.values), "must be ordered");
    }
}

/// What may not change in an update. `completions` of an indexed Job may, together with `parallelism`, as elastic Jobs do;
/// the template of a suspended Job that never ran may in what decides where its Pods go.
fn fixed_fields(errors: &mut Errors, path: &Path<'_>, new: &JobSpec, old: &JobSpec) {
    let immutable = "field is immutable";
    if new.completions != old.completions {
        let elastic = is_indexed(new) && new.completions == new.parallelism && old.completions == old.parallelism;
        if !elastic {
            let detail = if is_indexed(new) {
                "can only be modified in tandem with parallelism such that spec.completions == spec.parallelism"
            } else {
                immutable
            };
            errors.invalid(&path.child("completions"), json!(new.completions), detail);
        }
    }
    if new.selector != old.selector {
        errors.invalid(&path.child("selector"), json!(new.selector), immutable);
    }
    if template_as(new, old) != old.template {
        errors.invalid(&path.child("template"), json!(new.template), immutable);
    }
    if new.completion_mode != old.completion_mode {
        errors.invalid(&path.child("completionMode"), json!(new.completion_mode), immutable);
    }
    if new.pod_failure_policy != old.pod_failure_policy {
        errors.invalid(&path.child("podFailurePolicy"), json!(new.pod_failure_policy), immutable);
    }
}

/// The new template with the old one's word for what a suspended Job may change.
fn template_as(new: &JobSpec, old: &JobSpec) -> PodTemplateSpec {
    let mut template = new.template.clone();
    if old.suspend != Some(true) {
        return template;
    }
    template.metadata.clone_from(&old.template.metadata);
    if let (Some(spec), Some(old)) = (&mut template.spec, &old.template.spec) {
        spec.node_selector.clone_from(&old.node_selector);
        spec.tolerations.clone_from(&old.tolerations);
        spec.scheduling_gates.clone_from(&old.scheduling_gates);
        spec.affinity.clone_from(&old.affinity);
        for (containers, before) in [
            (Some(&mut spec.containers), Some(&old.containers)),
            (spec.init_containers.as_mut(), old.init_containers.as_ref()),
        ] {
            for (container, before) in containers.into_iter().flatten().zip(before.into_iter().flatten()) {
                container.resources.clone_from(&before.resources);
            }
        }
    }
    template
}
