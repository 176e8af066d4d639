//! What is to be looked at, and when.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

/// The first wait after a failed pass; each further one is twice as long, up to [`LONGEST`].
const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_mins(1);

/// Keys with the time at which each is due. A key is worked at once at a time; what falls due meanwhile waits.
#[derive(Debug)]
pub struct Queue<K> {
    due: HashMap<K, Instant>,
    busy: HashSet<K>,
    failures: HashMap<K, u32>,
}

impl<K> Default for Queue<K> {
    fn default() -> Self {
        Self { due: HashMap::new(), busy: HashSet::new(), failures: HashMap::new() }
    }
}

impl<K: Hash + Eq + Clone> Queue<K> {
    /// The key is due at this time, or earlier if it already is.
    pub fn add(&mut self, key: K, at: Instant) {
        let due = self.due.entry(key).or_insert(at);
        *due = (*due).min(at);
    }

    /// A key that is due and that nobody works at; it is busy from now on.
    pub fn take(&mut self, now: Instant) -> Option<K> {
        let found = self.due.iter().find(|(key, at)| **at <= now && !self.busy.contains(key));
        let key = found.map(|(key, _)| key.clone())?;
        self.due.remove(&key);
        self.busy.insert(key.clone());
        Some(key)
    }

    /// When the next key falls due that nobody works at.
    pub fn next(&self) -> Option<Instant> {
        self.due.iter().filter(|(key, _)| !self.busy.contains(key)).map(|(_, at)| *at).min()
    }

    /// A pass is over, and wants another one after this time.
    pub fn done(&mut self, key: &K, again: Option<Duration>, now: Instant) {
        self.busy.remove(key);
        self.failures.remove(key);
        if let Some(after) = again {
            self.add(key.clone(), now + after);
        }
    }

    /// A pass has failed, and is tried again later.
    pub fn failed(&mut self, key: &K, now: Instant) {
        self.busy.remove(key);
        let failures = self.failures.entry(key.clone()).or_insert(0);
        let wait = FIRST.saturating_mul(1 << (*failures).min(16)).min(LONGEST);
        *failures += 1;
        // Whatever else has made it due must not make it fail any faster.
        self.due.insert(key.clone(), now + wait);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_is_worked_at_once_at_a_time_and_waits_after_failures() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add("a", now);
        queue.add("a", now + LONGEST);
        assert_eq!(queue.take(now), Some("a"));
        queue.add("a", now);
        assert_eq!((queue.take(now), queue.next()), (None, None));
        queue.done(&"a", None, now);
        assert_eq!(queue.take(now), Some("a"));
        queue.failed(&"a", now);
        assert_eq!((queue.take(now), queue.next()), (None, Some(now + FIRST)));
        assert_eq!(queue.take(now + FIRST), Some("a"));
        queue.failed(&"a", now);
        assert_eq!(queue.next(), Some(now + 2 * FIRST));
        assert_eq!(queue.take(now + 2 * FIRST), Some("a"));
        queue.done(&"a", Some(LONGEST), now);
        assert_eq!(queue.next(), Some(now + LONGEST));
    }
}
