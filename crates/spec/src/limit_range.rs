//! What a `LimitRange` does to the objects of its namespace: it fills in what containers do not say, and refuses what is
//! too small, too large, or too far between request and limit.
//!
//! Source: the API server's admission plug-in `LimitRanger`, for the rules and the sentences.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, LimitRange, LimitRangeItem, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as RawQuantity;

use crate::quantity::Quantity;
use crate::requests::{QuantityList, limiting_quantities, parsed, requested_quantities};

/// Where a Pod says what it was given.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// Gives each container the requests and limits that the range has for those that say nothing.
pub fn fill_in(pod: &mut Pod, range: &LimitRange) {
    let (mut requests, mut limits) = (BTreeMap::new(), BTreeMap::new());
    for item in items(range).filter(|item| item.type_ == "Container") {
        requests.extend(item.default_request.clone().unwrap_or_default());
        limits.extend(item.default.clone().unwrap_or_default());
    }
    let Some(spec) = &mut pod.spec else { return };
    let mut said = Vec::new();
    for container in &mut spec.containers {
        fill_in_container(container, "container", &requests, &limits, &mut said);
    }
    for container in spec.init_containers.iter_mut().flatten() {
        fill_in_container(container, "init container", &requests, &limits, &mut said);
    }
    if !said.is_empty() {
        let text = format!("LimitRanger plugin set: {}", said.join("; "));
        pod.metadata.annotations.get_or_insert_default().insert(ANNOTATION.to_owned(), text);
    }
}

fn fill_in_container(
    container: &mut Container,
    word: &str,
    requests: &BTreeMap<String, RawQuantity>,
    limits: &BTreeMap<String, RawQuantity>,
    said: &mut Vec<String>,
) {
    if requests.is_empty() && limits.is_empty() {
        return;
    }
    let resources = container.resources.get_or_insert_default();
    let pairs = [("request", requests, &mut resources.requests), ("limit", limits, &mut resources.limits)];
    for (what, defaults, present) in pairs {
        let missing: Vec<_> = defaults
            .iter()
            .filter(|(name, _)| present.as_ref().is_none_or(|present| !present.contains_key(*name)))
            .collect();
        if missing.is_empty() {
            continue;
        }
        let names: Vec<&str> = missing.iter().map(|(name, _)| name.as_str()).collect();
        said.push(format!("{} {what} for {word} {}", names.join(", "), container.name));
        let missing = missing.into_iter().map(|(name, quantity)| (name.clone(), quantity.clone()));
        present.get_or_insert_default().extend(missing);
    }
}

/// What the range forbids of a Pod.
pub fn pod_faults(pod: &Pod, range: &LimitRange) -> Vec<String> {
    let mut faults = Vec::new();
    let Some(spec) = &pod.spec else { return faults };
    for item in items(range) {
        match item.type_.as_str() {
            "Container" => {
                for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
                    let own = container.resources.as_ref();
                    let requests = parsed(own.and_then(|own| own.requests.as_ref()));
                    let limits = parsed(own.and_then(|own| own.limits.as_ref()));
                    Measured { item, requests, limits }.judge(&mut faults);
                }
            }
            "Pod" => {
                let (requests, limits) = (requested_quantities(pod), limiting_quantities(pod));
                Measured { item, requests, limits }.judge(&mut faults);
            }
            _ => {}
        }
    }
    faults
}

/// What the range forbids of a claim: only its request counts.
pub fn claim_faults(claim: &PersistentVolumeClaim, range: &LimitRange) -> Vec<String> {
    let own = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let requests = parsed(own.and_then(|own| own.requests.as_ref()));
    let mut faults = Vec::new();
    for item in items(range).filter(|item| item.type_ == "PersistentVolumeClaim") {
        let measured = Measured { item, requests: requests.clone(), limits: QuantityList::new() };
        for (name, least) in parsed(item.min.as_ref()) {
            measured.at_least(&mut faults, &name, least);
        }
        for (name, most) in parsed(item.max.as_ref()) {
            let kind = &item.type_;
            match measured.requests.get(&name) {
                None => faults.push(format!("maximum {name} usage per {kind} is {most}.  No request is specified")),
                Some(request) if request.compare(most).is_gt() => {
                    faults.push(format!("maximum {name} usage per {kind} is {most}, but request is {request}"));
                }
                Some(_) => {}
            }
        }
    }
    faults
}

