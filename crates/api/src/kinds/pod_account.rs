//! What a new Pod takes over from its ServiceAccount (the API server's admission plug-in of that name).

use spec::k8s_openapi::api::core::v1::{LocalObjectReference, Pod};
use store::ObjectKey;

use crate::fields::{items_at, text_at};
use crate::kinds::SERVICE_ACCOUNT;
use crate::kinds::admission::{Admission, AdmissionError};

/// Completes a new Pod from its account; refuses one whose account is not there.
pub fn take_service_account(pod: &mut Pod, admission: &Admission<'_>) -> Result<(), AdmissionError> {
    let pod_namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let Some(spec) = &mut pod.spec else { return Ok(()) };
    let name = spec.service_account_name.clone().unwrap_or_default();
    let key = ObjectKey::namespaced(SERVICE_ACCOUNT.resource, pod_namespace.as_str(), name.as_str());
    let account = admission.store.get(&key).ok_or_else(|| {
        AdmissionError::Forbidden(format!(
            "error looking up service account {pod_namespace}/{name}: serviceaccount {name:?} not found"
        ))
    })?;
    if spec.image_pull_secrets.as_ref().is_none_or(Vec::is_empty) {
        let secrets: Vec<LocalObjectReference> = items_at(&account.value, "/imagePullSecrets")
            .map(|secret| LocalObjectReference { name: text_at(secret, "/name").to_owned() })
            .collect();
        spec.image_pull_secrets = (!secrets.is_empty()).then_some(secrets);
    }
    Ok(())
}
