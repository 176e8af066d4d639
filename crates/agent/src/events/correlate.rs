//! What becomes of an event before it is written, so that one who repeats itself fills nobody's screen: equal events are
//! counted, similar ones are told as one, and nobody tells more than so much about one object.
//!
//! The rules and numbers are those of client-go's `EventCorrelator` (`tools/record/events_cache.go`), since people and
//! programs know what events of a kubelet look like. Pure: time comes from outside.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::time::Duration;

use super::{EventSubject, Occurrence};
use crate::clock::BootTime;

/// What is remembered of each sort; the entry that was not needed for longest goes.
const REMEMBERED: usize = 4096;
/// So many different messages with one reason become one event.
const SIMILAR: usize = 10;
/// Similar events that lie further apart have nothing to do with each other.
const SIMILAR_WITHIN: Duration = Duration::from_mins(10);
/// So many events are told about an object at once.
const BURST: u32 = 25;
/// And one more each time that this has passed.
const REFILL: Duration = Duration::from_mins(5);

/// An event as it is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Counted {
    /// Which object counts it: the same key as before, if there was one before.
    pub(super) key: EventKey,
    /// How often it has come.
    pub(super) count: u32,
    /// What it says: its own words, or those of the latest of many.
    pub(super) message: String,
}

/// Which occurrences one object counts: equal ones, or those that differ only in their words. Of what they have in common
/// no more is kept than tells them from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct EventKey(u64);

#[derive(Debug, Default)]
pub(super) struct Correlator {
    fingerprints: RandomState,
    /// By object, type and reason.
    similar: Recent<u64, Similar>,
    counts: Recent<EventKey, u32>,
    /// By whose events share one: the reporter's about one object, good and bad news apart.
    allowances: Recent<u64, Allowance>,
}

#[derive(Debug, Clone, Default)]
struct Similar {
    /// Different ones, the oldest first.
    messages: Vec<u64>,
    last: Option<BootTime>,
}

impl Correlator {
    /// The event to write; `None` if enough was said of its object. It is counted even so.
    pub(super) fn correlate(&mut self, occurrence: &Occurrence, now: BootTime) -> Option<Counted> {
        let (key, message) = self.summed_up(occurrence, now);
        let count = self.counts.take(&key).unwrap_or_default().saturating_add(1);
        self.counts.put(key, count);
        let of_whom = (super::component(&occurrence.reason), occurrence.subject.whole(), occurrence.event_type);
        let source = self.fingerprints.hash_one(of_whom);
        let mut allowance = self.allowances.take(&source).unwrap_or(Allowance { left: BURST, since: now });
        let told = allowance.spend(now);
        self.allowances.put(source, allowance);
        told.then_some(Counted { key, count, message })
    }

    fn summed_up(&mut self, occurrence: &Occurrence, now: BootTime) -> (EventKey, String) {
        let (reason, message) = (&*occurrence.reason, &occurrence.message);
        let whole = (occurrence.subject.whole(), occurrence.event_type, reason);
        let group = self.fingerprints.hash_one(&whole);
        let mut similar = self.similar.take(&group).unwrap_or_default();
        if similar.last.is_none_or(|last| now.since(last) > SIMILAR_WITHIN) {
            similar.messages.clear();
        }
        similar.last = Some(now);
        let words = self.fingerprints.hash_one(message);
        if !similar.messages.contains(&words) {
            similar.messages.push(words);
        }
        let many = similar.messages.len() >= SIMILAR;
        if many {
            similar.messages.remove(0);
        }
        self.similar.put(group, similar);
        if many {
            let key = EventKey(self.fingerprints.hash_one(("similar", &whole)));
            return (key, format!("(combined from similar events): {message}"));
        }
        let subject = EventSubject { revision: String::new(), ..occurrence.subject.clone() };
        let equal = ("equal", subject, occurrence.event_type, reason, message);
        (EventKey(self.fingerprints.hash_one(equal)), message.clone())
    }
}

/// A token bucket (client-go, `flowcontrol.NewTokenBucketPassiveRateLimiter`).
#[derive(Debug, Clone, Copy)]
struct Allowance {
    left: u32,
    /// When the present refill began.
    since: BootTime,
}

