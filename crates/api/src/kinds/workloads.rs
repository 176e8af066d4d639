//! Deployment, ReplicaSet and Job: the kinds that make Pods. What they do is in the crate of controllers.

use serde_json::{Value, json};
use spec::Timestamp;
use spec::decode::read;
use spec::defaults::{default_deployment, default_job, default_replica_set};
use spec::k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use spec::k8s_openapi::api::batch::v1::Job;
use spec::k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use spec::label_selector::as_query;
use spec::ordered::map_of;
use spec::validation::{
    FieldError, FieldReason, NameForm, validate_deployment, validate_job, validate_object_meta,
    validate_object_meta_update, validate_replica_set,
};

use crate::fields::{at, items_at, number_at, text_at};
use crate::kinds::admission::{Admission, AdmissionError, Admitted, admit, stored};
use crate::kinds::plain::{Rules, admit_by};
use crate::kinds::{FieldReader, Kind, Subresource};
use crate::table::{AGE, Column, NAME, Row, age, human_duration, name};

/// What a Job's selector goes by, and the same under its older name.
const CONTROLLER_UID: [&str; 2] = ["batch.kubernetes.io/controller-uid", "controller-uid"];
const JOB_NAME: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];

const CONTAINERS: Column = Column::wide("Containers", "Names of the containers of its Pods.");
const IMAGES: Column = Column::wide("Images", "Images of the containers of its Pods.");
const SELECTOR: Column = Column::wide("Selector", "The labels of its Pods.");

