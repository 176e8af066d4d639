//! Pod.

use serde_json::Value;
use spec::decode::Writable as _;
use spec::k8s_openapi::api::core::v1::{Pod, PodStatus};
use spec::support::unsupported_pod_fields;
use spec::validation::{
    FieldError, FieldReason, validate_ephemeral_containers_update, validate_pod, validate_pod_resize,
    validate_pod_status_update, validate_pod_update,
};
use spec::warnings::pod_warnings;

use crate::kinds::admission::{Admission, AdmissionError, Admitted, stored};
use crate::kinds::limit_ranges::{check_limits, fill_in_limits};
use crate::kinds::pod_account::take_service_account;
use crate::kinds::pod_runtime_class::take_runtime_class;
use crate::kinds::priority::resolve_priority;
use crate::kinds::submitted::Submitted;
use crate::kinds::{FieldReader, Kind, Removal, Subresource, pod_row};
use crate::table::{AGE, Column, NAME};
use crate::verbs::Part;

/// `v1` Pod.
pub static POD: Kind = Kind {
    group: "",
    version: "v1",
    resource: "pods",
    singular: "pod",
    kind: "Pod",
    namespaced: true,
    short_names: &["po"],
    categories: &["all"],
    subresources: &[
        Subresource { name: "attach", kind: "PodAttachOptions", verbs: &["create", "get"] },
        Subresource { name: "ephemeralcontainers", kind: "Pod", verbs: &["get", "patch", "update"] },
        Subresource { name: "binding", kind: "Binding", verbs: &["create"] },
        Subresource { name: "eviction", kind: "Eviction", verbs: &["create"] },
        Subresource { name: "exec", kind: "PodExecOptions", verbs: &["create", "get"] },
        Subresource { name: "log", kind: "Pod", verbs: &["get"] },
        Subresource { name: "portforward", kind: "PodPortForwardOptions", verbs: &["create", "get"] },
        Subresource { name: "proxy", kind: "PodProxyOptions", verbs: &["create", "delete", "get", "patch", "update"] },
        Subresource { name: "resize", kind: "Pod", verbs: &["get", "patch", "update"] },
        Subresource { name: "status", kind: "Pod", verbs: &["get", "patch", "update"] },
    ],
    fields: &[
        ("spec.nodeName", FieldReader::Text("/spec/nodeName")),
        ("spec.restartPolicy", FieldReader::Text("/spec/restartPolicy")),
        ("spec.schedulerName", FieldReader::Text("/spec/schedulerName")),
        ("spec.serviceAccountName", FieldReader::Text("/spec/serviceAccountName")),
        ("spec.hostNetwork", FieldReader::Flag("/spec/hostNetwork")),
        ("status.phase", FieldReader::Text("/status/phase")),
        ("status.podIP", FieldReader::Text("/status/podIP")),
        ("status.podIPs", FieldReader::Text("/status/podIP")),
        ("status.nominatedNodeName", FieldReader::Text("/status/nominatedNodeName")),
    ],
    columns: &[
        NAME,
        Column::text("Ready", "Containers that are ready, of all that should be."),
        Column::text("Status", "Its phase, or what keeps it from running."),
        Column::text("Restarts", "How often its containers were started again, and when last."),
        AGE,
        Column::wide("IP", "Its address."),
        Column::wide("Node", "Where it runs."),
        Column::wide("Nominated Node", "Where room is being made for it."),
        Column::wide("Readiness Gates", "Conditions of others that hold, of all that it waits for."),
    ],
    row: pod_row::row,
    admit: admit_pod,
    removal: Removal::Graceful,
    orphans_by_default: false,
    counts_generations: true,
    renames: &[],
};

