//! Rules for Deployment and ReplicaSet, and for the template of Pods that they share with other kinds.
//!
//! Source: `pkg/apis/apps/validation` of Kubernetes.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentStrategy, ReplicaSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use super::{apparmor, meta, names, pod};
use crate::field::{Errors, FieldError, FieldReason, Path};
use crate::label_selector::{is_empty, matches_labels};
use crate::support::unsupported_pod_fields;

pub(super) const NOT_NEGATIVE: &str = "must be greater than or equal to 0";

/// Checks a Deployment.
pub fn validate_deployment(new: &Deployment, old: Option<&Deployment>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let path = Path::root("spec");
    let spec = &new.spec;
    not_negative(&mut errors, &path.child("replicas"), spec.replicas);
    workload_selector(&mut errors, &path, &spec.selector, &spec.template);
    always_restarted(&mut errors, &path.child("template"), &spec.template);
    if let Some(strategy) = &spec.strategy {
        deployment_strategy(&mut errors, &path.child("strategy"), strategy);
    }
    not_negative(&mut errors, &path.child("minReadySeconds"), spec.min_ready_seconds);
    not_negative(&mut errors, &path.child("revisionHistoryLimit"), spec.revision_history_limit);
    not_negative(&mut errors, &path.child("progressDeadlineSeconds"), spec.progress_deadline_seconds);
    if let Some(seconds) = spec.progress_deadline_seconds
        && seconds <= spec.min_ready_seconds.unwrap_or_default()
    {
        errors.invalid(&path.child("progressDeadlineSeconds"), seconds, "must be greater than minReadySeconds");
    }
    if old.is_some_and(|old| old.spec.selector != spec.selector) {
        errors.invalid(&path.child("selector"), json!(spec.selector), "field is immutable");
    }
    errors.into_vec()
}

/// Checks a ReplicaSet.
pub fn validate_replica_set(new: &ReplicaSet, old: Option<&ReplicaSet>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let path = Path::root("spec");
    let spec = &new.spec;
    not_negative(&mut errors, &path.child("replicas"), spec.replicas);
    not_negative(&mut errors, &path.child("minReadySeconds"), spec.min_ready_seconds);
    let template = spec.template.clone().unwrap_or_default();
    workload_selector(&mut errors, &path, &spec.selector, &template);
    always_restarted(&mut errors, &path.child("template"), &template);
    if old.is_some_and(|old| old.spec.selector != spec.selector) {
        errors.invalid(&path.child("selector"), json!(spec.selector), "field is immutable");
    }
    errors.into_vec()
}

pub(super) fn not_negative(errors: &mut Errors, path: &Path<'_>, number: Option<i32>) {
    if let Some(number) = number.filter(|number| *number < 0) {
        errors.invalid(path, number, NOT_NEGATIVE);
    }
}

/// A selector that finds something, and the Pods of the template among it.
fn workload_selector(errors: &mut Errors, path: &Path<'_>, selector: &LabelSelector, template: &PodTemplateSpec) {
    label_selector(errors, &path.child("selector"), selector);
    if is_empty(selector) {
        errors.invalid(&path.child("selector"), json!(selector), "empty selector is invalid for deployment");
    }
    selects_template(errors, &path.child("template"), selector, template);
}

pub(super) fn selects_template(
    errors: &mut Errors,
    path: &Path<'_>,
    selector: &LabelSelector,
    template: &PodTemplateSpec,
) {
    let labels = template.metadata.as_ref().and_then(|metadata| metadata.labels.as_ref());
    if !matches_labels(selector, labels) {
        let detail = "`selector` does not match template `labels`";
        errors.invalid(&path.child("metadata").child("labels"), json!(labels), detail);
    }
}