/// What one container or Pod asks for, and what it is measured by.
struct Measured<'a> {
    item: &'a LimitRangeItem,
    requests: QuantityList,
    limits: QuantityList,
}

impl Measured<'_> {
    fn judge(&self, faults: &mut Vec<String>) {
        for (name, least) in parsed(self.item.min.as_ref()) {
            self.at_least(faults, &name, least);
        }
        for (name, most) in parsed(self.item.max.as_ref()) {
            self.at_most(faults, &name, most);
        }
        for (name, ratio) in parsed(self.item.max_limit_request_ratio.as_ref()) {
            self.not_too_far(faults, &name, ratio);
        }
    }

    fn at_least(&self, faults: &mut Vec<String>, name: &str, least: Quantity) {
        let rule = format!("minimum {name} usage per {} is {least}", self.item.type_);
        match (self.requests.get(name), self.limits.get(name)) {
            (None, _) => faults.push(format!("{rule}.  No request is specified")),
            (Some(request), _) if request.compare(least).is_lt() => {
                faults.push(format!("{rule}, but request is {request}"));
            }
            (_, Some(limit)) if limit.compare(least).is_lt() => faults.push(format!("{rule}, but limit is {limit}")),
            _ => {}
        }
    }

    fn at_most(&self, faults: &mut Vec<String>, name: &str, most: Quantity) {
        let rule = format!("maximum {name} usage per {} is {most}", self.item.type_);
        match (self.limits.get(name), self.requests.get(name)) {
            (None, _) => faults.push(format!("{rule}.  No limit is specified")),
            (Some(limit), _) if limit.compare(most).is_gt() => faults.push(format!("{rule}, but limit is {limit}")),
            (_, Some(request)) if request.compare(most).is_gt() => {
                faults.push(format!("{rule}, but request is {request}"));
            }
            _ => {}
        }
    }

    fn not_too_far(&self, faults: &mut Vec<String>, name: &str, most: Quantity) {
        let rule = format!("{name} max limit to request ratio per {} is {most}", self.item.type_);
        let given = |list: &QuantityList| list.get(name).copied().filter(|quantity| !quantity.is_zero());
        let Some(request) = given(&self.requests) else {
            return faults.push(format!("{rule}, but no request is specified or request is 0"));
        };
        let Some(limit) = given(&self.limits) else {
            return faults.push(format!("{rule}, but no limit is specified or limit is 0"));
        };
        let ratio = limit.ratio_to(request);
        if ratio > most.ratio_to(Quantity::count(1)) {
            faults.push(format!("{rule}, but provided ratio is {ratio:.6}"));
        }
    }
}

