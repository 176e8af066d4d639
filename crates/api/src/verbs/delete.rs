//! delete: an object goes, at once or after its grace period.

use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use spec::Timestamp;
use spec::validation::{FieldError, FieldReason};
use steps::{Within as _, step};
use store::{Change, StoredObject};

use crate::context::{Call, Context, refuse};
use crate::fields::{items_at, number_at, text_at};
use crate::http::body;
use crate::http::reply::{self, Reply, whole};
use crate::http::status::{self, ApiError, Details};
use crate::kinds::{Kind, Removal};
use crate::owned::{FOREGROUND, ORPHAN};
use crate::verbs::metadata::{self, seconds, text};
use crate::verbs::{cascade, options};

/// Namespaces that are always there, as upstream.
const LASTING_NAMESPACES: [&str; 3] = ["default", "kube-system", "kube-public"];

/// `metav1.DeleteOptions`, from the body and the parameters.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeleteOptions {
    grace_period_seconds: Option<i64>,
    preconditions: Option<Preconditions>,
    dry_run: Option<Vec<String>>,
    propagation_policy: Option<String>,
    orphan_dependents: Option<bool>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Preconditions {
    uid: Option<String>,
    resource_version: Option<String>,
}

/// What becomes of an object.
#[derive(Debug, Clone, PartialEq)]
enum Fate {
    /// It is removed.
    Removed,
    /// It stays until its finalizers are gone, or its grace is over; this is what it is until then.
    Marked(Value),
    /// It is going already, and sooner than asked for.
    Unchanged,
    /// It mirrors a static Pod, which no client ends: it goes, and comes back at once as this.
    Reborn(Value),
}

impl DeleteOptions {
    /// Reads the body, which may be empty, and the parameters, which overrule it.
    pub fn parse(call: &Call, bytes: &Bytes) -> Result<Self, ApiError> {
        let value = if bytes.is_empty() { None } else { Some(body::decode(&call.headers, bytes)?) };
        Self::from_object(call, value.as_ref())
    }

    /// The same with the body decoded, or without one.
    pub fn from_object(call: &Call, value: Option<&Value>) -> Result<Self, ApiError> {
        let mut options = match value {
            None => Self::default(),
            Some(value) => Self::deserialize(value)
                .map_err(|error| ApiError::bad_request(format!("the body is no DeleteOptions: {error}")))?,
        };
        if let Some(policy) = call.query.get("propagationPolicy") {
            options.propagation_policy = Some(policy.to_owned());
        }
        options.check_policy()?;
        if call.kind.orphans_by_default && options.propagation_policy.is_none() && options.orphan_dependents.is_none() {
            options.propagation_policy = Some("Orphan".to_owned());
        }
        if let Some(seconds) = call.query.number("gracePeriodSeconds")? {
            options.grace_period_seconds = Some(seconds);
        }
        if options::dry_run(&call.query)? {
            options.dry_run = Some(vec!["All".to_owned()]);
        }
        Ok(options)
    }

    /// Of one object, which must still be the same.
    pub fn of(uid: &str) -> Self {
        let preconditions = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
        Self { preconditions: Some(preconditions), ..Self::default() }
    }

    /// Whatever has changed since.
    pub fn without_revision(mut self) -> Self {
        if let Some(preconditions) = &mut self.preconditions {
            preconditions.resource_version = None;
        }
        self
    }

    fn check_policy(&self) -> Result<(), ApiError> {
        let error = |reason, value: Value, detail: &str| {
            let (field, detail) = ("propagationPolicy".to_owned(), detail.to_owned());
            let error = FieldError { field, reason, value, detail };
            Err(ApiError::invalid("DeleteOptions", "meta.k8s.io", "", &[error], "DeleteOptions"))
        };
        match self.propagation_policy.as_deref() {
            Some(policy) if self.orphan_dependents.is_some() => {
                let detail = "orphanDependents and deletionPropagation cannot be both set";
                error(FieldReason::Invalid, json!(policy), detail)
            }
            None | Some("Background" | "Foreground" | "Orphan") => Ok(()),
            Some(other) => {
                let detail = r#"supported values: "Background", "Foreground", "Orphan""#;
                error(FieldReason::NotSupported, json!(other), detail)
            }
        }
    }

