//! Rules for `LimitRange` and `ResourceQuota`.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{LimitRange, LimitRangeItem, ResourceQuota, ResourceQuotaSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as RawQuantity;
use serde_json::Value;

use super::names;
use super::resources::{self, COUNTED, is_extended, is_standard};
use crate::field::{Errors, FieldError, Path};
use crate::huge_pages::is_huge_pages;
use crate::ordered::set_of;
use crate::quantity::Quantity;
use crate::requests::{QuantityList, parsed};

const SCOPES: [&str; 7] = [
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];
const NOT_A_RESOURCE: &str = "must be a standard resource type or fully qualified";

/// Checks a `ResourceQuota`.
pub fn validate_resource_quota(new: &ResourceQuota, old: Option<&ResourceQuota>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let (path, empty) = (Path::root("spec"), ResourceQuotaSpec::default());
    let spec = new.spec.as_ref().unwrap_or(&empty);
    amounts(&mut errors, &path.child("hard"), spec.hard.as_ref());
    scopes(&mut errors, &path, spec);
    scope_selector(&mut errors, &path, spec);
    if let Some(status) = &new.status {
        let path = Path::root("status");
        amounts(&mut errors, &path.child("hard"), status.hard.as_ref());
        amounts(&mut errors, &path.child("used"), status.used.as_ref());
    }
    if let Some(old) = old {
        let set = |quota: &ResourceQuota| -> BTreeSet<String> {
            set_of(quota.spec.iter().flat_map(|spec| spec.scopes.iter().flatten().cloned()))
        };
        if set(new) != set(old) {
            errors.invalid(&path.child("scopes"), shown_scopes(spec), "field is immutable");
        }
    }
    errors.into_vec()
}

fn amounts(errors: &mut Errors, path: &Path<'_>, list: Option<&BTreeMap<String, RawQuantity>>) {
    for (name, raw) in list.into_iter().flatten() {
        let path = path.key(name);
        let faults = names::qualified_name(name);
        let is_odd = faults.is_empty() && !name.contains('/') && !is_quota_name(name);
        for fault in faults {
            errors.invalid(&path, name.as_str(), fault);
        }
        if is_odd {
            if name != "storage" {
                errors.invalid(&path, name.as_str(), NOT_A_RESOURCE);
            }
            errors.invalid(&path, name.as_str(), "must be a standard resource for quota");
        }
        let Some(quantity) = read(errors, &path, raw) else { continue };
        if quantity.is_negative() {
            errors.invalid(&path, quantity.to_string(), "must be greater than or equal to 0");
        }
        let is_counted = COUNTED.contains(&name.as_str()) || is_extended(name);
        if is_counted && !quantity.rounded_up_to_milli().is_integer() {
            errors.invalid(&path, quantity.to_string(), "must be an integer");
        }
    }
}

/// All that is standard but what a claim alone asks for.
fn is_quota_name(name: &str) -> bool {
    name != "storage" && is_standard(name)
}

fn is_valid_for(scope: &str, name: &str) -> bool {
    let is_compute =
        ["cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"].contains(&name);
    match scope {
        "Terminating" | "NotTerminating" | "NotBestEffort" | "PriorityClass" | "CrossNamespacePodAffinity" => {
            name == "pods" || is_compute
        }
        "BestEffort" => name == "pods",
        "VolumeAttributesClass" => ["persistentvolumeclaims", "requests.storage"].contains(&name),
        _ => true,
    }
}

fn shown_scopes(spec: &ResourceQuotaSpec) -> Value {
    Value::from(spec.scopes.clone().unwrap_or_default())
}

fn scopes(errors: &mut Errors, path: &Path<'_>, spec: &ResourceQuotaSpec) {
    let path = path.child("scopes");
    let list: Vec<&str> = spec.scopes.iter().flatten().map(String::as_str).collect();
    for scope in &list {
        if !SCOPES.contains(scope) {
            errors.invalid(&path, shown_scopes(spec), "unsupported scope");
        }
        let hard = spec.hard.iter().flatten().map(|(name, _)| name);
        for _ in hard.filter(|name| is_quota_name(name) && !is_valid_for(scope, name)) {
            errors.invalid(&path, shown_scopes(spec), "unsupported scope applied to resource");
        }
    }
    contradictions(errors, &path, spec, &list);
}

fn contradictions(errors: &mut Errors, path: &Path<'_>, spec: &ResourceQuotaSpec, list: &[&str]) {
    for pair in [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]] {
        if pair.iter().all(|scope| list.contains(scope)) {
            errors.invalid(path, shown_scopes(spec), "conflicting scopes");
        }
    }
}