fn items(range: &LimitRange) -> impl Iterator<Item = &LimitRangeItem> {
    range.spec.iter().flat_map(|spec| &spec.limits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn range(item: &Value) -> LimitRange {
        let mut range: LimitRange = serde_json::from_value(json!({"spec": {"limits": [item]}})).unwrap();
        crate::defaults::default_limit_range(&mut range);
        range
    }

    fn pod(resources: &Value) -> Pod {
        let container = json!({"name": "a", "image": "i", "resources": resources});
        let init = json!({"name": "b", "image": "i"});
        serde_json::from_value(json!({"spec": {"containers": [container], "initContainers": [init]}})).unwrap()
    }

    #[test]
    fn containers_that_say_nothing_get_what_the_range_has_for_them() {
        // Without a default, the most is the limit, and the least the request.
        let range = range(&json!({
            "type": "Container", "max": {"cpu": "2", "memory": "1Gi"}, "min": {"cpu": "100m"},
            "defaultRequest": {"memory": "64Mi"}, "default": {"memory": "128Mi"},
        }));
        let mut pod = pod(&json!({"limits": {"cpu": "1"}, "requests": {"cpu": "500m"}}));
        fill_in(&mut pod, &range);
        let resources = |pod: &Pod| serde_json::to_value(pod.spec.as_ref().unwrap()).unwrap();
        let spec = resources(&pod);
        assert_eq!(
            spec["containers"][0]["resources"],
            json!({"limits": {"cpu": "1", "memory": "128Mi"}, "requests": {"cpu": "500m", "memory": "64Mi"}})
        );
        assert_eq!(
            spec["initContainers"][0]["resources"],
            json!({"limits": {"cpu": "2", "memory": "128Mi"}, "requests": {"cpu": "2", "memory": "64Mi"}})
        );
        assert_eq!(
            pod.metadata.annotations.as_ref().unwrap()[ANNOTATION],
            "LimitRanger plugin set: memory request for container a; memory limit for container a; cpu, memory request for \
             init container b; cpu, memory limit for init container b"
        );
        assert_eq!(pod_faults(&pod, &range), Vec::<String>::new());
        let before = pod.clone();
        fill_in(&mut pod, &range);
        assert_eq!(pod, before, "who says all is left alone");
    }

    #[test]
    fn what_is_out_of_range_is_refused() {
        let container = |rule: Value| {
            let mut item = rule;
            item["type"] = json!("Container");
            serde_json::from_value::<LimitRange>(json!({"spec": {"limits": [item]}})).unwrap()
        };
        let whole = |rule: Value| {
            let mut item = rule;
            item["type"] = json!("Pod");
            serde_json::from_value::<LimitRange>(json!({"spec": {"limits": [item]}})).unwrap()
        };
        let asks = json!({"requests": {"cpu": "500m", "memory": "100Mi"}, "limits": {"cpu": "1", "memory": "300Mi"}});
        let table = [
            (
                container(json!({"min": {"cpu": "600m"}})),
                "minimum cpu usage per Container is 600m, but request is 500m",
            ),
            (container(json!({"max": {"cpu": "900m"}})), "maximum cpu usage per Container is 900m, but limit is 1"),
            (container(json!({"min": {"memory": "100Mi"}})), ""),
            (
                container(json!({"min": {"ephemeral-storage": "1Gi"}})),
                "minimum ephemeral-storage usage per Container is 1Gi.  No request is specified",
            ),
            (
                container(json!({"max": {"ephemeral-storage": "1Gi"}})),
                "maximum ephemeral-storage usage per Container is 1Gi.  No limit is specified",
            ),
            (
                container(json!({"maxLimitRequestRatio": {"memory": "2.5"}})),
                "memory max limit to request ratio per Container is 2500m, but provided ratio is 3.000000",
            ),
            (
                container(json!({"maxLimitRequestRatio": {"ephemeral-storage": "2"}})),
                "ephemeral-storage max limit to request ratio per Container is 2, but no request is specified or request is 0",
            ),
            (container(json!({"maxLimitRequestRatio": {"cpu": "2"}})), ""),
            (whole(json!({"max": {"memory": "200Mi"}})), "maximum memory usage per Pod is 200Mi, but limit is 300Mi"),
        ];
        for (range, fault) in table {
            let mut pod = pod(&asks);
            pod.spec.as_mut().unwrap().init_containers = None;
            assert_eq!(pod_faults(&pod, &range).join("; "), fault, "{range:?}");
        }
    }

    #[test]
    fn of_claims_the_request_is_measured() {
        let range =
            range(&json!({"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "2Gi"}}));
        let faults = |size: &str| {
            let spec = json!({"resources": {"requests": {"storage": size}}});
            claim_faults(&serde_json::from_value(json!({ "spec": spec })).unwrap(), &range).join("; ")
        };
        assert_eq!(faults("1Gi"), "");
        assert_eq!(faults("1Mi"), "minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 1Mi");
        assert_eq!(faults("3Gi"), "maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi");
    }
}
