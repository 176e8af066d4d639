//! Rules for a container's own restart policy (KEP-5307).

use k8s_openapi::api::core::v1::{Container, ContainerRestartRule};

use crate::field::{Errors, Path};

const MAX_RULES: usize = 20;
const MAX_VALUES: usize = 255;

pub(super) fn restart_policy(errors: &mut Errors, path: &Path<'_>, container: &Container) {
    let rules = container.restart_policy_rules.as_deref().unwrap_or_default();
    let policies = ["Always", "Never", "OnFailure"];
    match container.restart_policy.as_deref() {
        None if rules.is_empty() => {}
        None => {
            errors.required(&path.child("restartPolicy"), "must specify restartPolicy when restart rules are used");
        }
        Some(policy) if !policies.contains(&policy) => {
            errors.not_supported(&path.child("restartPolicy"), policy, &policies);
        }
        Some(_) => {}
    }
    let rules_path = path.child("restartPolicyRules");
    if rules.len() > MAX_RULES {
        errors.invalid(&rules_path, rules.len(), format!("must have at most {MAX_RULES} items"));
    }
    for (index, rule) in rules.iter().enumerate() {
        restart_rule(errors, &rules_path.index(index), rule);
    }
}

fn restart_rule(errors: &mut Errors, path: &Path<'_>, rule: &ContainerRestartRule) {
    let actions = ["Restart", "RestartAllContainers"];
    if !actions.contains(&rule.action.as_str()) {
        errors.not_supported(&path.child("action"), rule.action.as_str(), &actions);
    }
    let path = path.child("exitCodes");
    let Some(exit_codes) = &rule.exit_codes else {
        errors.required(&path, "must be specified");
        return;
    };
    let operators = ["In", "NotIn"];
    if !operators.contains(&exit_codes.operator.as_str()) {
        errors.not_supported(&path.child("operator"), exit_codes.operator.as_str(), &operators);
    }
    let values = exit_codes.values.as_ref().map_or(0, Vec::len);
    if values > MAX_VALUES {
        errors.invalid(&path.child("values"), values, format!("must have at most {MAX_VALUES} items"));
    }
}