/// `apps/v1` Deployment.
pub static DEPLOYMENT: Kind = Kind {
    short_names: &["deploy"],
    categories: &["all"],
    subresources: &[Subresource::SCALE, Subresource::status("Deployment")],
    columns: &[
        NAME,
        Column::text("Ready", "Pods that are ready, of all that are wanted."),
        Column::text("Up-to-date", "Pods of the newest template."),
        Column::text("Available", "Pods that have been ready for long enough."),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    row: deployment_row,
    counts_generations: true,
    ..Kind::namespaced("apps", "deployments", "deployment", "Deployment", |value, admission| {
        let complete = |deployment: &mut Deployment| {
            default_deployment(deployment);
            deployment.status.get_or_insert_default();
        };
        admit_by::<Deployment>(&Rules { complete, validate: validate_deployment, ..Rules::NONE }, value, admission)
    })
};

/// `apps/v1` ReplicaSet.
pub static REPLICA_SET: Kind = Kind {
    short_names: &["rs"],
    categories: &["all"],
    subresources: &[Subresource::SCALE, Subresource::status("ReplicaSet")],
    fields: &[("status.replicas", FieldReader::Number("/status/replicas"))],
    columns: &[
        NAME,
        Column::integer("Desired", "Pods that are wanted."),
        Column::integer("Current", "Pods that there are."),
        Column::integer("Ready", "Pods that are ready."),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    row: replica_set_row,
    counts_generations: true,
    ..Kind::namespaced("apps", "replicasets", "replicaset", "ReplicaSet", |value, admission| {
        let complete = |set: &mut ReplicaSet| {
            default_replica_set(set);
            set.status.get_or_insert_default();
        };
        admit_by::<ReplicaSet>(&Rules { complete, validate: validate_replica_set, ..Rules::NONE }, value, admission)
    })
};

/// `batch/v1` Job.
pub static JOB: Kind = Kind {
    categories: &["all"],
    subresources: &[Subresource::status("Job")],
    fields: &[("status.successful", FieldReader::Number("/status/succeeded"))],
    columns: &[
        NAME,
        Column::text("Status", "What has become of it."),
        Column::text("Completions", "Pods that succeeded, of all that must."),
        Column::text("Duration", "How long it took, or has taken."),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    row: job_row,
    // For clients of the time before garbage collection; kubectl always says what it wants.
    orphans_by_default: true,
    counts_generations: true,
    ..Kind::namespaced("batch", "jobs", "job", "Job", admit_job)
};

/// A new Job gets labels that nobody else has for its Pods, and selects by them, unless its client does so.
fn admit_job(value: Value, admission: &Admission<'_>) -> Result<Admitted, AdmissionError> {
    let old = stored::<Job>(admission.old)?;
    let is_new = old.is_none();
    let complete = |job: &mut Job| {
        default_job(job);
        if is_new {
            select_own_pods(job);
            job.status = Some(spec::k8s_openapi::api::batch::v1::JobStatus::default());
        }
    };
    admit(value, complete, |job: &Job| {
        let mut errors = match &old {
            None => validate_object_meta(&job.metadata, true, NameForm::Subdomain),
            Some(old) => validate_object_meta_update(&job.metadata, &old.metadata),
        };
        errors.extend(check_own_selector(job).filter(|_| is_new));
        errors.extend(validate_job(job, old.as_ref()));
        errors
    })
}

fn select_own_pods(job: &mut Job) {
    let (uid, name) = (job.metadata.uid.clone().unwrap_or_default(), job.metadata.name.clone().unwrap_or_default());
    let Some(spec) = job.spec.as_mut().filter(|spec| spec.manual_selector != Some(true)) else { return };
    let labels = spec.template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.extend(CONTROLLER_UID.map(|key| (key.to_owned(), uid.clone())));
    labels.extend(JOB_NAME.map(|key| (key.to_owned(), name.clone())));
    let [own, _older] = CONTROLLER_UID;
    if spec.selector.is_none() {
        let match_labels = Some(map_of([(own.to_owned(), uid)]));
        spec.selector = Some(LabelSelector { match_labels, match_expressions: None });
    }
}

/// Who wants to select by other labels must say so.
fn check_own_selector(job: &Job) -> Option<FieldError> {
    let spec = job.spec.as_ref().filter(|spec| spec.manual_selector != Some(true))?;
    let selector = spec.selector.as_ref()?;
    let [own, _older] = CONTROLLER_UID;
    let wanted = LabelSelector {
        match_labels: Some(map_of([(own.to_owned(), job.metadata.uid.clone().unwrap_or_default())])),
        match_expressions: None,
    };
    (*selector != wanted).then(|| FieldError {
        field: "spec.selector".to_owned(),
        reason: FieldReason::Invalid,
        value: json!(selector),
        detail: "`selector` not auto-generated".to_owned(),
    })
}

fn deployment_row(object: &Value, now: Timestamp) -> Row {
    let count = |path: &str| number_at(object, path).unwrap_or_default();
    let ready = format!("{}/{}", count("/status/readyReplicas"), count("/spec/replicas"));
    let (updated, available) = (count("/status/updatedReplicas"), count("/status/availableReplicas"));
    with_template(object, vec![name(object), json!(ready), json!(updated), json!(available), age(object, now)])
}

fn replica_set_row(object: &Value, now: Timestamp) -> Row {
    let count = |path: &str| json!(number_at(object, path).unwrap_or_default());
    let (wanted, present) = (count("/spec/replicas"), count("/status/replicas"));
    with_template(object, vec![name(object), wanted, present, count("/status/readyReplicas"), age(object, now)])
}

fn job_row(object: &Value, now: Timestamp) -> Row {
    let succeeded = number_at(object, "/status/succeeded").unwrap_or_default();
    let parallelism = number_at(object, "/spec/parallelism").unwrap_or_default();
    let completions = match number_at(object, "/spec/completions") {
        Some(wanted) => format!("{succeeded}/{wanted}"),
        None if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        None => format!("{succeeded}/1"),
    };
    let time = |path: &str| text_at(object, path).parse::<Timestamp>().ok();
    let duration = time("/status/startTime")
        .map(|start| human_duration(start, time("/status/completionTime").unwrap_or(now)))
        .unwrap_or_default();
    with_template(
        object,
        vec![name(object), json!(job_state(object)), json!(completions), json!(duration), age(object, now)],
    )
}

fn job_state(object: &Value) -> &'static str {
    let holds = |wanted: &str| {
        items_at(object, "/status/conditions")
            .any(|condition| text_at(condition, "/type") == wanted && text_at(condition, "/status") == "True")
    };
    match () {
        () if holds("Complete") => "Complete",
        () if holds("Failed") => "Failed",
        () if at(object, "/metadata/deletionTimestamp").is_some() => "Terminating",
        () if holds("Suspended") => "Suspended",
        () if holds("FailureTarget") => "FailureTarget",
        () if holds("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

fn with_template(object: &Value, mut cells: Vec<Value>) -> Row {
    let of_containers = |field: &str| {
        let texts: Vec<&str> =
            items_at(object, "/spec/template/spec/containers").map(|container| text_at(container, field)).collect();
        json!(texts.join(","))
    };
    let selector: LabelSelector = at(object, "/spec/selector").and_then(|value| read(value).ok()).unwrap_or_default();
    cells.extend([of_containers("/name"), of_containers("/image"), json!(as_query(&selector))]);
    Row::new(cells)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_those_of_kubectl() {
        let now = "2026-01-01T00:01:00Z".parse().unwrap();
        let template = json!({"spec": {"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "y"}]}});
        let object = json!({
            "metadata": {"name": "w", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"replicas": 3, "completions": 4, "selector": {"matchLabels": {"app": "w"}}, "template": template},
            "status": {"replicas": 3, "readyReplicas": 2, "updatedReplicas": 1, "succeeded": 1,
                       "startTime": "2026-01-01T00:00:10Z"},
        });
        assert_eq!(
            deployment_row(&object, now).cells,
            [json!("w"), json!("2/3"), json!(1), json!(0), json!("60s"), json!("a,b"), json!("x,y"), json!("app=w")]
        );
        assert_eq!(replica_set_row(&object, now).cells[..4], [json!("w"), json!(3), json!(3), json!(2)]);
        assert_eq!(job_row(&object, now).cells[..4], [json!("w"), json!("Running"), json!("1/4"), json!("50s")]);
    }
}