    /// The finalizers that an object has from now on: its own, and what its owned objects must go through first.
    fn finalizers(&self, object: &Value) -> Vec<Value> {
        let present = items_at(object, "/metadata/finalizers");
        let asked = match (self.propagation_policy.as_deref(), self.orphan_dependents) {
            (Some("Orphan"), _) | (None, Some(true)) => Some(ORPHAN),
            (Some("Foreground"), _) => Some(FOREGROUND),
            (None, None) => return present.cloned().collect(),
            _ => None,
        };
        let others = present.filter(|finalizer| *finalizer != ORPHAN && *finalizer != FOREGROUND);
        others.cloned().chain(asked.map(Value::from)).collect()
    }

    /// Whether the object is the one that the client means.
    pub fn check_preconditions(&self, kind: &Kind, name: &str, object: &Value) -> Result<(), ApiError> {
        let Some(preconditions) = &self.preconditions else { return Ok(()) };
        let pairs = [
            ("UID", "uid", &preconditions.uid),
            ("ResourceVersion", "resourceVersion", &preconditions.resource_version),
        ];
        for (word, field, wanted) in pairs {
            let found = text(object, field);
            if let Some(wanted) = wanted
                && wanted != found
            {
                let why =
                    format!("Precondition failed: {word} in precondition: {wanted}, {word} in object meta: {found}");
                return Err(ApiError::conflict(kind, name, &why));
            }
        }
        Ok(())
    }

    /// Whether nothing is to be done in truth.
    pub fn is_dry_run(&self) -> bool {
        self.dry_run.as_ref().is_some_and(|dry_run| !dry_run.is_empty())
    }
}

/// Deletes the object and answers with it, or with a Status if it is gone.
pub async fn delete(call: &Call, name: &str, options: &DeleteOptions) -> Result<Reply, ApiError> {
    let renderer = call.renderer()?;
    let (object, fate) = remove(call, name, options).await?;
    if fate == Fate::Removed && call.kind.removal != Removal::Graceful {
        let details = Details {
            name: name.to_owned(),
            group: call.kind.group,
            kind: call.kind.resource,
            uid: text(&object.value, "uid").to_owned(),
            ..Details::default()
        };
        return Ok(reply::json(status::success(&details)));
    }
    let body = renderer.object(&object.value, &object.json, Context::now());
    Ok(whole(StatusCode::OK, renderer.content_type(), body))
}

/// Deletes the object; answers with its last state.
pub async fn delete_one(call: &Call, name: &str, options: &DeleteOptions) -> Result<StoredObject, ApiError> {
    remove(call, name, options).await.map(|(object, _fate)| object)
}

async fn remove(call: &Call, name: &str, options: &DeleteOptions) -> Result<(StoredObject, Fate), ApiError> {
    let (kind, now) = (call.kind, Context::now());
    if kind.removal == Removal::Cascade && LASTING_NAMESPACES.contains(&name) {
        return Err(ApiError::forbidden(kind, name, "this namespace may not be deleted"));
    }
    let (wanted, object_name) = (options.clone(), name.to_owned());
    let decide = move |present: Option<&StoredObject>| {
        let present = present.ok_or_else(|| ApiError::not_found(kind, &object_name))?;
        wanted.check_preconditions(kind, &object_name, &present.value)?;
        let fate = decide_fate(kind, &present.value, &wanted, now)?;
        let change = match &fate {
            _ if wanted.is_dry_run() => Change::Keep,
            Fate::Removed => Change::Delete,
            Fate::Marked(value) | Fate::Reborn(value) => Change::Put(value.clone()),
            Fate::Unchanged => Change::Keep,
        };
        // The client is told of the object that it has deleted, and not of the one in its place.
        let deleted = matches!(fate, Fate::Reborn(_)).then(|| present.clone());
        Ok((change, (fate, deleted)))
    };
    let write = call.context.store.write(call.key(name), decide).within(step!("store the object"));
    let written = write.await.map_err(refuse)?;
    if kind.removal == Removal::Cascade && !options.is_dry_run() {
        cascade::empty_namespace(&call.context, name);
    }
    let (fate, deleted) = written.outcome;
    let object = deleted.or(written.object).ok_or_else(|| ApiError::not_found(kind, name))?;
    if kind.resource == "pods" {
        steps::name_pod(text(&object.value, "uid"));
    }
    Ok((object, fate))
}

