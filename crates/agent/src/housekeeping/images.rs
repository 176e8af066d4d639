//! When each image came and was used last, as far as this daemon has seen. Pure but for its lock.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use spec::Digest;

use crate::clock::BootTime;

/// Like the kubelet's, this memory does not outlive the daemon: what it finds at its start counts as new.
#[derive(Debug, Default)]
pub(crate) struct ImageUse(Mutex<HashMap<Digest, Seen>>);

#[derive(Debug, Clone, Copy)]
struct Seen {
    first: BootTime,
    used: BootTime,
}

impl ImageUse {
    /// Notes which images there are and which of them are in use now.
    pub(crate) fn note<'a>(&self, present: impl Iterator<Item = &'a Digest>, used: &HashSet<Digest>, now: BootTime) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let present: HashSet<&Digest> = present.collect();
        seen.retain(|id, _| present.contains(id));
        for id in present {
            let never = BootTime::since_boot(Duration::ZERO);
            let entry = seen.entry(id.clone()).or_insert(Seen { first: now, used: never });
            if used.contains(id) {
                entry.used = now;
            }
        }
    }

    /// Those that came and were used before `min_age`, the one that was not used for longest first.
    pub(crate) fn oldest(&self, images: Vec<(Digest, u64)>, min_age: Duration, now: BootTime) -> Vec<(Digest, u64)> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut old: Vec<(Seen, (Digest, u64))> = images
            .into_iter()
            .filter_map(|image| Some((*seen.get(&image.0)?, image)))
            .filter(|(seen, _)| now.since(seen.first) >= min_age && now.since(seen.used) >= min_age)
            .collect();
        spec::ordered::sort_by_key(&mut old, |(seen, _)| (seen.used, seen.first));
        old.into_iter().map(|(_, image)| image).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_that_was_not_used_for_longest_goes_first_and_a_new_one_stays() {
        let at = |minutes| BootTime::since_boot(Duration::from_mins(minutes));
        let id = |digit: char| -> Digest { format!("sha256:{}", digit.to_string().repeat(64)).parse().unwrap() };
        let (a, b, c) = (id('a'), id('b'), id('c'));
        let images = ImageUse::default();
        let used = |ids: &[&Digest]| ids.iter().map(|id| (*id).clone()).collect();
        images.note([&a, &b].into_iter(), &used(&[&a]), at(100));
        images.note([&a, &b].into_iter(), &used(&[&b]), at(105));
        images.note([&a, &b, &c].into_iter(), &used(&[]), at(109));
        let order = |now| -> Vec<Digest> {
            let all = vec![(b.clone(), 1), (c.clone(), 1), (a.clone(), 1)];
            images.oldest(all, Duration::from_mins(2), at(now)).into_iter().map(|(id, _)| id).collect()
        };
        assert_eq!(order(110), [a.clone(), b.clone()]);
        assert_eq!(order(111), [c.clone(), a.clone(), b.clone()]);
        // What is gone is forgotten.
        images.note([&b].into_iter(), &used(&[]), at(112));
        assert_eq!(order(113), [b]);
    }
}
