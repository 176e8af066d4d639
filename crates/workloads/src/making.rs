//! Making and deleting Pods for an owner, with the Events that tell of it.

use futures::future::join_all;
use kube::api::PropagationPolicy;
use spec::k8s_openapi::api::core::v1::Pod;

use crate::client::{ApiFailure, Client, Object};

/// Makes Pods in groups, each twice as large as the one before: where the first is refused, so would be the others.
pub async fn create_pods<K: Object>(
    client: &Client,
    controller: &'static str,
    owner: &K,
    pods: &[Pod],
) -> Result<(), ApiFailure> {
    let namespace = owner.meta().namespace.as_deref().unwrap_or_default();
    let (mut rest, mut group) = (pods, 1);
    while !rest.is_empty() {
        let (now, later) = rest.split_at(group.min(rest.len()));
        for outcome in join_all(now.iter().map(|pod| client.create(namespace, pod))).await {
            match outcome {
                Ok(pod) => {
                    let message = format!("Created pod: {}", pod.metadata.name.unwrap_or_default());
                    client.events().normal(controller, owner, "SuccessfulCreate", message);
                }
                Err(failure) => {
                    let message = format!("Error creating: {}", failure.word());
                    client.events().warning(controller, owner, "FailedCreate", message);
                    return Err(failure);
                }
            }
        }
        (rest, group) = (later, group * 2);
    }
    Ok(())
}

/// Deletes a Pod; one that is gone is well, too.
pub async fn delete_pod<K: Object>(
    client: &Client,
    controller: &'static str,
    owner: &K,
    pod: &Pod,
) -> Result<(), ApiFailure> {
    let namespace = owner.meta().namespace.as_deref().unwrap_or_default();
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let deleted = client.delete::<Pod>(namespace, &pod.metadata, PropagationPolicy::Background).await;
    match &deleted {
        Ok(()) => client.events().normal(controller, owner, "SuccessfulDelete", format!("Deleted pod: {name}")),
        Err(failure) => {
            let message = format!("Error deleting: {}", failure.word());
            client.events().warning(controller, owner, "FailedDelete", message);
        }
    }
    deleted
}
