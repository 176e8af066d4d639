//! Templates and their ReplicaSets: which set is the newest template's, what it is called, and its revision. Pure.

use std::collections::BTreeMap;

use spec::Timestamp;
use spec::decode::Writable as _;
use spec::k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use spec::k8s_openapi::api::core::v1::PodTemplateSpec;
use spec::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::deployment::sizes::{max_surge, wanted};
use crate::pods::controller_reference;

/// The label that tells the Pods of a Deployment's sets apart.
const HASH: &str = "pod-template-hash";
/// Which template a set is, counted from 1.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
/// Which templates it was before it was gone back to.
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// How many replicas the Deployment wanted, and could have had at most, when the set got its number.
pub const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
pub const MOST: &str = "deployment.kubernetes.io/max-replicas";
/// What says more of the Deployment than of its set.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    "deprecated.deployment.rollback.to",
    REVISION,
    HISTORY,
    DESIRED,
    MOST,
];
/// The history of revisions is cut at its old end beyond as many bytes.
const LONGEST_HISTORY: usize = 2000;
const LONGEST_NAME: usize = 253;

/// Annotations of an object.
type Annotations = BTreeMap<String, String>;

/// Where the set of the newest template is among a Deployment's sets: the oldest of those that have it.
pub fn newest(deployment: &Deployment, sets: &[ReplicaSet]) -> Option<usize> {
    let same = sets.iter().enumerate().filter(|(_, set)| {
        let template = set.spec.template.clone().unwrap_or_default();
        without_hash(&template) == without_hash(&deployment.spec.template)
    });
    same.min_by_key(|(_, set)| created(set)).map(|(index, _)| index)
}

/// When a set was made.
pub fn created(set: &ReplicaSet) -> (Option<Timestamp>, Option<&str>) {
    (set.metadata.creation_timestamp.as_ref().map(|time| time.0), set.metadata.name.as_deref())
}

/// Templates are the same if they differ in nothing but the label that the set of one has got.
fn without_hash(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    let metadata = template.metadata.get_or_insert_default();
    if let Some(labels) = &mut metadata.labels {
        labels.remove(HASH);
        if labels.is_empty() {
            metadata.labels = None;
        }
    }
    template
}

/// The revision of a set; 0 if it has none.
pub fn revision_of(set: &ReplicaSet) -> i64 {
    annotation(set, REVISION).and_then(|revision| revision.parse().ok()).unwrap_or_default()
}

/// A number in a set's annotations.
pub fn number_of(set: &ReplicaSet, key: &str) -> Option<i32> {
    annotation(set, key)?.parse().ok()
}

fn annotation<'a>(set: &'a ReplicaSet, key: &str) -> Option<&'a str> {
    set.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// A set for the newest template, without Pods yet.
pub fn new_set(deployment: &Deployment, revision: i64) -> ReplicaSet {
    let collisions = deployment.status.as_ref().and_then(|status| status.collision_count).unwrap_or_default();
    let hash = hash(&deployment.spec.template, collisions);
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    let room = LONGEST_NAME.saturating_sub(hash.len() + 1);
    let mut template = deployment.spec.template.clone();
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(HASH.to_owned(), hash.clone());
    let labels = labels.clone();
    let mut selector = deployment.spec.selector.clone();
    selector.match_labels.get_or_insert_default().insert(HASH.to_owned(), hash.clone());
    let mut set = ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", name.get(..room).unwrap_or(name))),
            namespace: deployment.metadata.namespace.clone(),
            labels: Some(labels),
            owner_references: Some(vec![controller_reference(deployment)]),
            ..ObjectMeta::default()
        },
        spec: ReplicaSetSpec {
            replicas: Some(0),
            min_ready_seconds: deployment.spec.min_ready_seconds,
            selector,
            template: Some(template),
        },
        status: None,
    };
    annotate_newest(deployment, &mut set, revision);
    annotate_size(deployment, &mut set);
    set
}

