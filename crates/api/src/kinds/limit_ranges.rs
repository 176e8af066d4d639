//! What the LimitRanges of a namespace do to its Pods and claims (the API server's admission plug-in LimitRanger).

use spec::decode::read;
use spec::k8s_openapi::api::core::v1::{LimitRange, PersistentVolumeClaim, Pod};
use spec::limit_range::{claim_faults, fill_in, pod_faults};

use crate::kinds::LIMIT_RANGE;
use crate::kinds::admission::{Admission, AdmissionError, Admitted, stored};

/// Gives the containers of a new Pod what they do not say.
pub fn fill_in_limits(pod: &mut Pod, admission: &Admission<'_>) -> Result<(), AdmissionError> {
    for range in ranges(admission, pod.metadata.namespace.as_deref())? {
        fill_in(pod, &range);
    }
    Ok(())
}

/// Refuses a Pod that is out of range.
pub fn check_limits(pod: &Pod, admission: &Admission<'_>) -> Result<(), AdmissionError> {
    if admission.old.is_some() && pod.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let ranges = ranges(admission, pod.metadata.namespace.as_deref())?;
    refuse_first(ranges.iter().map(|range| pod_faults(pod, range)))
}

/// Refuses a claim that is out of range.
pub fn check_claim_limits(admitted: &Admitted, admission: &Admission<'_>) -> Result<(), AdmissionError> {
    let Some(claim) = stored::<PersistentVolumeClaim>(Some(&admitted.object))?.filter(|_| admitted.errors.is_empty())
    else {
        return Ok(());
    };
    if admission.old.is_some() && claim.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let ranges = ranges(admission, claim.metadata.namespace.as_deref())?;
    refuse_first(ranges.iter().map(|range| claim_faults(&claim, range)))
}

fn ranges(admission: &Admission<'_>, pod_namespace: Option<&str>) -> Result<Vec<LimitRange>, AdmissionError> {
    let found = admission.store.list(LIMIT_RANGE.resource, pod_namespace).objects;
    let read = found.iter().map(|object| read(&object.value));
    read.collect::<Result<_, _>>().map_err(AdmissionError::Decode)
}

/// All that one range forbids is said at once, each sentence once.
fn refuse_first(faults: impl Iterator<Item = Vec<String>>) -> Result<(), AdmissionError> {
    for faults in faults {
        let mut said: Vec<String> = Vec::new();
        for fault in faults {
            if !said.contains(&fault) {
                said.push(fault);
            }
        }
        match said.as_slice() {
            [] => {}
            [one] => return Err(AdmissionError::Forbidden(one.clone())),
            many => return Err(AdmissionError::Forbidden(format!("[{}]", many.join(", ")))),
        }
    }
    Ok(())
}
