//! What a Job's `podFailurePolicy` says of a failed Pod. Pure.

use spec::k8s_openapi::api::batch::v1::{PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement};
use spec::k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};

/// What a failure means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It counts against the limit.
    Count,
    /// It is as if the Pod had never been.
    Ignore,
    /// The Job has failed, for this reason.
    FailJob(String),
}

/// The word of the first rule that fits; without one, a failure counts.
pub fn judge(policy: Option<&PodFailurePolicy>, pod: &Pod) -> Verdict {
    let rules = policy.map(|policy| policy.rules.as_slice()).unwrap_or_default();
    let empty = PodStatus::default();
    let status = pod.status.as_ref().unwrap_or(&empty);
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    for (place, rule) in rules.iter().enumerate() {
        let found = if let Some(codes) = &rule.on_exit_codes {
            container_with(status, codes).map(|(container, code)| {
                format!("Container {container} for pod {namespace}/{name} failed with exit code {code}")
            })
        } else {
            let patterns = rule.on_pod_conditions.as_deref().unwrap_or_default();
            let fits = |kind: &str, word: &str| {
                patterns.iter().any(|one| one.type_ == kind && one.status.as_deref().unwrap_or("True") == word)
            };
            let condition = status.conditions.iter().flatten().find(|one| fits(&one.type_, &one.status));
            condition.map(|condition| format!("Pod {namespace}/{name} has condition {}", condition.type_))
        };
        let Some(found) = found else { continue };
        return match rule.action.as_str() {
            "Ignore" => Verdict::Ignore,
            "FailJob" => Verdict::FailJob(format!("{found} matching FailJob rule at index {place}")),
            _ => Verdict::Count,
        };
    }
    Verdict::Count
}

/// A container that has ended in a way that a rule names.
fn container_with(status: &PodStatus, rule: &PodFailurePolicyOnExitCodesRequirement) -> Option<(String, i32)> {
    let apps = status.container_statuses.iter().flatten();
    let fits = |container: &ContainerStatus| {
        let code = container.state.as_ref()?.terminated.as_ref()?.exit_code;
        let named = rule.container_name.as_ref().is_none_or(|name| *name == container.name);
        let listed = rule.values.contains(&code);
        let wanted = if rule.operator == "In" { listed } else { !listed };
        (named && code != 0 && wanted).then(|| (container.name.clone(), code))
    };
    apps.chain(status.init_container_statuses.iter().flatten()).find_map(fits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_first_rule_that_fits_decides() {
        let policy: PodFailurePolicy = serde_json::from_value(json!({"rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "FailJob", "onExitCodes": {"operator": "In", "containerName": "main", "values": [42]}},
            {"action": "Count", "onExitCodes": {"operator": "NotIn", "values": [1]}},
        ]}))
        .unwrap();
        let pod = |code: i32, condition: &str| -> Pod {
            serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n"}, "status": {
                "conditions": [{"type": condition, "status": "True"}],
                "containerStatuses": [{"name": "main", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                    "state": {"terminated": {"exitCode": code}}}]}}))
            .unwrap()
        };
        let message = "Container main for pod n/p failed with exit code 42 matching FailJob rule at index 1";
        let cases = [
            (42, "DisruptionTarget", Verdict::Ignore),
            (42, "Ready", Verdict::FailJob(message.to_owned())),
            (3, "Ready", Verdict::Count),
            (1, "Ready", Verdict::Count),
        ];
        for (code, condition, want) in cases {
            assert_eq!(judge(Some(&policy), &pod(code, condition)), want, "{code} {condition}");
        }
        assert_eq!(judge(None, &pod(42, "DisruptionTarget")), Verdict::Count);
    }
}