/// Gives the newest set the Deployment's annotations and its revision; says whether that changes anything.
pub fn annotate_newest(deployment: &Deployment, set: &mut ReplicaSet, revision: i64) -> bool {
    let before = set.metadata.annotations.clone().unwrap_or_default();
    let annotations = set.metadata.annotations.get_or_insert_default();
    for (key, value) in deployment.metadata.annotations.iter().flatten() {
        if !NOT_COPIED.contains(&key.as_str()) {
            annotations.insert(key.clone(), value.clone());
        }
    }
    let old = annotations.get(REVISION).cloned();
    if old.as_ref().and_then(|old| old.parse().ok()).unwrap_or(0_i64) < revision {
        annotations.insert(REVISION.to_owned(), revision.to_string());
        if let Some(old) = old {
            remember(annotations, &old);
        }
    }
    *annotations != before
}

fn remember(annotations: &mut Annotations, old: &str) {
    let history = annotations.get(HISTORY).filter(|history| !history.is_empty());
    let mut all = history.map_or_else(|| old.to_owned(), |history| format!("{history},{old}"));
    while all.len() > LONGEST_HISTORY
        && let Some(comma) = all.find(',')
    {
        all.drain(..=comma);
    }
    annotations.insert(HISTORY.to_owned(), all);
}

/// Notes in a set what the Deployment wants now; says whether that changes anything.
pub fn annotate_size(deployment: &Deployment, set: &mut ReplicaSet) -> bool {
    let annotations = set.metadata.annotations.get_or_insert_default();
    let (desired, most) = (wanted(deployment), wanted(deployment) + max_surge(deployment));
    let pairs = [(DESIRED, desired.to_string()), (MOST, most.to_string())];
    let mut changed = false;
    for (key, value) in pairs {
        changed |= annotations.get(key) != Some(&value);
        annotations.insert(key.to_owned(), value);
    }
    changed
}

/// A short name for a template (FNV-1a of its JSON), in letters that form no words.
fn hash(template: &PodTemplateSpec, collisions: i32) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut text = template.write().and_then(|json| serde_json::to_vec(&json)).unwrap_or_default();
    if collisions > 0 {
        text.extend(collisions.to_le_bytes());
    }
    let hash = text.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    let letter = |digit: char| {
        let place = usize::try_from(u32::from(digit)).unwrap_or_default() % LETTERS.len();
        LETTERS.get(place).copied().map_or('x', char::from)
    };
    hash.to_string().chars().map(letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn deployment(image: &str) -> Deployment {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "default", "uid": "1", "annotations": {
                "note": "kept", REVISION: "9", "kubectl.kubernetes.io/last-applied-configuration": "{}"}},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": {
                "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}}},
        }))
        .unwrap()
    }

    #[test]
    fn a_set_is_found_by_its_template_whatever_its_hash() {
        let (one, two) = (new_set(&deployment("a"), 1), new_set(&deployment("b"), 2));
        assert_ne!(one.metadata.name, two.metadata.name);
        let sets = [one, two];
        assert_eq!((newest(&deployment("a"), &sets), newest(&deployment("b"), &sets)), (Some(0), Some(1)));
        assert_eq!(newest(&deployment("c"), &sets), None);
    }

    #[test]
    fn a_new_set_selects_its_own_pods_and_has_a_revision() {
        let set = new_set(&deployment("a"), 3);
        let hash = set.spec.selector.match_labels.as_ref().unwrap()[HASH].clone();
        assert_eq!(set.metadata.name, Some(format!("web-{hash}")));
        assert_eq!(set.spec.template.as_ref().unwrap().metadata.as_ref().unwrap().labels.as_ref().unwrap()[HASH], hash);
        let annotations = set.metadata.annotations.unwrap();
        let expected = [(DESIRED, "2"), (MOST, "2"), (REVISION, "3"), ("note", "kept")];
        assert_eq!(annotations, expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    }

    #[test]
    fn going_back_is_remembered() {
        let mut set = new_set(&deployment("a"), 1);
        assert!(annotate_newest(&deployment("a"), &mut set, 3));
        assert!(annotate_newest(&deployment("a"), &mut set, 5));
        assert!(!annotate_newest(&deployment("a"), &mut set, 4));
        assert_eq!((revision_of(&set), annotation(&set, HISTORY)), (5, Some("1,3")));
    }

    #[test]
    fn a_collision_leads_to_another_name() {
        let mut taken = deployment("a");
        taken.status.get_or_insert_default().collision_count = Some(1);
        assert_ne!(new_set(&taken, 1).metadata.name, new_set(&deployment("a"), 1).metadata.name);
    }
}
