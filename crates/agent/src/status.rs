//! Makes the status of a pod from what exists: phase, conditions, container states. Pure.

mod container;
mod ended;
mod phase;
mod pod_resources;
mod resources;

use std::collections::BTreeMap;
use std::net::IpAddr;

use runtime::PodSandboxStatus;
use spec::k8s_openapi::api::core::v1 as core;
use spec::k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use spec::{ContainerId, ContainerName, Timestamp};

use crate::conditions::{PodFacts, conditions, gated_conditions};
use crate::desired::{ContainerKind, DesiredPod};
use crate::ending::Ending;
use crate::observation::PodObservation;
use crate::restart_all;

pub use phase::Phase;

/// `state.waiting` of a container that could not be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Such as `ImagePullBackOff`.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// What the status says beside the desired Pod and the runtime's word.
#[derive(Debug, Clone, Default)]
pub struct StatusInputs {
    /// Why containers wait.
    pub waiting: BTreeMap<ContainerName, Waiting>,
    /// `state.terminated.message` of dead runs.
    pub termination_messages: BTreeMap<ContainerId, String>,
    /// `imageID` by container.
    pub image_ids: BTreeMap<ContainerName, String>,
    /// `hostIPs`.
    pub node_addresses: Vec<IpAddr>,
    /// Why it ends before its containers do.
    pub ending: Option<Ending>,
    /// Whether nothing of the Pod will ever run again and nothing runs now.
    pub ended: bool,
}

/// The status that follows from what exists.
pub fn pod_status(
    desired: &DesiredPod,
    observed: &PodObservation,
    inputs: &StatusInputs,
    now: Timestamp,
) -> core::PodStatus {
    let is_app = |kind| kind == ContainerKind::App;
    let is_ephemeral = |kind| kind == ContainerKind::Ephemeral;
    let restarting = restart_all::is_restarting(desired, observed);
    let statuses =
        |of: &dyn Fn(ContainerKind) -> bool| container::container_statuses(desired, of, observed, inputs, restarting);
    let mut init = statuses(&|kind| !is_app(kind) && !is_ephemeral(kind));
    let mut apps = statuses(&is_app);
    let ephemeral = statuses(&is_ephemeral);
    if inputs.ended {
        ended::end_what_never_ran(desired, &mut init, &mut apps);
    }
    let ending = inputs.ending.as_ref().filter(|_| inputs.ended);
    let phase = match ending {
        Some(_) => Phase::Failed,
        None => phase::pod_phase(desired, &init, &apps, observed.is_initialized(desired), inputs.ended),
    };
    let sandbox = observed.ready_sandbox().filter(|_| !inputs.ended);
    let restarting = restart_all::may_restart(desired)
        .then(|| restarting && !inputs.ended && !restart_all::is_cleaned_up(desired, observed));
    let facts =
        PodFacts { desired, phase, init: &init, apps: &apps, sandbox_ready: sandbox.is_some(), restarting, now };
    let mut status = core::PodStatus {
        phase: Some(phase.as_str().to_owned()),
        conditions: Some(conditions(&facts)),
        init_container_statuses: (!init.is_empty()).then_some(init),
        container_statuses: Some(apps),
        ephemeral_container_statuses: (!ephemeral.is_empty()).then_some(ephemeral),
        qos_class: Some(spec::qos::qos_class(&desired.object).as_str().to_owned()),
        observed_generation: desired.generation(),
        start_time: desired.status.start_time.clone().or(Some(Time(now))),
        reason: ending.map(|ending| ending.reason.clone()).or_else(|| desired.status.reason.clone()),
        message: ending.map(|ending| ending.message.clone()).or_else(|| desired.status.message.clone()),
        ..core::PodStatus::default()
    };
    pod_resources::fill(&mut status, desired, phase, sandbox);
    set_addresses(&mut status, desired, observed.ready_sandbox(), &inputs.node_addresses);
    status
}

/// Of a pod that waits for its scheduling gates only the scheduler speaks.
pub fn gated_status(desired: &DesiredPod, now: Timestamp) -> core::PodStatus {
    core::PodStatus {
        phase: Some(Phase::Pending.as_str().to_owned()),
        conditions: Some(gated_conditions(desired, now)),
        qos_class: Some(spec::qos::qos_class(&desired.object).as_str().to_owned()),
        ..core::PodStatus::default()
    }
}

/// Without a sandbox the Pod's addresses stay as they are told (kubelet, `getPodIPs`).
fn set_addresses(
    status: &mut core::PodStatus,
    desired: &DesiredPod,
    sandbox: Option<&PodSandboxStatus>,
    node: &[IpAddr],
) {
    status.host_ip = node.first().map(IpAddr::to_string);
    let host_ips: Vec<_> = node.iter().map(|ip| core::HostIP { ip: ip.to_string() }).collect();
    status.host_ips = (!host_ips.is_empty()).then_some(host_ips);
    let Some(sandbox) = sandbox else {
        status.pod_ip.clone_from(&desired.status.pod_ip);
        status.pod_ips.clone_from(&desired.status.pod_ips);
        return;
    };
    let pod = if desired.host_network() { node } else { &sandbox.addresses };
    status.pod_ip = pod.first().map(IpAddr::to_string);
    let pod_ips: Vec<_> = pod.iter().map(|ip| core::PodIP { ip: ip.to_string() }).collect();
    status.pod_ips = (!pod_ips.is_empty()).then_some(pod_ips);
}