pub(super) fn label_selector(errors: &mut Errors, path: &Path<'_>, selector: &LabelSelector) {
    if let Some(labels) = &selector.match_labels {
        meta::labels(errors, &path.child("matchLabels"), labels);
    }
    let list = path.child("matchExpressions");
    for (index, one) in selector.match_expressions.iter().flatten().enumerate() {
        let path = list.index(index);
        let values = one.values.as_deref().unwrap_or_default();
        match one.operator.as_str() {
            "In" | "NotIn" if values.is_empty() => {
                errors.required(&path.child("values"), "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.forbidden(&path.child("values"), detail);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.invalid(&path.child("operator"), other, "not a valid selector operator"),
        }
        for fault in names::qualified_name(&one.key) {
            errors.invalid(&path.child("key"), one.key.as_str(), fault);
        }
        let list = path.child("values");
        for (index, value) in values.iter().enumerate() {
            for fault in names::label_value(value) {
                errors.invalid(&list.index(index), value.as_str(), fault);
            }
        }
    }
}

/// A template whose Pods run until they are deleted.
fn always_restarted(errors: &mut Errors, path: &Path<'_>, template_spec: &PodTemplateSpec) {
    template(errors, path, template_spec);
    let path = path.child("spec");
    let Some(spec) = &template_spec.spec else { return };
    if let Some(policy) = spec.restart_policy.as_deref().filter(|policy| matches!(*policy, "OnFailure" | "Never")) {
        errors.not_supported(&path.child("restartPolicy"), policy, &["Always"]);
    }
    if spec.active_deadline_seconds.is_some() {
        let detail = "activeDeadlineSeconds in ReplicaSet is not Supported";
        errors.forbidden(&path.child("activeDeadlineSeconds"), detail);
    }
}

/// A template of Pods. What this engine does not do with a Pod is refused here already, and not first when a Pod is made.
pub(super) fn template(errors: &mut Errors, path: &Path<'_>, template: &PodTemplateSpec) {
    if let Some(labels) = template.metadata.as_ref().and_then(|metadata| metadata.labels.as_ref()) {
        meta::labels(errors, &path.child("labels"), labels);
    }
    if let (Some(metadata), Some(spec)) = (&template.metadata, &template.spec) {
        apparmor::annotations(errors, &path.child("annotations"), metadata, spec);
        apparmor::annotations_match_fields(errors, &path.child("spec"), metadata, spec);
    }
    let path = path.child("spec");
    let Some(spec) = &template.spec else {
        errors.required(&path.child("containers"), "");
        return;
    };
    let written = serde_json::to_value(spec).unwrap_or_default();
    for fault in unsupported_pod_fields(&json!({"spec": written})) {
        let below = fault.field.strip_prefix("spec").unwrap_or(&fault.field);
        errors.push(FieldError { field: format!("{path}{below}"), ..fault });
    }
    pod::pod_spec(errors, &path, spec);
    if spec.ephemeral_containers.as_ref().is_some_and(|list| !list.is_empty()) {
        errors.forbidden(&path.child("ephemeralContainers"), "ephemeral containers not allowed in pod template");
    }
}

fn deployment_strategy(errors: &mut Errors, path: &Path<'_>, strategy: &DeploymentStrategy) {
    let rolling = path.child("rollingUpdate");
    match (strategy.type_.as_deref(), &strategy.rolling_update) {
        (Some("Recreate"), Some(_)) => {
            errors.forbidden(&rolling, "may not be specified when strategy `type` is 'Recreate'");
        }
        (Some("Recreate"), None) => {}
        (Some("RollingUpdate"), Some(update)) => {
            let (unavailable, surge) = (rolling.child("maxUnavailable"), rolling.child("maxSurge"));
            count_or_percent(errors, &unavailable, update.max_unavailable.as_ref());
            count_or_percent(errors, &surge, update.max_surge.as_ref());
            if is_zero(update.max_unavailable.as_ref()) && is_zero(update.max_surge.as_ref()) {
                errors.invalid(&unavailable, json!(update.max_unavailable), "may not be 0 when `maxSurge` is 0");
            }
            if percent(update.max_unavailable.as_ref()).is_some_and(|percent| percent > 100) {
                errors.invalid(&unavailable, json!(update.max_unavailable), "must not be greater than 100%");
            }
        }
        (Some("RollingUpdate"), None) => errors.required(&rolling, "this should be defaulted and never be nil"),
        (other, _) => errors.add(
            path,
            FieldReason::NotSupported,
            other.map_or(Value::Null, Value::from),
            "supported values: \"Recreate\", \"RollingUpdate\"",
        ),
    }
}

fn count_or_percent(errors: &mut Errors, path: &Path<'_>, value: Option<&IntOrString>) {
    match value {
        Some(IntOrString::Int(number)) => not_negative(errors, path, Some(*number)),
        Some(IntOrString::String(text)) if percent(value).is_none() => {
            let detail = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or \
                          '93%', regex used for validation is '[0-9]+%')";
            errors.invalid(path, text.as_str(), detail);
        }
        Some(IntOrString::String(_)) | None => {}
    }
}

fn percent(value: Option<&IntOrString>) -> Option<u64> {
    let Some(IntOrString::String(text)) = value else { return None };
    text.strip_suffix('%').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok()
}

fn is_zero(value: Option<&IntOrString>) -> bool {
    matches!(value, None | Some(IntOrString::Int(0))) || percent(value) == Some(0)
}
