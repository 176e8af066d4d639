//! How large each ReplicaSet of a Deployment is to be: in a rolling update, when Pods are made anew, and when the Deployment
//! is scaled meanwhile. Pure.

use spec::k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

use crate::deployment::revision::{DESIRED, MOST, annotate_size, created, number_of, revision_of};
use crate::deployment::sizes::{available, is_rolling, max_surge, max_unavailable, size, total, wanted};

/// The sets of a Deployment, as they are being changed.
#[derive(Debug)]
pub struct Sets {
    /// As they were read.
    pub original: Vec<ReplicaSet>,
    /// Of the newest template.
    pub newest: Option<ReplicaSet>,
    /// Of earlier templates, the oldest first.
    pub old: Vec<ReplicaSet>,
    /// Whether the newest is only about to be made.
    pub is_new: bool,
}

impl Sets {
    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &ReplicaSet> + Clone {
        self.old.iter().chain(&self.newest)
    }

    fn active(&self) -> impl Iterator<Item = &ReplicaSet> {
        self.all().filter(|set| size(set) > 0)
    }
}

/// Gives a set a size, and notes of what.
fn resize(deployment: &Deployment, set: &mut ReplicaSet, to: i32) {
    if size(set) != to {
        set.spec.replicas = Some(to);
        annotate_size(deployment, set);
    }
}

/// Whether the Deployment's number has changed since its sets got theirs.
pub fn is_scaling(deployment: &Deployment, sets: &Sets) -> bool {
    sets.active().any(|set| number_of(set, DESIRED).is_some_and(|desired| desired != wanted(deployment)))
}

/// Whether the newest template may have its set now: where old Pods must be gone first, they must.
pub fn may_create(deployment: &Deployment, sets: &Sets, running: &[String]) -> bool {
    is_rolling(deployment) || (total(&sets.old, size) == 0 && !old_pods_run(sets, running))
}

fn old_pods_run(sets: &Sets, running: &[String]) -> bool {
    let actual = |set: &ReplicaSet| set.status.as_ref().map_or(0, |status| status.replicas);
    let of_old = |uid: &String| sets.old.iter().any(|set| set.metadata.uid.as_ref() == Some(uid));
    total(&sets.old, actual) > 0 || running.iter().any(of_old)
}

/// Moves Pods from old sets to the newest; says whether anything has moved.
pub fn roll(deployment: &Deployment, sets: &mut Sets, running: &[String]) -> bool {
    let before: Vec<i32> = sets.all().map(size).collect();
    if is_rolling(deployment) {
        grow_newest(deployment, sets);
        // One direction at a time, so that what the first half brings about is seen before the second.
        if sets.all().map(size).eq(before.iter().copied()) {
            shrink_old(deployment, sets);
        }
    } else {
        for set in &mut sets.old {
            resize(deployment, set, 0);
        }
        let unchanged = sets.all().map(size).eq(before.iter().copied());
        if unchanged
            && !old_pods_run(sets, running)
            && let Some(newest) = &mut sets.newest
        {
            resize(deployment, newest, wanted(deployment));
        }
    }
    !sets.all().map(size).eq(before)
}

/// Up to what is wanted, while no more Pods come of it than are wanted and the surge.
fn grow_newest(deployment: &Deployment, sets: &mut Sets) {
    let present = total(sets.all(), size);
    let Some(newest) = &mut sets.newest else { return };
    let (own, wanted) = (size(newest), wanted(deployment));
    let to = if own >= wanted {
        wanted
    } else {
        let room = (wanted + max_surge(deployment) - present).max(0);
        own + room.min(wanted - own)
    };
    resize(deployment, newest, to);
}

