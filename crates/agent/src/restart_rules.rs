//! Whether a container that ended runs again: its own rules, its own policy, its pod's. Pure.

use spec::k8s_openapi::api::core::v1::{Container, ContainerRestartRule};

use crate::desired::{ContainerKind, DesiredPod, RestartPolicy};

/// Whether a container that ended with `exit_code` starts again (apimachinery, `podutil.ContainerShouldRestart`). For an
/// init container that is asked only after a failure.
pub fn starts_again(desired: &DesiredPod, kind: ContainerKind, container: &Container, exit_code: i32) -> bool {
    // A rule can only ask for a restart, of the container or of its whole Pod.
    if rule_for(container, exit_code).is_some() {
        return true;
    }
    let of_pod = desired.restart_policy();
    match (kind, policy_of(container)) {
        (ContainerKind::Sidecar, _) => true,
        (ContainerKind::Ephemeral, _) => false,
        (ContainerKind::Init | ContainerKind::App, Some(own)) => follows(own, exit_code),
        (ContainerKind::Init | ContainerKind::App, None) => follows(of_pod, exit_code),
    }
}

/// Whether a container that a probe condemned is started anew. It still runs, so there is no exit code for its rules
/// (kubelet, `computePodActions`).
pub fn restarts_when_condemned(desired: &DesiredPod, kind: ContainerKind, container: &Container) -> bool {
    match kind {
        ContainerKind::Sidecar => true,
        ContainerKind::Ephemeral => false,
        ContainerKind::Init | ContainerKind::App => own_or_pods(desired, container) != RestartPolicy::Never,
    }
}

/// Whether a new sandbox runs an app container that ended well in an old one: only where it was to succeed once does it
/// not (kubelet, `computePodActions`).
pub fn runs_again_elsewhere(desired: &DesiredPod, container: &Container) -> bool {
    own_or_pods(desired, container) != RestartPolicy::OnFailure
}

fn own_or_pods(desired: &DesiredPod, container: &Container) -> RestartPolicy {
    policy_of(container).unwrap_or_else(|| desired.restart_policy())
}

/// The first rule that matches (podutil, `FindMatchingContainerRestartRule`).
pub fn rule_for(container: &Container, exit_code: i32) -> Option<&ContainerRestartRule> {
    container.restart_policy_rules.iter().flatten().find(|rule| matches(rule, exit_code))
}

fn follows(policy: RestartPolicy, exit_code: i32) -> bool {
    match policy {
        RestartPolicy::Always => true,
        RestartPolicy::OnFailure => exit_code != 0,
        RestartPolicy::Never => false,
    }
}

fn policy_of(container: &Container) -> Option<RestartPolicy> {
    container.restart_policy.as_deref().and_then(RestartPolicy::parse)
}

fn matches(rule: &ContainerRestartRule, exit_code: i32) -> bool {
    let Some(exit_codes) = &rule.exit_codes else { return false };
    let listed = exit_codes.values.iter().flatten().any(|value| *value == exit_code);
    match exit_codes.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        // Validation lets no other word through.
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{desired_pod, pod};

    /// Whether app container `a` starts again after each of the codes 0, 1, 42.
    fn after_codes(pod_policy: &str, container: &Value) -> [bool; 3] {
        let mut container = container.clone();
        container["name"] = "a".into();
        container["image"] = "app:1".into();
        let desired = desired_pod(&pod(&json!({ "restartPolicy": pod_policy, "containers": [container] })));
        let app = &desired.app_containers()[0];
        [0, 1, 42].map(|code| starts_again(&desired, ContainerKind::App, app, code))
    }

    #[test]
    fn own_rules_come_before_the_own_policy_and_that_before_the_pods() {
        let rule = |operator: &str, values: &[i32]| json!({ "action": "Restart", "exitCodes": { "operator": operator, "values": values } });
        let all = |mut rule: Value| {
            rule["action"] = "RestartAllContainers".into();
            rule
        };
        let table = [
            ("Always", json!({}), [true, true, true]),
            ("OnFailure", json!({}), [false, true, true]),
            ("Never", json!({}), [false, false, false]),
            ("Never", json!({ "restartPolicy": "Always" }), [true, true, true]),
            ("Never", json!({ "restartPolicy": "OnFailure" }), [false, true, true]),
            ("Always", json!({ "restartPolicy": "Never" }), [false, false, false]),
            (
                "Always",
                json!({ "restartPolicy": "Never", "restartPolicyRules": [rule("In", &[42])] }),
                [false, false, true],
            ),
            (
                "Always",
                json!({ "restartPolicy": "Never", "restartPolicyRules": [rule("NotIn", &[42])] }),
                [true, true, false],
            ),
            (
                "Never",
                json!({ "restartPolicy": "OnFailure", "restartPolicyRules": [rule("In", &[0])] }),
                [true, true, true],
            ),
            (
                "Never",
                json!({ "restartPolicy": "Never", "restartPolicyRules": [rule("In", &[7]), rule("In", &[1])] }),
                [false, true, false],
            ),
            (
                "Never",
                json!({ "restartPolicy": "Never", "restartPolicyRules": [all(rule("In", &[42]))] }),
                [false, false, true],
            ),
        ];
        for (policy, container, wanted) in table {
            assert_eq!(after_codes(policy, &container), wanted, "{policy} {container}");
        }
    }
}