impl Allowance {
    fn spend(&mut self, now: BootTime) -> bool {
        while self.left < BURST && now.since(self.since) >= REFILL {
            self.left += 1;
            self.since = self.since.after(REFILL);
        }
        if self.left == BURST {
            self.since = now;
        }
        let told = self.left > 0;
        self.left = self.left.saturating_sub(1);
        told
    }
}

/// A map of bounded size.
#[derive(Debug)]
struct Recent<K, V> {
    entries: HashMap<K, (V, u64)>,
    by_age: BTreeMap<u64, K>,
    next: u64,
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), by_age: BTreeMap::new(), next: 0 }
    }
}

impl<K: Clone + Eq + Hash, V> Recent<K, V> {
    fn take(&mut self, key: &K) -> Option<V> {
        let (value, age) = self.entries.remove(key)?;
        self.by_age.remove(&age);
        Some(value)
    }

    fn put(&mut self, key: K, value: V) {
        drop(self.take(&key));
        self.by_age.insert(self.next, key.clone());
        self.entries.insert(key, (value, self.next));
        self.next += 1;
        while self.entries.len() > REMEMBERED {
            let Some((_, oldest)) = self.by_age.pop_first() else { return };
            self.entries.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::events::EventType;
    use crate::testing::{desired_pod, pod};

    fn at(seconds: u64) -> BootTime {
        BootTime::since_boot(Duration::from_secs(seconds))
    }

    fn warning(reason: &'static str, message: &str) -> Occurrence {
        let desired = desired_pod(&pod(&json!({ "containers": [{ "name": "app", "image": "app:1" }] })));
        let subject = EventSubject::container(&desired, &spec::ContainerName::new("app"));
        Occurrence {
            at: spec::Timestamp::UNIX_EPOCH,
            subject,
            event_type: EventType::Warning,
            reason: reason.into(),
            message: message.to_owned(),
        }
    }

    #[test]
    fn equal_events_are_counted_whatever_revision_their_object_has() {
        let mut correlator = Correlator::default();
        let mut occurrence = warning("BackOff", "Back-off");
        let first = correlator.correlate(&occurrence, at(0)).unwrap();
        occurrence.subject.revision = "17".to_owned();
        let second = correlator.correlate(&occurrence, at(1)).unwrap();
        assert_eq!((first.count, second.count), (1, 2));
        assert_eq!((first.key, first.message), (second.key, second.message));
    }

    #[test]
    fn the_tenth_message_with_one_reason_becomes_one_event_with_those_that_follow() {
        let mut correlator = Correlator::default();
        let mut say = |number: u64, second| {
            correlator.correlate(&warning("Unhealthy", &format!("probe failed: {number}")), at(second)).unwrap()
        };
        for number in 1..=9 {
            let told = say(number, number);
            assert_eq!((told.count, told.message), (1, format!("probe failed: {number}")));
        }
        for number in 10..=12 {
            let told = say(number, number);
            assert_eq!(told.message, format!("(combined from similar events): probe failed: {number}"));
            assert_eq!(u64::from(told.count), number - 9);
        }
        // After ten quiet minutes they are told one by one again.
        assert_eq!(say(13, 12 + 601).message, "probe failed: 13");
    }

    #[test]
    fn who_has_told_twenty_five_events_tells_one_more_every_five_minutes() {
        let mut correlator = Correlator::default();
        let mut say = |reason, second| correlator.correlate(&warning(reason, "again"), at(second));
        for second in 0..25 {
            assert!(say("BackOff", second).is_some(), "{second}");
        }
        assert_eq!(say("BackOff", 25), None);
        assert_eq!(say("Unhealthy", 299), None, "the allowance is the object's, not the reason's");
        assert_eq!(say("BackOff", 300).unwrap().count, 27, "what was not told is counted");
        assert_eq!(say("BackOff", 301), None);
        // Good news has an allowance of its own.
        let news = Occurrence { event_type: EventType::Normal, ..warning("Started", "Container started") };
        assert!(correlator.correlate(&news, at(302)).is_some());
    }

    #[test]
    fn memory_is_bounded_and_keeps_what_was_needed_last() {
        let mut recent = Recent::default();
        for number in 0..REMEMBERED {
            recent.put(number, number);
        }
        let kept = recent.take(&0).unwrap();
        recent.put(0, kept);
        recent.put(REMEMBERED, 0);
        assert_eq!((recent.take(&0), recent.take(&1)), (Some(0), None));
        assert_eq!(recent.entries.len(), recent.by_age.len());
    }
}
