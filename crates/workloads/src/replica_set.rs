//! ReplicaSet: as many Pods of a template as are wanted.
//!
//! Source: `pkg/controller/replicaset` of Kubernetes.

mod plan;

use futures::future::join_all;
use spec::k8s_openapi::api::apps::v1::ReplicaSet;
use spec::k8s_openapi::api::core::v1::Pod;

use crate::claim::claim_all;
use crate::client::{ApiFailure, Client};
use crate::making::{create_pods, delete_pod};
use crate::pods::{controller_reference, pod_from_template};
use crate::work::Again;
use plan::{Size, plan, status};

/// The name under which it says what it does.
const CONTROLLER: &str = "replicaset-controller";

/// Makes the Pods of a set as many as are wanted, and says how many there are.
pub async fn reconcile(client: &Client, namespace: &str, name: &str) -> Result<Again, ApiFailure> {
    let Some(mut set) = client.get::<ReplicaSet>(namespace, name).await? else { return Ok(Again::never()) };
    let selector = set.spec.selector.clone();
    let pods: Vec<Pod> = claim_all(client, &set, &selector, None).await?;
    let outcome = match plan(&set, &pods) {
        Size::Right => Ok(()),
        Size::TooSmall(missing) => create(client, &set, missing).await,
        Size::TooLarge(surplus) => delete(client, &set, &surplus).await,
    };
    // What was just made or deleted makes itself heard; the count is that of before.
    let failure = outcome.as_ref().err().map(ApiFailure::word);
    let (next, again) = status(&set, &pods, failure.as_deref(), client.now());
    if set.status.as_ref() != Some(&next) {
        set.status = Some(next);
        client.replace_status(namespace, &set).await?;
    }
    outcome.map(|()| Again(again))
}

async fn create(client: &Client, set: &ReplicaSet, missing: usize) -> Result<(), ApiFailure> {
    let template = set.spec.template.clone().unwrap_or_default();
    let prefix = format!("{}-", set.metadata.name.as_deref().unwrap_or_default());
    let pod = pod_from_template(&template, controller_reference(set), prefix);
    create_pods(client, CONTROLLER, set, &vec![pod; missing]).await
}

async fn delete(client: &Client, set: &ReplicaSet, surplus: &[&Pod]) -> Result<(), ApiFailure> {
    let deleted = join_all(surplus.iter().map(|pod| delete_pod(client, CONTROLLER, set, pod))).await;
    deleted.into_iter().collect()
}