/// apiserver, `rest.BeforeDelete` and the Pod's `CheckGracefulDelete`.
fn decide_fate(kind: &Kind, object: &Value, options: &DeleteOptions, now: Timestamp) -> Result<Fate, ApiError> {
    let finalizers = if kind.removal == Removal::Cascade { Vec::new() } else { options.finalizers(object) };
    let held = !finalizers.is_empty();
    let next = with_finalizers(kind, object, finalizers)?;
    let going = !text(object, "deletionTimestamp").is_empty();
    let grace = match kind.removal {
        Removal::AtOnce => 0,
        Removal::Cascade if going => return Ok(Fate::Unchanged),
        Removal::Cascade => return mark(kind, object, 0, now).map(terminating).map(Fate::Marked),
        Removal::Graceful if !going && spec::mirror::hash(object).is_some() => return reborn(object, now),
        Removal::Graceful => grace_of(object, options),
    };
    let present = number_at(object, "/metadata/deletionGracePeriodSeconds");
    match present.filter(|_| going) {
        _ if grace == 0 && !held => Ok(Fate::Removed),
        Some(present) if grace >= present && next == *object => Ok(Fate::Unchanged),
        Some(present) if grace >= present => Ok(Fate::Marked(next)),
        Some(present) => {
            let begun = text(object, "deletionTimestamp").parse().unwrap_or(now).as_second() - present;
            mark(kind, &next, grace, Timestamp::from_second(begun).unwrap_or(now)).map(Fate::Marked)
        }
        None => mark(kind, &next, grace, now).map(Fate::Marked),
    }
}

fn with_finalizers(kind: &Kind, object: &Value, finalizers: Vec<Value>) -> Result<Value, ApiError> {
    let mut object = object.clone();
    if kind.removal == Removal::Cascade {
        return Ok(object);
    }
    let metadata = metadata::of(&mut object)?;
    if finalizers.is_empty() {
        metadata.remove("finalizers");
    } else {
        metadata.insert("finalizers".to_owned(), Value::Array(finalizers));
    }
    Ok(object)
}

/// The same under another UID. Its Pod goes by the hash of its file, and does not notice.
fn reborn(object: &Value, now: Timestamp) -> Result<Fate, ApiError> {
    let mut next = object.clone();
    let metadata = metadata::of(&mut next)?;
    metadata.insert("uid".to_owned(), json!(uuid::Uuid::new_v4().to_string()));
    metadata.insert("creationTimestamp".to_owned(), json!(seconds(now)));
    Ok(Fate::Reborn(next))
}

/// Seconds. A finished Pod has nothing to end, and one without a node nobody to end it.
fn grace_of(pod: &Value, options: &DeleteOptions) -> i64 {
    let text = |path| text_at(pod, path);
    if matches!(text("/status/phase"), "Succeeded" | "Failed") || text("/spec/nodeName").is_empty() {
        return 0;
    }
    let own = number_at(pod, "/spec/terminationGracePeriodSeconds");
    match options.grace_period_seconds.or(own).unwrap_or(30) {
        ..0 => 1,
        grace => grace,
    }
}