/// Takes away old Pods that serve nobody, then as many of the others as may be missing.
fn shrink_old(deployment: &Deployment, sets: &mut Sets) {
    if total(&sets.old, size) == 0 {
        return;
    }
    let least = wanted(deployment) - max_unavailable(deployment);
    let not_yet = sets.newest.as_ref().map_or(0, |newest| size(newest) - available(newest));
    let mut surplus = total(sets.all(), size) - least - not_yet;
    if surplus <= 0 {
        return;
    }
    for set in &mut sets.old {
        let useless = (size(set) - available(set)).clamp(0, surplus);
        surplus -= useless;
        let to = size(set) - useless;
        resize(deployment, set, to);
    }
    let mut spare = total(sets.all(), available) - least;
    for set in &mut sets.old {
        let fewer = size(set).min(spare);
        if fewer > 0 {
            spare -= fewer;
            let to = size(set) - fewer;
            resize(deployment, set, to);
        }
    }
}

/// Scales without rolling: the only set that has Pods gets all; a rollout under way keeps its proportions.
pub fn scale(deployment: &Deployment, sets: &mut Sets) {
    let wanted = wanted(deployment);
    if let Some(set) = only_active_or_latest(sets) {
        resize(deployment, set, wanted);
        return;
    }
    let saturated = sets.newest.as_ref().is_some_and(|newest| {
        size(newest) == wanted && number_of(newest, DESIRED) == Some(wanted) && available(newest) == wanted
    });
    if saturated {
        for set in &mut sets.old {
            resize(deployment, set, 0);
        }
    } else if is_rolling(deployment) {
        scale_in_proportion(deployment, sets);
    }
}

fn only_active_or_latest(sets: &mut Sets) -> Option<&mut ReplicaSet> {
    match sets.active().count() {
        0 if sets.newest.is_some() => sets.newest.as_mut(),
        0 => sets.old.iter_mut().max_by_key(|set| revision_of(set)),
        1 => sets.old.iter_mut().chain(&mut sets.newest).find(|set| size(set) > 0),
        _ => None,
    }
}

fn scale_in_proportion(deployment: &Deployment, sets: &mut Sets) {
    let (wanted, surge) = (wanted(deployment), max_surge(deployment));
    let allowed = if wanted > 0 { wanted + surge } else { 0 };
    let add = allowed - total(sets.all(), size);
    let mut active: Vec<&mut ReplicaSet> =
        sets.old.iter_mut().chain(&mut sets.newest).filter(|set| size(set) > 0).collect();
    // The larger first; of the same size, growth goes to the newer, and shrinking to the older.
    spec::ordered::sort_by(&mut active, |a, b| {
        let age = if add > 0 { created(b).cmp(&created(a)) } else { created(a).cmp(&created(b)) };
        size(b).cmp(&size(a)).then(age)
    });
    let mut added = 0;
    let mut sizes: Vec<i32> = Vec::new();
    for set in &active {
        let share = if add == 0 { 0 } else { share(deployment, set, wanted + surge) };
        let share = if add > 0 { share.min(add - added) } else { share.max(add - added) };
        added += share;
        sizes.push(size(set) + share);
    }
    if let Some(first) = sizes.first_mut() {
        *first = (*first + add - added).max(0);
    }
    for (set, to) in active.into_iter().zip(sizes) {
        set.spec.replicas = Some(to);
        annotate_size(deployment, set);
    }
}

/// By how much a set would grow or shrink, if all did alike.
fn share(deployment: &Deployment, set: &ReplicaSet, most: i32) -> i32 {
    if wanted(deployment) == 0 {
        return -size(set);
    }
    let of_status = || deployment.status.as_ref().and_then(|status| status.replicas).unwrap_or_default();
    let before = number_of(set, MOST).filter(|most| *most > 0).unwrap_or_else(of_status);
    if before == 0 {
        return 0;
    }
    // Rounded to the nearest whole Pod.
    let scaled = (2 * i64::from(size(set)) * i64::from(most) + i64::from(before)).div_euclid(2 * i64::from(before));
    i32::try_from(scaled).unwrap_or(i32::MAX) - size(set)
}
