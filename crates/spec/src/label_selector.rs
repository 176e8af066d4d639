//! Label selectors as objects hold them (`meta/v1` LabelSelector): whether they match, and how they read.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// Whether all that a selector asks for holds. An empty one matches everything.
pub fn matches_labels(selector: &LabelSelector, labels: Option<&Labels>) -> bool {
    let value = |key: &str| labels.and_then(|labels| labels.get(key)).map(String::as_str);
    selector.match_labels.iter().flatten().all(|(key, wanted)| value(key) == Some(wanted))
        && selector.match_expressions.iter().flatten().all(|one| matches_requirement(one, value(&one.key)))
}

fn matches_requirement(requirement: &LabelSelectorRequirement, value: Option<&str>) -> bool {
    let listed = || value.is_some_and(|value| requirement.values.iter().flatten().any(|one| one == value));
    match requirement.operator.as_str() {
        "In" => listed(),
        "NotIn" => !listed(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        // Validation lets nothing else through.
        _ => false,
    }
}

/// Whether it asks for nothing.
pub fn is_empty(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
        && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
}

/// The selector as a query writes it: `app=web,tier in (a,b),!old`.
pub fn as_query(selector: &LabelSelector) -> String {
    let mut parts: Vec<String> =
        selector.match_labels.iter().flatten().map(|(key, value)| format!("{key}={value}")).collect();
    for one in selector.match_expressions.iter().flatten() {
        let values = one.values.as_deref().unwrap_or_default().join(",");
        let mut part = String::new();
        let written = match one.operator.as_str() {
            "In" => write!(part, "{} in ({values})", one.key),
            "NotIn" => write!(part, "{} notin ({values})", one.key),
            "DoesNotExist" => write!(part, "!{}", one.key),
            _ => write!(part, "{}", one.key),
        };
        parts.extend(written.is_ok().then_some(part));
    }
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_selector_matches_what_it_asks_for() {
        let labels = BTreeMap::from([("app".to_owned(), "web".to_owned()), ("tier".to_owned(), "a".to_owned())]);
        let expression = |operator: &str, values: &[&str]| json!({"matchExpressions": [{"key": "tier", "operator": operator, "values": values}]});
        let cases = [
            (json!({}), true, ""),
            (json!({"matchLabels": {"app": "web"}}), true, "app=web"),
            (json!({"matchLabels": {"app": "db"}}), false, "app=db"),
            (expression("In", &["a", "b"]), true, "tier in (a,b)"),
            (expression("NotIn", &["a"]), false, "tier notin (a)"),
            (expression("Exists", &[]), true, "tier"),
            (expression("DoesNotExist", &[]), false, "!tier"),
        ];
        for (selector, matches, query) in cases {
            let selector: LabelSelector = serde_json::from_value(selector).unwrap();
            assert_eq!((matches_labels(&selector, Some(&labels)), as_query(&selector)), (matches, query.to_owned()));
        }
        let absent: LabelSelector = serde_json::from_value(expression("NotIn", &["a"])).unwrap();
        assert!(matches_labels(&absent, None));
    }
}
