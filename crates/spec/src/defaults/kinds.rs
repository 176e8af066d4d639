//! Defaults of the kinds around Pods.

use k8s_openapi::api::core::v1::{
    Endpoints, LimitRange, PersistentVolume, PersistentVolumeClaim, PodTemplate, Service, ServiceSpec,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, RoleBinding, RoleRef, Subject};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::pod::{default_pod_spec, set_text};

const RBAC: &str = "rbac.authorization.k8s.io";

/// Fills in the groups of role and subjects.
pub fn default_role_binding(binding: &mut RoleBinding) {
    default_binding(&mut binding.role_ref, binding.subjects.as_mut());
}

/// Fills in the groups of role and subjects.
pub fn default_cluster_role_binding(binding: &mut ClusterRoleBinding) {
    default_binding(&mut binding.role_ref, binding.subjects.as_mut());
}

fn default_binding(role: &mut RoleRef, subjects: Option<&mut Vec<Subject>>) {
    set_text(&mut role.api_group, RBAC);
    for subject in subjects.into_iter().flatten() {
        if matches!(subject.kind.as_str(), "User" | "Group") {
            set_text(&mut subject.api_group, RBAC);
        }
    }
}

/// Fills in the mode and the first phase.
pub fn default_persistent_volume_claim(claim: &mut PersistentVolumeClaim) {
    if let Some(spec) = &mut claim.spec {
        set_text(&mut spec.volume_mode, "Filesystem");
    }
    set_text(&mut claim.status.get_or_insert_default().phase, "Pending");
}

/// Fills in the mode, the reclaim policy and the first phase.
pub fn default_persistent_volume(volume: &mut PersistentVolume) {
    if let Some(spec) = &mut volume.spec {
        set_text(&mut spec.volume_mode, "Filesystem");
        set_text(&mut spec.persistent_volume_reclaim_policy, "Retain");
        if let Some(host_path) = &mut spec.host_path {
            host_path.type_.get_or_insert_default();
        }
    }
    set_text(&mut volume.status.get_or_insert_default().phase, "Pending");
}

/// Fills in when volumes are bound and what becomes of them.
pub fn default_storage_class(class: &mut StorageClass) {
    set_text(&mut class.reclaim_policy, "Delete");
    set_text(&mut class.volume_binding_mode, "Immediate");
}

/// Fills in the preemption policy.
pub fn default_priority_class(class: &mut PriorityClass) {
    set_text(&mut class.preemption_policy, "PreemptLowerPriority");
}

/// Fills in the template as if it were a Pod.
pub fn default_pod_template(template: &mut PodTemplate) {
    if let Some(spec) = template.template.as_mut().and_then(|template| template.spec.as_mut()) {
        default_pod_spec(spec);
    }
}

/// Fills in type, affinity, policies and ports.
pub fn default_service(service: &mut Service) {
    if let Some(spec) = &mut service.spec {
        default_service_spec(spec);
    }
    service.status.get_or_insert_default().load_balancer.get_or_insert_default();
}

fn default_service_spec(spec: &mut ServiceSpec) {
    set_text(&mut spec.type_, "ClusterIP");
    set_text(&mut spec.session_affinity, "None");
    let is_external = spec.type_.as_deref() == Some("ExternalName");
    if !is_external {
        set_text(&mut spec.internal_traffic_policy, "Cluster");
    }
    if matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer")) {
        set_text(&mut spec.external_traffic_policy, "Cluster");
    }
    if spec.cluster_ip.as_deref() == Some("None") {
        spec.cluster_ips.get_or_insert_with(|| vec!["None".to_owned()]);
    }
    if spec.session_affinity.as_deref() == Some("ClientIP") {
        let config = spec.session_affinity_config.get_or_insert_default();
        config.client_ip.get_or_insert_default().timeout_seconds.get_or_insert(10_800);
    }
    for port in spec.ports.iter_mut().flatten() {
        set_text(&mut port.protocol, "TCP");
        let own = port.port;
        let target = port.target_port.get_or_insert(IntOrString::Int(own));
        if matches!(target, IntOrString::Int(0)) || matches!(target, IntOrString::String(name) if name.is_empty()) {
            *target = IntOrString::Int(own);
        }
    }
}

/// Fills in names and protocols of ports.
pub fn default_endpoint_slice(slice: &mut EndpointSlice) {
    for port in slice.ports.iter_mut().flatten() {
        port.name.get_or_insert_default();
        set_text(&mut port.protocol, "TCP");
    }
}

/// Fills in protocols of ports.
pub fn default_endpoints(endpoints: &mut Endpoints) {
    for port in endpoints.subsets.iter_mut().flatten().flat_map(|subset| subset.ports.iter_mut().flatten()) {
        set_text(&mut port.protocol, "TCP");
    }
}

/// Fills in what containers get that say nothing: without a default the most is the limit, and a limit or the least is
/// the request.
pub fn default_limit_range(range: &mut LimitRange) {
    let items = range.spec.iter_mut().flat_map(|spec| &mut spec.limits);
    for item in items.filter(|item| item.type_ == "Container") {
        let limits = item.default.get_or_insert_default();
        for (name, most) in item.max.iter().flatten() {
            limits.entry(name.clone()).or_insert_with(|| most.clone());
        }
        let requests = item.default_request.get_or_insert_default();
        for (name, quantity) in limits.iter().chain(item.min.iter().flatten()) {
            requests.entry(name.clone()).or_insert_with(|| quantity.clone());
        }
    }
}
