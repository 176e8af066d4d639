//! Rules for requests and limits.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as RawQuantity;

use super::names;
use crate::field::{Errors, Path};
use crate::huge_pages::{is_huge_pages, page_size};
use crate::quantity::Quantity;

pub(super) fn container_resources(errors: &mut Errors, path: &Path<'_>, requirements: &ResourceRequirements) {
    let none = BTreeMap::new();
    let limits = requirements.limits.as_ref().unwrap_or(&none);
    let requests = requirements.requests.as_ref().unwrap_or(&none);
    for (name, limit) in limits {
        amount(errors, &path.child("limits"), name, limit);
    }
    for (name, request) in requests {
        let Some(request) = amount(errors, &path.child("requests"), name, request) else { continue };
        let Some(limit) = limits.get(name) else {
            if !may_be_overcommitted(name) {
                errors.required(&path.child("limits"), "Limit must be set for non overcommitable resources");
            }
            continue;
        };
        let Ok(limit) = Quantity::parse(&limit.0) else { continue };
        let order = request.compare(limit);
        if order.is_ne() && !may_be_overcommitted(name) {
            let fault = format!("must be equal to {name} limit of {limit}");
            errors.invalid(&path.child("requests"), request.to_string(), fault);
        } else if order.is_gt() {
            let fault = format!("must be less than or equal to {name} limit of {limit}");
            errors.invalid(&path.child("requests"), request.to_string(), fault);
        }
    }
    let mut names = limits.keys().chain(requests.keys());
    if names.clone().any(|name| is_huge_pages(name)) && !names.any(|name| ["cpu", "memory"].contains(&name.as_str())) {
        errors.forbidden(path, "HugePages require cpu or memory");
    }
}

/// Whether a Pod may use more of it than it has set aside.
fn may_be_overcommitted(name: &str) -> bool {
    !is_huge_pages(name) && is_native(name)
}

/// A size that must not be negative; `None` where it has been reported.
pub(super) fn amount(errors: &mut Errors, list: &Path<'_>, name: &str, raw: &RawQuantity) -> Option<Quantity> {
    let path = list.key(name);
    for fault in resource_name(name) {
        errors.invalid(&path, name, fault);
    }
    let quantity = match Quantity::parse(&raw.0) {
        Ok(quantity) => quantity,
        Err(error) => {
            errors.invalid(&path, raw.0.as_str(), error.to_string());
            return None;
        }
    };
    if quantity.is_negative() {
        errors.invalid(&path, quantity.to_string(), "must be greater than or equal to 0");
        return None;
    }
    if is_extended(name) && !quantity.rounded_up_to_milli().is_integer() {
        errors.invalid(&path, quantity.to_string(), "must be an integer");
        return None;
    }
    // Sums are kept in 64 bits.
    let fits = if name == "cpu" { quantity.millis() } else { quantity.value() };
    if let Err(error) = fits {
        errors.invalid(&path, quantity.to_string(), error.to_string());
        return None;
    }
    if is_huge_pages(name) && !is_whole_pages(name, quantity) {
        errors.invalid(&path, quantity.to_string(), format!("{quantity} is not positive integer multiple of {name}"));
        return None;
    }
    Some(quantity)
}

fn is_whole_pages(name: &str, quantity: Quantity) -> bool {
    let bytes = quantity.value().ok().and_then(|bytes| u64::try_from(bytes).ok());
    page_size(name).zip(bytes).is_some_and(|(size, bytes)| bytes % size == 0)
}

/// A resource that a container may ask for. One that nobody knows breaks two rules, as on the API server.
pub(super) fn resource_name(name: &str) -> Vec<String> {
    let mut faults = names::qualified_name(name);
    if !faults.is_empty() {
        return faults;
    }
    if name.contains('/') {
        if is_extended(name) && !names::qualified_name(&format!("requests.{name}")).is_empty() {
            faults.push("doesn't follow extended resource name standard".to_owned());
        }
        if !is_native(name) && name.starts_with("requests.") {
            faults.push("doesn't follow extended resource name standard".to_owned());
        }
        return faults;
    }
    if !is_standard(name) {
        faults.push("must be a standard resource type or fully qualified".to_owned());
    }
    if !["cpu", "memory", "ephemeral-storage"].contains(&name) && !is_huge_pages(name) {
        faults.push("must be a standard resource for containers".to_owned());
    }
    faults
}

/// A resource that some object of Kubernetes may name without a domain.
pub(super) fn is_standard(name: &str) -> bool {
    let plain = ["cpu", "memory", "ephemeral-storage"];
    let of_list = |list: &str| name.strip_prefix(list).is_some_and(|rest| plain.contains(&rest));
    plain.contains(&name)
        || of_list("requests.")
        || of_list("limits.")
        || ["storage", "requests.storage"].contains(&name)
        || COUNTED.contains(&name)
        || is_huge_pages(name.strip_prefix("requests.").unwrap_or(name))
}

/// What is counted in pieces.
pub(super) const COUNTED: [&str; 9] = [
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];

/// Without a domain, or of Kubernetes' own.
fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// `example.com/gpu`: counted in pieces.
pub(super) fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.")
}