/// The object with its end written into it: `begun` and `grace` seconds.
fn mark(kind: &Kind, object: &Value, grace: i64, begun: Timestamp) -> Result<Value, ApiError> {
    let mut marked = object.clone();
    let first = text(object, "deletionTimestamp").is_empty();
    let end = Timestamp::from_second(begun.as_second().saturating_add(grace)).unwrap_or(Timestamp::MAX);
    let metadata = metadata::of(&mut marked)?;
    metadata.insert("deletionTimestamp".to_owned(), json!(seconds(end)));
    metadata.insert("deletionGracePeriodSeconds".to_owned(), json!(grace));
    if let Some(generation) =
        metadata.get("generation").and_then(Value::as_i64).filter(|_| kind.counts_generations && first)
    {
        metadata.insert("generation".to_owned(), json!(generation + 1));
    }
    Ok(marked)
}

fn terminating(mut namespace: Value) -> Value {
    if let Some(metadata) = namespace.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("deletionGracePeriodSeconds");
    }
    if let Some(object) = namespace.as_object_mut() {
        let status = object.entry("status").or_insert_with(|| json!({}));
        if let Some(status) = status.as_object_mut() {
            status.insert("phase".to_owned(), json!("Terminating"));
        }
    }
    namespace
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::{CONFIG_MAP, NAMESPACE, POD};

    const NOW: &str = "2026-01-01T00:00:00Z";

    fn pod(phase: &str) -> Value {
        json!({
            "metadata": {"name": "p", "generation": 1},
            "spec": {"nodeName": "n", "terminationGracePeriodSeconds": 20},
            "status": {"phase": phase},
        })
    }

    fn fate(kind: &Kind, object: &Value, grace: Option<i64>) -> Fate {
        let options = DeleteOptions { grace_period_seconds: grace, ..DeleteOptions::default() };
        decide_fate(kind, object, &options, NOW.parse().unwrap()).unwrap()
    }

    fn marked(fate: Fate) -> (String, i64, i64) {
        let Fate::Marked(object) = fate else { panic!("{fate:?}") };
        let metadata = &object["metadata"];
        let end = metadata["deletionTimestamp"].as_str().unwrap().to_owned();
        (end, metadata["deletionGracePeriodSeconds"].as_i64().unwrap(), metadata["generation"].as_i64().unwrap())
    }

    #[test]
    fn a_pod_gets_its_grace_period() {
        assert_eq!(marked(fate(&POD, &pod("Running"), None)), ("2026-01-01T00:00:20Z".to_owned(), 20, 2));
        assert_eq!(marked(fate(&POD, &pod("Running"), Some(5))), ("2026-01-01T00:00:05Z".to_owned(), 5, 2));
        assert_eq!(marked(fate(&POD, &pod("Pending"), Some(-3))), ("2026-01-01T00:00:01Z".to_owned(), 1, 2));
        assert_eq!(fate(&POD, &pod("Running"), Some(0)), Fate::Removed);
        assert_eq!(fate(&POD, &pod("Succeeded"), None), Fate::Removed);
    }

    #[test]
    fn a_second_delete_only_shortens() {
        let mut going = pod("Running");
        going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:20Z");
        going["metadata"]["deletionGracePeriodSeconds"] = json!(20);
        assert_eq!(fate(&POD, &going, Some(60)), Fate::Unchanged);
        assert_eq!(fate(&POD, &going, None), Fate::Unchanged);
        assert_eq!(marked(fate(&POD, &going, Some(5))), ("2026-01-01T00:00:05Z".to_owned(), 5, 1));
        assert_eq!(fate(&POD, &going, Some(0)), Fate::Removed);
    }

    #[test]
    fn finalizers_hold_an_object() {
        let map = json!({"metadata": {"name": "m", "finalizers": ["a/b"]}});
        let Fate::Marked(object) = fate(&CONFIG_MAP, &map, None) else { panic!() };
        assert_eq!(object["metadata"]["deletionGracePeriodSeconds"], 0);
        assert_eq!(fate(&CONFIG_MAP, &json!({"metadata": {"name": "m"}}), None), Fate::Removed);
    }

    #[test]
    fn a_namespace_terminates() {
        let Fate::Marked(object) = fate(&NAMESPACE, &json!({"metadata": {"name": "m"}}), None) else { panic!() };
        assert_eq!(object["status"]["phase"], "Terminating");
        assert_eq!(fate(&NAMESPACE, &object, None), Fate::Unchanged);
    }
}
