//! What `priorityClassName` of a Pod stands for, as the API server's admission plugin `Priority` has it.

use serde_json::Value;
use spec::k8s_openapi::api::core::v1::{Pod, PodSpec};
use spec::placement::SYSTEM_CLASSES;
use store::{ObjectKey, Store};

use crate::fields::{flag_at, number_at, text_at};

/// Resource name of PriorityClasses in the store.
const CLASSES: &str = "priorityclasses";
const PREEMPT: &str = "PreemptLowerPriority";

struct Class {
    name: String,
    value: i32,
    preemption: String,
}

/// Writes priority and preemption policy of a new Pod into it; a present one keeps what it has. Says why it may not be.
pub fn resolve_priority(pod: &mut Pod, old: Option<&Pod>, store: &Store) -> Result<(), String> {
    let Some(spec) = &mut pod.spec else { return Ok(()) };
    if let Some(old) = old {
        let old = old.spec.as_ref();
        spec.priority = spec.priority.or_else(|| old?.priority);
        spec.preemption_policy = spec.preemption_policy.take().or_else(|| old?.preemption_policy.clone());
        return Ok(());
    }
    let wanted = spec.priority_class_name.clone().filter(|name| !name.is_empty());
    let class = match &wanted {
        Some(name) => {
            Some(class_named(store, name).ok_or_else(|| format!("no PriorityClass with name {name} was found"))?)
        }
        None => default_class(store),
    };
    fill_in(spec, class)
}

fn fill_in(spec: &mut PodSpec, class: Option<Class>) -> Result<(), String> {
    let value = class.as_ref().map_or(0, |class| class.value);
    if let Some(given) = spec.priority.filter(|given| *given != value) {
        return Err(format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller \
             computed {value} from the given PriorityClass name"
        ));
    }
    spec.priority = Some(value);
    let preemption = class.as_ref().map_or(PREEMPT, |class| class.preemption.as_str());
    if let Some(given) = spec.preemption_policy.as_deref().filter(|given| *given != preemption) {
        return Err(format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission \
             controller computed {preemption} from the given PriorityClass name"
        ));
    }
    spec.preemption_policy = Some(preemption.to_owned());
    if let Some(class) = class {
        spec.priority_class_name = Some(class.name);
    }
    Ok(())
}

fn class_named(store: &Store, name: &str) -> Option<Class> {
    if let Some((_, value)) = SYSTEM_CLASSES.into_iter().find(|(system, _)| *system == name) {
        return Some(Class { name: name.to_owned(), value, preemption: PREEMPT.to_owned() });
    }
    store.get(&ObjectKey::cluster(CLASSES, name)).map(|stored| class_of(&stored.value))
}

/// Of several the least important one.
fn default_class(store: &Store) -> Option<Class> {
    let stored = store.list(CLASSES, None).objects.into_iter();
    stored
        .filter(|stored| flag_at(&stored.value, "/globalDefault"))
        .map(|stored| class_of(&stored.value))
        .min_by_key(|class| class.value)
}

fn class_of(object: &Value) -> Class {
    let preemption = text_at(object, "/preemptionPolicy");
    Class {
        name: text_at(object, "/metadata/name").to_owned(),
        value: number_at(object, "/value").and_then(|value| i32::try_from(value).ok()).unwrap_or_default(),
        preemption: if preemption.is_empty() { PREEMPT.to_owned() } else { preemption.to_owned() },
    }
}