/// Unlike other kinds a Pod is refused for what Kubernetes knows and this engine does not do; that is judged before
/// defaults are filled in, so that only what the client wrote is named.
fn admit_pod(value: Value, admission: &Admission<'_>) -> Result<Admitted, AdmissionError> {
    let old = stored::<Pod>(admission.old)?;
    let unsupported = unsupported_pod_fields(&value);
    let (mut pod, unknown) = spec::decode::decode_strict::<Pod>(value)?;
    spec::defaults::default_pod(&mut pod);
    if old.is_none() {
        // What a client says of it counts for nothing, and is nobody's.
        pod.status = None;
    }
    let submitted = old.is_none().then(|| Submitted::of(&pod)).transpose()?;
    // What is completed below has to be known to `Submitted`; where it is not, the tests of debug builds say so.
    let whole = (cfg!(debug_assertions) && old.is_none()).then(|| pod.write()).transpose()?;
    resolve_priority(&mut pod, old.as_ref(), admission.store).map_err(AdmissionError::Forbidden)?;
    let mut errors: Vec<FieldError> = check_node(&mut pod, old.as_ref(), admission.node_name).into_iter().collect();
    // The agent writes the mirror of a static Pod as the Pod is.
    let is_mirror =
        |old: &Pod| old.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(spec::mirror::MIRROR));
    if admission.part == Part::Main && !old.as_ref().is_some_and(is_mirror) {
        spec::defaults::add_default_tolerations(&mut pod);
    }
    let mut warnings = Vec::new();
    match &old {
        None => {
            warnings = spec::apparmor::sync_annotations(&mut pod);
            take_service_account(&mut pod, admission)?;
            take_runtime_class(&mut pod, admission)?;
            fill_in_limits(&mut pod, admission)?;
            errors.extend(validate_pod(&pod));
            pod.status = Some(first_status(&pod));
        }
        Some(old) if admission.part == Part::EphemeralContainers => {
            errors.extend(validate_ephemeral_containers_update(&pod, old));
        }
        Some(old) if admission.part == Part::Resize => errors.extend(validate_pod_resize(&pod, old)),
        Some(old) => {
            if admission.part == Part::Status {
                errors.extend(validate_pod_status_update(&pod, old));
            }
            errors.extend(validate_pod_update(&pod, old));
        }
    }
    add_unsupported(&mut errors, unsupported);
    if errors.is_empty() && old.is_none() {
        warnings.extend(pod_warnings(&pod));
    }
    if errors.is_empty() && (old.is_none() || admission.part == Part::Resize) {
        check_limits(&pod, admission)?;
    }
    let object = pod.write()?;
    if let Some(whole) = whole {
        debug_assert_eq!(submitted.as_ref().map(|submitted| submitted.found_in(&object)), Some(whole));
    }
    let pod = old.is_none().then(|| Box::new(pod));
    Ok(Admitted { object, submitted, pod, unknown, errors, warnings })
}

/// What Kubernetes refuses as well is said once, in its words.
fn add_unsupported(errors: &mut Vec<FieldError>, mut unsupported: Vec<FieldError>) {
    if !unsupported.is_empty() {
        unsupported.retain(|one| !errors.iter().any(|error| error.field == one.field));
        errors.splice(0..0, unsupported);
    }
}

/// A Pod may name the only node, and is bound by that. One that names none is bound when there is room for it, by the
/// agent; a client that writes the Pod back without that name means no change.
fn check_node(pod: &mut Pod, old: Option<&Pod>, node_name: &str) -> Option<FieldError> {
    let spec = pod.spec.as_mut()?;
    let wanted = spec.node_name.take().filter(|name| !name.is_empty());
    spec.node_name = wanted.or_else(|| old?.spec.as_ref()?.node_name.clone());
    let wanted = spec.node_name.as_ref().filter(|name| *name != node_name)?;
    Some(FieldError {
        field: "spec.nodeName".to_owned(),
        reason: FieldReason::Invalid,
        value: Value::from(wanted.as_str()),
        detail: format!("the only node is {node_name:?}"),
    })
}

/// That it is gated is said from the first, as Kubernetes does it; the agent says the same and has nothing to write.
fn first_status(pod: &Pod) -> PodStatus {
    let metadata = &pod.metadata;
    let is_gated = pod.spec.as_ref().is_some_and(spec::gates::is_gated);
    let gated = || vec![spec::gates::gated_condition(metadata.generation, metadata.creation_timestamp.clone())];
    PodStatus {
        phase: Some("Pending".to_owned()),
        conditions: is_gated.then(gated),
        qos_class: Some(spec::qos::qos_class(pod).to_string()),
        ..PodStatus::default()
    }
}
