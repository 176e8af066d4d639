//! Deployment: Pods of a template through ReplicaSets, one for each template that it has had.
//!
//! Source: `pkg/controller/deployment` of Kubernetes.

mod plan;
mod progress;
mod revision;
mod rollout;
mod sizes;

use kube::api::PropagationPolicy;
use spec::k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use spec::k8s_openapi::api::core::v1::Pod;

use crate::claim::claim_all;
use crate::client::{ApiFailure, Client};
use crate::pods::{controller_of, has_ended};
use crate::work::Again;
use plan::{Plan, Step, plan};

/// The name under which it says what it does.
const CONTROLLER: &str = "deployment-controller";

/// Brings a Deployment a step nearer to its template and number. What the step changes wakes the next pass.
pub async fn reconcile(client: &Client, namespace: &str, name: &str) -> Result<Again, ApiFailure> {
    let Some(deployment) = client.get::<Deployment>(namespace, name).await? else { return Ok(Again::never()) };
    let sets: Vec<ReplicaSet> = claim_all(client, &deployment, &deployment.spec.selector, None).await?;
    let running = sets_with_pods(client, namespace, &deployment).await?;
    let mut plan = plan(&deployment, &sets, &running, client.now());
    let mut outcome = Ok(());
    for step in std::mem::take(&mut plan.steps) {
        outcome = take(client, &deployment, step, &mut plan).await;
        if outcome.is_err() {
            break;
        }
    }
    publish(client, deployment, &plan).await?;
    outcome.map(|()| Again(plan.again))
}

/// The uids of the sets whose Pods have not ended; asked for only where old Pods must be gone before new ones come.
async fn sets_with_pods(client: &Client, namespace: &str, deployment: &Deployment) -> Result<Vec<String>, ApiFailure> {
    let strategy = deployment.spec.strategy.as_ref().and_then(|strategy| strategy.type_.as_deref());
    if strategy != Some("Recreate") {
        return Ok(Vec::new());
    }
    let pods = client.list::<Pod>(namespace).await?;
    let running = pods.iter().filter(|pod| !has_ended(pod));
    Ok(running.filter_map(|pod| controller_of(&pod.metadata)).map(|owner| owner.uid.clone()).collect())
}

async fn take(client: &Client, deployment: &Deployment, step: Step, plan: &mut Plan) -> Result<(), ApiFailure> {
    let namespace = deployment.metadata.namespace.as_deref().unwrap_or_default();
    match step {
        Step::Create(set) => match client.create(namespace, &*set).await {
            Ok(created) => {
                let name = created.metadata.name.unwrap_or_default();
                let replicas = created.spec.replicas.unwrap_or_default();
                if replicas > 0 {
                    let message = format!("Scaled up replica set {name} from 0 to {replicas}");
                    client.events().normal(CONTROLLER, deployment, "ScalingReplicaSet", message);
                }
                plan.created(&name, client.now());
                Ok(())
            }
            Err(failure) if failure.is_taken() => {
                // Sets of ours were listed just now, so the name is somebody else's: the next one is drawn.
                plan.collided();
                Err(failure)
            }
            Err(failure) => {
                let name = set.metadata.name.as_deref().unwrap_or_default();
                let message = format!("Failed to create new replica set {name:?}: {}", failure.word());
                plan.create_failed(&message, client.now());
                client.events().warning(CONTROLLER, deployment, "ReplicaSetCreateError", message);
                Err(failure)
            }
        },
        Step::Update { set, from } => {
            client.replace(namespace, &*set).await?;
            let (name, to) = (set.metadata.name.as_deref().unwrap_or_default(), set.spec.replicas.unwrap_or_default());
            if from != to {
                let way = if from < to { "up" } else { "down" };
                let message = format!("Scaled {way} replica set {name} from {from} to {to}");
                client.events().normal(CONTROLLER, deployment, "ScalingReplicaSet", message);
            }
            Ok(())
        }
        Step::Delete(meta) => client.delete::<ReplicaSet>(namespace, &meta, PropagationPolicy::Background).await,
    }
}

/// Writes status and revision where they differ.
async fn publish(client: &Client, mut deployment: Deployment, plan: &Plan) -> Result<(), ApiFailure> {
    let namespace = deployment.metadata.namespace.clone().unwrap_or_default();
    let mut changed = deployment.status.as_ref() != Some(&plan.status);
    if let Some(revision) = &plan.revision {
        let annotations = deployment.metadata.annotations.get_or_insert_default();
        let before = annotations.insert(revision::REVISION.to_owned(), revision.clone());
        changed |= before.as_ref() != Some(revision);
    }
    if !changed {
        return Ok(());
    }
    deployment.status = Some(plan.status.clone());
    client.replace_status(&namespace, &deployment).await.map(drop)
}
