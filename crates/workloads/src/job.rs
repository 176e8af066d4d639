//! Job: Pods that run until enough of them have succeeded.
//!
//! Each Pod has a finalizer, so that none is gone before its end was counted: first its uid is written into the Job's
//! status, then the finalizer goes, then the counter grows.
//!
//! Source: `pkg/controller/job` and `pkg/controller/ttlafterfinished` of Kubernetes.

mod failure_policy;
mod indexes;
mod plan;
mod pods;

use futures::future::join_all;
use kube::api::PropagationPolicy;
use serde_json::json;
use spec::k8s_openapi::api::batch::v1::Job;
use spec::k8s_openapi::api::core::v1::Pod;
use spec::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::claim::claim_all;
use crate::client::{ApiFailure, Client};
use crate::events::EventType;
use crate::making::{create_pods, delete_pod};
use crate::pods::controller_of;
use crate::work::Again;
use plan::{Plan, plan};
use pods::{TRACKING, has_finalizer, new_pod};

/// The name under which it says what it does.
const CONTROLLER: &str = "job-controller";

/// Brings a Job a step nearer to its end. What the step changes wakes the next pass.
pub async fn reconcile(client: &Client, namespace: &str, name: &str) -> Result<Again, ApiFailure> {
    let Some(job) = client.get::<Job>(namespace, name).await? else {
        return let_go(client, namespace, name).await.map(|()| Again::never());
    };
    let selector = job.spec.as_ref().and_then(|spec| spec.selector.clone()).unwrap_or_default();
    let pods: Vec<Pod> = claim_all(client, &job, &selector, Some(TRACKING)).await?;
    let plan = plan(&job, &pods, client.now());
    if plan.remove_job {
        client.delete::<Job>(namespace, &job.metadata, PropagationPolicy::Foreground).await?;
        return Ok(Again::never());
    }
    carry_out(client, job, &plan).await?;
    Ok(Again(plan.again))
}

/// Pods of a Job that is gone are counted by nobody, and may go, too.
async fn let_go(client: &Client, namespace: &str, name: &str) -> Result<(), ApiFailure> {
    for pod in client.list::<Pod>(namespace).await?.iter().filter(|pod| has_finalizer(pod)) {
        let owner = controller_of(&pod.metadata);
        if owner.is_none_or(|owner| owner.kind == "Job" && owner.name == name) {
            release(client, namespace, &pod.metadata).await?;
        }
    }
    Ok(())
}

async fn carry_out(client: &Client, mut job: Job, plan: &Plan<'_>) -> Result<(), ApiFailure> {
    let namespace = job.metadata.namespace.clone().unwrap_or_default();
    if job.status.as_ref() != Some(&plan.status) {
        job.status = Some(plan.status.clone());
        job = client.replace_status(&namespace, &job).await?;
    }
    for (event_type, reason, message) in &plan.events {
        match event_type {
            EventType::Normal => client.events().normal(CONTROLLER, &job, reason, message.clone()),
            EventType::Warning => client.events().warning(CONTROLLER, &job, reason, message.clone()),
        }
    }
    let mut outcome = Ok(());
    for released in join_all(plan.release.iter().map(|pod| release(client, &namespace, &pod.metadata))).await {
        outcome = outcome.and(released);
    }
    for deleted in join_all(plan.delete.iter().map(|pod| delete(client, &job, pod, plan.uncounted))).await {
        outcome = outcome.and(deleted);
    }
    let missing: Vec<Pod> = plan.create.iter().map(|index| new_pod(&job, *index)).collect();
    outcome.and(create_pods(client, CONTROLLER, &job, &missing).await)
}

/// Takes a Pod's finalizer away.
async fn release(client: &Client, namespace: &str, meta: &ObjectMeta) -> Result<(), ApiFailure> {
    let mut left = meta.finalizers.clone().unwrap_or_default();
    left.retain(|finalizer| finalizer != TRACKING);
    let left = (!left.is_empty()).then_some(left);
    let change = json!({"finalizers": left, "resourceVersion": meta.resource_version});
    client.patch_meta::<Pod>(namespace, meta, change).await
}

/// Deletes a Pod; one whose end is not to be counted loses its finalizer before.
async fn delete(client: &Client, job: &Job, pod: &Pod, uncounted: bool) -> Result<(), ApiFailure> {
    if uncounted && has_finalizer(pod) {
        release(client, job.metadata.namespace.as_deref().unwrap_or_default(), &pod.metadata).await?;
    }
    delete_pod(client, CONTROLLER, job, pod).await
}
