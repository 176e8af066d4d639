//! What a `ResourceQuota` counts, and when it refuses: pure, so that the door and the task that keeps `status.used` true
//! agree.
//!
//! Source: the API server's admission plug-in `ResourceQuota` and the evaluators in `pkg/quota/v1`, for the rules and the
//! sentences.

mod item;
mod scope;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ResourceQuota, ResourceQuotaStatus};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as RawQuantity;

pub use item::{Item, tracked_names};

use crate::Timestamp;
use crate::ordered::{map_of, set_of};
use crate::quantity::Quantity;
use crate::requests::{QuantityList, add_quantities, parsed};

/// What a quota's status says when these are the objects of its namespace; `resources` are all those that there could be
/// objects of, by their qualified names.
pub fn count<'a>(
    quota: &ResourceQuota,
    resources: impl Iterator<Item = &'a str>,
    items: impl Iterator<Item = &'a Item>,
    now: Timestamp,
) -> ResourceQuotaStatus {
    let hard = hard(quota);
    let tracked = resources.flat_map(|resource| tracked_names(resource, hard.keys()));
    let mut used = map_of(tracked.map(|name| (name.clone(), Quantity::ZERO)));
    for item in items.filter(|item| scope::matches(quota, item)) {
        let names = tracked_names(item.resource(), hard.keys());
        add_quantities(&mut used, &masked(&item.usage(now), |name| names.contains(name)));
    }
    ResourceQuotaStatus { hard: Some(raw(&hard)), used: Some(raw(&used)) }
}

/// Whether any of this resource's objects can matter to the quota.
pub fn tracks(quota: &ResourceQuota, resource: &str) -> bool {
    !tracked_names(resource, hard(quota).keys()).is_empty()
}

/// Whether an object may come or change under this quota: what will then be used, if that changes; or why not.
pub fn charge(
    quota: &ResourceQuota,
    new: &Item,
    old: Option<&Item>,
    now: Timestamp,
) -> Result<Option<QuantityList>, String> {
    let status = quota.status.clone().unwrap_or_default();
    let (hard, used) = (parsed(status.hard.as_ref()), parsed(status.used.as_ref()));
    let names = tracked_names(new.resource(), hard.keys());
    if names.is_empty() || !scope::matches(quota, new) {
        return Ok(None);
    }
    let own = quota.metadata.name.as_deref().unwrap_or_default();
    let missing = new.missing(&names);
    if !missing.is_empty() {
        return Err(format!("failed quota: {own}: must specify {missing}"));
    }
    if names.iter().any(|name| !used.contains_key(*name)) {
        let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
        return Err(format!("status unknown for quota: {own}, resources: {}", names.join(",")));
    }
    let mut more = new.usage(now);
    if let Some(old) = old.filter(|old| scope::matches(quota, old)) {
        let before = old.usage(now);
        for (name, quantity) in &mut more {
            *quantity = quantity.minus(before.get(name).copied().unwrap_or(Quantity::ZERO));
        }
    }
    let requested = masked(&more, |name| hard.contains_key(name));
    let requested = map_of(requested.into_iter().filter(|(_, quantity)| !quantity.is_zero()));
    if requested.is_empty() {
        return Ok(None);
    }
    let mut next = used.clone();
    add_quantities(&mut next, &requested);
    let too_much = |(name, most): &(&String, &Quantity)| {
        requested.contains_key(*name) && next.get(*name).is_some_and(|next| next.compare(**most).is_gt())
    };
    let exceeded = set_of(hard.iter().filter(too_much).map(|(name, _)| name));
    if !exceeded.is_empty() {
        let of = |list: &QuantityList| {
            let shown = exceeded.iter().filter_map(|name| Some(format!("{name}={}", list.get(*name)?)));
            shown.collect::<Vec<_>>().join(",")
        };
        return Err(format!(
            "exceeded quota: {own}, requested: {}, used: {}, limited: {}",
            of(&requested),
            of(&used),
            of(&hard)
        ));
    }
    Ok(Some(next))
}

/// Quantities as they are written.
pub fn raw(list: &QuantityList) -> BTreeMap<String, RawQuantity> {
    map_of(list.iter().map(|(name, quantity)| (name.clone(), RawQuantity(quantity.to_string()))))
}

fn hard(quota: &ResourceQuota) -> QuantityList {
    parsed(quota.spec.as_ref().and_then(|spec| spec.hard.as_ref()))
}

fn masked(list: &QuantityList, is_wanted: impl Fn(&String) -> bool) -> QuantityList {
    map_of(list.iter().filter(|(name, _)| is_wanted(name)).map(|(name, quantity)| (name.clone(), *quantity)))
}

#[cfg(test)]
mod tests;
