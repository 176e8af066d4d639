//! Counting: replicas of sets, and how many more or fewer a rolling update may have. Pure.

use spec::k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use spec::k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// How many Pods a Deployment wants.
pub fn wanted(deployment: &Deployment) -> i32 {
    deployment.spec.replicas.unwrap_or(1)
}

/// How many Pods a set is told to have.
pub fn size(set: &ReplicaSet) -> i32 {
    set.spec.replicas.unwrap_or(1)
}

/// How many of its Pods are available.
pub fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or_default()
}

/// A sum over sets.
pub fn total<'a>(sets: impl IntoIterator<Item = &'a ReplicaSet>, count: impl Fn(&ReplicaSet) -> i32) -> i32 {
    sets.into_iter().map(count).sum()
}

/// Whether new Pods come while old ones still run.
pub fn is_rolling(deployment: &Deployment) -> bool {
    deployment.spec.strategy.as_ref().is_some_and(|strategy| strategy.type_.as_deref() == Some("RollingUpdate"))
}

/// How many Pods there may be beyond those that are wanted.
pub fn max_surge(deployment: &Deployment) -> i32 {
    if is_rolling(deployment) { fence_posts(deployment).0 } else { 0 }
}

/// How many of the wanted Pods may be missing.
pub fn max_unavailable(deployment: &Deployment) -> i32 {
    if is_rolling(deployment) && wanted(deployment) > 0 { fence_posts(deployment).1.min(wanted(deployment)) } else { 0 }
}

/// Surge, rounded up, and unavailability, rounded down; where both come to nothing, one Pod may be missing.
fn fence_posts(deployment: &Deployment) -> (i32, i32) {
    let rolling = deployment.spec.strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
    let replicas = wanted(deployment);
    let surge = scaled(rolling.and_then(|rolling| rolling.max_surge.as_ref()), replicas, true);
    let unavailable = scaled(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()), replicas, false);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

fn scaled(value: Option<&IntOrString>, of: i32, up: bool) -> i32 {
    match value {
        None => 0,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(text)) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or_default();
            let hundredths = percent * i64::from(of);
            let whole = if up { (hundredths + 99) / 100 } else { hundredths / 100 };
            i32::try_from(whole).unwrap_or(i32::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn percents_are_rounded_so_that_a_rollout_moves() {
        let cases: [(i32, Value, Value, (i32, i32)); 6] = [
            (10, json!("25%"), json!("25%"), (3, 2)),
            (1, json!("25%"), json!("25%"), (1, 0)),
            (2, json!("0%"), json!("1%"), (0, 1)),
            (4, json!(2), json!(1), (2, 1)),
            (1, json!(0), json!(5), (0, 1)),
            (0, json!("25%"), json!("25%"), (0, 0)),
        ];
        for (replicas, surge, unavailable, want) in cases {
            let deployment: Deployment = serde_json::from_value(json!({"spec": {"replicas": replicas, "strategy": {
                "type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}}}))
            .unwrap();
            assert_eq!(
                (max_surge(&deployment), max_unavailable(&deployment)),
                want,
                "{replicas} {surge} {unavailable}"
            );
        }
    }
}