fn scope_selector(errors: &mut Errors, path: &Path<'_>, spec: &ResourceQuotaSpec) {
    let Some(selector) = &spec.scope_selector else { return };
    let path = path.child("scopeSelector");
    let path = path.child("matchExpressions");
    let expressions = selector.match_expressions.as_deref().unwrap_or_default();
    for one in expressions {
        let (scope, operator) = (one.scope_name.as_str(), one.operator.as_str());
        let values = one.values.as_deref().unwrap_or_default();
        if !SCOPES.contains(&scope) {
            errors.invalid(&path.child("scopeName"), scope, "unsupported scope");
        }
        let hard = spec.hard.iter().flatten().map(|(name, _)| name);
        for _ in hard.filter(|name| is_quota_name(name) && !is_valid_for(scope, name)) {
            let shown = serde_json::to_value(selector).unwrap_or_default();
            errors.invalid(&path, shown, "unsupported scope applied to resource");
        }
        let has_values = ["PriorityClass", "VolumeAttributesClass"].contains(&scope) || !SCOPES.contains(&scope);
        if !has_values && operator != "Exists" {
            let fault = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, \
                         ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort \
                         or ResourceQuotaScopeCrossNamespacePodAffinity";
            errors.invalid(&path.child("operator"), operator, fault);
        }
        match operator {
            "In" | "NotIn" if values.is_empty() => {
                let fault = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                errors.required(&path.child("values"), fault);
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let fault = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                errors.invalid(&path.child("values"), Value::from(values), fault);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => errors.invalid(&path.child("operator"), operator, "not a valid selector operator"),
        }
    }
    let scopes: Vec<&str> = expressions.iter().map(|one| one.scope_name.as_str()).collect();
    contradictions(errors, &path, spec, &scopes);
}

/// Checks a `LimitRange`.
pub fn validate_limit_range(new: &LimitRange, _old: Option<&LimitRange>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let path = Path::root("spec");
    let path = path.child("limits");
    let mut types = BTreeSet::new();
    for (index, item) in new.spec.iter().flat_map(|spec| &spec.limits).enumerate() {
        let path = path.index(index);
        limit_type(&mut errors, &path.child("type"), &item.type_);
        if !types.insert(&item.type_) {
            errors.duplicate(&path.child("type"), item.type_.as_str());
        }
        limit_item(&mut errors, &path, item);
    }
    errors.into_vec()
}

fn limit_type(errors: &mut Errors, path: &Path<'_>, kind: &str) {
    let faults = names::qualified_name(kind);
    let is_odd =
        faults.is_empty() && !kind.contains('/') && !["Container", "PersistentVolumeClaim", "Pod"].contains(&kind);
    for fault in faults {
        errors.invalid(path, kind, fault);
    }
    if is_odd {
        errors.invalid(path, kind, "must be a standard limit type or fully qualified");
    }
}

/// What one item says, read.
struct Bounds {
    min: QuantityList,
    max: QuantityList,
    default: QuantityList,
    request: QuantityList,
    ratio: QuantityList,
}

fn limit_item(errors: &mut Errors, path: &Path<'_>, item: &LimitRangeItem) {
    let is_pod = item.type_ == "Pod";
    if is_pod {
        for (field, list) in [("default", &item.default), ("defaultRequest", &item.default_request)] {
            if list.as_ref().is_some_and(|list| !list.is_empty()) {
                errors.forbidden(&path.child(field), "may not be specified when `type` is 'Pod'");
            }
        }
    }
    let lists = [
        ("max", item.max.as_ref()),
        ("min", item.min.as_ref()),
        ("default", item.default.as_ref().filter(|_| !is_pod)),
        ("defaultRequest", item.default_request.as_ref().filter(|_| !is_pod)),
        ("maxLimitRequestRatio", item.max_limit_request_ratio.as_ref()),
    ];
    for (field, list) in lists {
        let path = path.child(field);
        for (name, raw) in list.into_iter().flatten() {
            resource_name(errors, &path.key(name), &item.type_, name);
            read(errors, &path.key(name), raw);
        }
    }
    let has_size =
        |list: &Option<BTreeMap<String, RawQuantity>>| list.as_ref().is_some_and(|list| list.contains_key("storage"));
    if item.type_ == "PersistentVolumeClaim" && !has_size(&item.min) && !has_size(&item.max) {
        let fault = "either minimum or maximum storage value is required, but neither was provided";
        errors.required(&path.child("limits"), fault);
    }
    let bounds = Bounds {
        min: parsed(item.min.as_ref()),
        max: parsed(item.max.as_ref()),
        default: parsed(item.default.as_ref().filter(|_| !is_pod)),
        request: parsed(item.default_request.as_ref().filter(|_| !is_pod)),
        ratio: parsed(item.max_limit_request_ratio.as_ref()),
    };
    let Bounds { min, max, default, request, ratio } = &bounds;
    for name in set_of([min, max, default, request, ratio].into_iter().flat_map(BTreeMap::keys)) {
        in_order(errors, path, name, &bounds);
        ratios(errors, path, name, &bounds);
    }
}

fn in_order(errors: &mut Errors, path: &Path<'_>, name: &str, bounds: &Bounds) {
    let Bounds { min, max, default, request, .. } = bounds;
    // What must not be more than what, under which field it is reported with which of the two, and their names.
    let pairs = [
        (min, max, "min", false, ["min value", "max value"]),
        (min, request, "defaultRequest", true, ["min value", "default request value"]),
        (request, max, "defaultRequest", false, ["default request value", "max value"]),
        (request, default, "defaultRequest", false, ["default request value", "default limit value"]),
        (min, default, "default", false, ["min value", "default value"]),
        (default, max, "default", true, ["default value", "max value"]),
    ];
    for (low, high, field, shows_high, [low_word, high_word]) in pairs {
        let (Some(low), Some(high)) = (low.get(name), high.get(name)) else { continue };
        if low.compare(*high).is_gt() {
            let fault = format!("{low_word} {low} is greater than {high_word} {high}");
            let shown = if shows_high { high } else { low };
            errors.invalid(&path.child(field).key(name), shown.to_string(), fault);
        }
    }
    let is_whole = is_huge_pages(name) || (name.contains('/') && !name.contains("kubernetes.io/"));
    if let (Some(default), Some(request)) = (default.get(name), request.get(name))
        && is_whole
        && default.compare(*request).is_ne()
    {
        let fault = format!("default value {default} must equal to defaultRequest value {request} in {name}");
        errors.invalid(&path.child("defaultRequest").key(name), request.to_string(), fault);
    }
}

fn ratios(errors: &mut Errors, path: &Path<'_>, name: &str, bounds: &Bounds) {
    let Some(ratio) = bounds.ratio.get(name) else { return };
    let path = path.child("maxLimitRequestRatio");
    if ratio.compare(Quantity::count(1)).is_lt() {
        errors.invalid(&path.key(name), ratio.to_string(), format!("ratio {ratio} is less than 1"));
    }
    if let (Some(min), Some(max)) = (bounds.min.get(name), bounds.max.get(name)) {
        let most = max.ratio_to(*min);
        if ratio.ratio_to(Quantity::count(1)) > most {
            let fault = format!("ratio {ratio} is greater than max/min = {most:.6}");
            errors.invalid(&path.key(name), ratio.to_string(), fault);
        }
    }
}

fn resource_name(errors: &mut Errors, path: &Path<'_>, kind: &str, name: &str) {
    let faults = if ["Container", "Pod"].contains(&kind) {
        resources::resource_name(name)
    } else if name.contains('/') || is_standard(name) {
        names::qualified_name(name)
    } else {
        let mut faults = names::qualified_name(name);
        if faults.is_empty() {
            faults.push(NOT_A_RESOURCE.to_owned());
        }
        faults
    };
    for fault in faults {
        errors.invalid(path, name, fault);
    }
}

fn read(errors: &mut Errors, path: &Path<'_>, raw: &RawQuantity) -> Option<Quantity> {
    match Quantity::parse(&raw.0) {
        Ok(quantity) => Some(quantity),
        Err(error) => {
            errors.invalid(path, raw.0.as_str(), error.to_string());
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn quotas_are_judged_as_kubernetes_does() {
        let said = |spec: Value| {
            let quota: ResourceQuota = serde_json::from_value(json!({ "spec": spec })).unwrap();
            let errors = validate_resource_quota(&quota, None);
            errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        };
        let selector = |one: Value| json!({"hard": {"pods": "1"}, "scopeSelector": {"matchExpressions": [one]}});
        let table = [
            (
                json!({"hard": {"pods": "1", "count/leases.coordination.k8s.io": "2", "requests.hugepages-2Mi": "4Mi"}}),
                "",
            ),
            (json!({"hard": {"gold.storageclass.storage.k8s.io/requests.storage": "1Gi"}}), ""),
            (
                json!({"hard": {"pods": "-1"}}),
                "spec.hard[pods]: Invalid value: \"-1\": must be greater than or equal to 0",
            ),
            (json!({"hard": {"pods": "1500m"}}), "spec.hard[pods]: Invalid value: \"1500m\": must be an integer"),
            (
                json!({"hard": {"storage": "1"}}),
                "spec.hard[storage]: Invalid value: \"storage\": must be a standard resource for quota",
            ),
            (
                json!({"hard": {"bananas": "1"}}),
                "spec.hard[bananas]: Invalid value: \"bananas\": must be a standard resource type or fully qualified\n\
                 spec.hard[bananas]: Invalid value: \"bananas\": must be a standard resource for quota",
            ),
            (
                json!({"hard": {"cpu": "1"}, "scopes": ["BestEffort"]}),
                "spec.scopes: Invalid value: [\"BestEffort\"]: unsupported scope applied to resource",
            ),
            (json!({"scopes": ["Odd"]}), "spec.scopes: Invalid value: [\"Odd\"]: unsupported scope"),
            (
                json!({"scopes": ["BestEffort", "NotBestEffort"]}),
                "spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\"]: conflicting scopes",
            ),
            (selector(json!({"scopeName": "PriorityClass", "operator": "In", "values": ["a"]})), ""),
            (
                selector(json!({"scopeName": "PriorityClass", "operator": "In"})),
                "spec.scopeSelector.matchExpressions.values: Required value: must be at least one value when `operator` is \
                 'In' or 'NotIn' for scope selector",
            ),
            (
                selector(json!({"scopeName": "PriorityClass", "operator": "Like"})),
                "spec.scopeSelector.matchExpressions.operator: Invalid value: \"Like\": not a valid selector operator",
            ),
        ];
        for (spec, sentence) in table {
            assert_eq!(said(spec.clone()), sentence, "{spec}");
        }
        let scoped = |scopes: Value| serde_json::from_value(json!({"spec": {"scopes": scopes}})).unwrap();
        let errors = validate_resource_quota(&scoped(json!(["BestEffort"])), Some(&scoped(json!([]))));
        assert_eq!(errors[0].to_string(), "spec.scopes: Invalid value: [\"BestEffort\"]: field is immutable");
    }

    #[test]
    fn limit_ranges_are_judged_as_kubernetes_does() {
        let said = |items: Value| {
            let range: LimitRange = serde_json::from_value(json!({"spec": {"limits": items}})).unwrap();
            let errors = validate_limit_range(&range, None);
            errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        };
        let of = |mut item: Value| {
            item["type"] = json!("Container");
            json!([item])
        };
        let table = [
            (
                of(
                    json!({"min": {"cpu": "1"}, "max": {"cpu": "2"}, "default": {"cpu": "1"}, "maxLimitRequestRatio": {"cpu": "2"}}),
                ),
                "",
            ),
            (
                of(json!({"min": {"cpu": "2"}, "max": {"cpu": "1"}})),
                "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1",
            ),
            (
                of(json!({"min": {"cpu": "2"}, "defaultRequest": {"cpu": "1"}})),
                "spec.limits[0].defaultRequest[cpu]: Invalid value: \"1\": min value 2 is greater than default request value 1",
            ),
            (
                of(json!({"default": {"cpu": "3"}, "max": {"cpu": "2"}})),
                "spec.limits[0].default[cpu]: Invalid value: \"2\": default value 3 is greater than max value 2",
            ),
            (
                of(json!({"default": {"hugepages-2Mi": "4Mi"}, "defaultRequest": {"hugepages-2Mi": "2Mi"}})),
                "spec.limits[0].defaultRequest[hugepages-2Mi]: Invalid value: \"2Mi\": default value 4Mi must equal to \
                 defaultRequest value 2Mi in hugepages-2Mi",
            ),
            (
                of(json!({"maxLimitRequestRatio": {"cpu": "800m"}})),
                "spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"800m\": ratio 800m is less than 1",
            ),
            (
                of(json!({"min": {"cpu": "1"}, "max": {"cpu": "2"}, "maxLimitRequestRatio": {"cpu": "3"}})),
                "spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"3\": ratio 3 is greater than max/min = 2.000000",
            ),
            (
                of(json!({"max": {"storage": "1"}})),
                "spec.limits[0].max[storage]: Invalid value: \"storage\": must be a standard resource for containers",
            ),
            (
                json!([{"type": "Pod", "default": {"cpu": "1"}}]),
                "spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'",
            ),
            (
                json!([{"type": "PersistentVolumeClaim"}]),
                "spec.limits[0].limits: Required value: either minimum or maximum storage value is required, but neither was \
                 provided",
            ),
            (json!([{"type": "Pod"}, {"type": "Pod"}]), "spec.limits[1].type: Duplicate value: \"Pod\""),
            (
                json!([{"type": "Node"}]),
                "spec.limits[0].type: Invalid value: \"Node\": must be a standard limit type or fully qualified",
            ),
        ];
        for (items, sentence) in table {
            assert_eq!(said(items.clone()), sentence, "{items}");
        }
    }
}
