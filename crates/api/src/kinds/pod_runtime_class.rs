//! What a new Pod takes over from its RuntimeClass (the API server's admission plug-in of that name).

use std::collections::BTreeMap;

use spec::k8s_openapi::api::core::v1::{Pod, PodSpec};
use spec::k8s_openapi::api::node::v1::{RuntimeClass, Scheduling};
use spec::k8s_openapi::apimachinery::pkg::api::resource::Quantity as RawQuantity;
use spec::quantity::Quantity;
use store::ObjectKey;

use crate::kinds::RUNTIME_CLASS;
use crate::kinds::admission::{Admission, AdmissionError, stored};

/// Gives a new Pod the overhead and the placement of its class; refuses one whose class is not there.
pub fn take_runtime_class(pod: &mut Pod, admission: &Admission<'_>) -> Result<(), AdmissionError> {
    let Some(spec) = &mut pod.spec else { return Ok(()) };
    let class = match spec.runtime_class_name.as_deref().filter(|name| !name.is_empty()) {
        Some(name) => {
            let found = admission.store.get(&ObjectKey::cluster(RUNTIME_CLASS.resource, name));
            let found = found.ok_or_else(|| rejected(&format!("RuntimeClass {name:?} not found")))?;
            stored::<RuntimeClass>(Some(&found.value))?.unwrap_or_default()
        }
        None => RuntimeClass::default(),
    };
    take_overhead(spec, class.overhead.and_then(|overhead| overhead.pod_fixed))?;
    class.scheduling.map_or(Ok(()), |scheduling| take_placement(spec, scheduling))
}

fn take_overhead(spec: &mut PodSpec, of_class: Option<BTreeMap<String, RawQuantity>>) -> Result<(), AdmissionError> {
    let own = spec.overhead.take().filter(|own| !own.is_empty());
    match (&own, &of_class) {
        (Some(_), None) => {
            return Err(rejected("Pod Overhead set without corresponding RuntimeClass defined Overhead"));
        }
        (Some(own), Some(of_class)) if amounts(own) != amounts(of_class) => {
            return Err(rejected("Pod's Overhead doesn't match RuntimeClass's defined Overhead"));
        }
        (Some(_) | None, _) => spec.overhead = of_class,
    }
    Ok(())
}

/// The same amount may be written in several ways.
fn amounts(list: &BTreeMap<String, RawQuantity>) -> Vec<(&str, Option<String>)> {
    let canonical = |raw: &RawQuantity| Quantity::parse(&raw.0).ok().map(|quantity| quantity.to_string());
    list.iter().map(|(name, raw)| (name.as_str(), canonical(raw))).collect()
}

fn take_placement(spec: &mut PodSpec, of_class: Scheduling) -> Result<(), AdmissionError> {
    for (key, value) in of_class.node_selector.into_iter().flatten() {
        let selector = spec.node_selector.get_or_insert_default();
        if let Some(own) = selector.get(&key).filter(|own| **own != value) {
            return Err(AdmissionError::Forbidden(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; pod.spec.nodeSelector[{key}] = {own}"
            )));
        }
        selector.insert(key, value);
    }
    let tolerations = of_class.tolerations.unwrap_or_default();
    if !tolerations.is_empty() {
        let own = spec.tolerations.get_or_insert_default();
        let missing: Vec<_> = tolerations.into_iter().filter(|toleration| !own.contains(toleration)).collect();
        own.extend(missing);
    }
    Ok(())
}

fn rejected(why: &str) -> AdmissionError {
    AdmissionError::Forbidden(format!("pod rejected: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn overhead(own: &Value, of_class: &Value) -> Result<Value, String> {
        let mut spec: PodSpec = serde_json::from_value(json!({ "containers": [], "overhead": own })).unwrap();
        take_overhead(&mut spec, serde_json::from_value(of_class.clone()).unwrap())
            .map_err(|error| error.to_string())?;
        Ok(serde_json::to_value(spec.overhead).unwrap())
    }

    #[test]
    fn overhead_is_the_classs_and_nobody_elses() {
        let of_class = json!({"cpu": "10m", "memory": "1Mi"});
        assert_eq!(overhead(&Value::Null, &of_class), Ok(of_class.clone()));
        assert_eq!(overhead(&json!({"cpu": "0.01", "memory": "1024Ki"}), &of_class), Ok(of_class.clone()));
        assert_eq!(overhead(&json!({}), &Value::Null), Ok(Value::Null));
        let other = overhead(&json!({"cpu": "1"}), &of_class).unwrap_err();
        assert_eq!(other, "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead");
        let none = overhead(&of_class, &Value::Null).unwrap_err();
        assert_eq!(none, "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead");
    }

    #[test]
    fn placement_is_added_unless_it_contradicts() {
        let class: Scheduling = serde_json::from_value(json!({
            "nodeSelector": {"a": "1"}, "tolerations": [{"key": "k", "operator": "Exists"}],
        }))
        .unwrap();
        let placed = |own: Value| {
            let mut spec: PodSpec = serde_json::from_value(json!({ "containers": [], "nodeSelector": own })).unwrap();
            let outcome = take_placement(&mut spec, class.clone()).map_err(|error| error.to_string());
            outcome.map(|()| (spec.node_selector.unwrap(), spec.tolerations.unwrap().len()))
        };
        let both = BTreeMap::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())]);
        assert_eq!(placed(json!({"b": "2"})), Ok((both, 1)));
        let conflict = "conflict: runtimeClass.scheduling.nodeSelector[a] = 1; pod.spec.nodeSelector[a] = 2";
        assert_eq!(placed(json!({"a": "2"})), Err(conflict.to_owned()));
    }
}
