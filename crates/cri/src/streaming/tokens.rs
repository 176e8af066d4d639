//! Requests that wait to be fetched, each by a token that works once.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use tokio::time::Instant;

/// How long a token works.
const LIFE: Duration = Duration::from_mins(1);

/// How many may wait: whoever may call CRI could ask without end, and never fetch.
const LIMIT: usize = 1000;

/// Requests by token.
pub struct Tokens<T>(Mutex<Waiting<T>>);

struct Waiting<T> {
    requests: HashMap<String, T>,
    /// Tokens in the order in which they end, with those that were used already.
    ends: VecDeque<(Instant, String)>,
}

impl<T> Tokens<T> {
    /// Nothing waits.
    pub fn new() -> Self {
        Self(Mutex::new(Waiting { requests: HashMap::new(), ends: VecDeque::new() }))
    }

    /// Keeps a request for a minute; `None` if too many wait.
    pub fn insert(&self, request: T) -> Option<String> {
        let now = Instant::now();
        let mut waiting = self.lock();
        waiting.forget_expired(now);
        if waiting.requests.len() >= LIMIT {
            return None;
        }
        let token = random_token();
        waiting.ends.push_back((now + LIFE, token.clone()));
        waiting.requests.insert(token.clone(), request);
        Some(token)
    }

    /// The request of a token, once.
    pub fn take(&self, token: &str) -> Option<T> {
        let mut waiting = self.lock();
        waiting.forget_expired(Instant::now());
        waiting.requests.remove(token)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Waiting<T> {
    fn forget_expired(&mut self, now: Instant) {
        while let Some((end, token)) = self.ends.front()
            && *end <= now
        {
            self.requests.remove(token);
            self.ends.pop_front();
        }
    }
}

/// 128 bits: who has the token has a process in the container, and asks no other question.
fn random_token() -> String {
    BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 16]>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_token_works_once_and_for_a_minute() {
        let tokens = Tokens::new();
        let (first, second) = (tokens.insert(1).unwrap(), tokens.insert(2).unwrap());
        assert!(first != second && first.len() == 22, "{first} {second}");
        assert_eq!((tokens.take(&first), tokens.take(&first), tokens.take("other")), (Some(1), None, None));
        tokio::time::advance(LIFE / 2).await;
        let third = tokens.insert(3).unwrap();
        tokio::time::advance(LIFE / 2).await;
        assert_eq!((tokens.take(&second), tokens.take(&third)), (None, Some(3)));
    }

    #[tokio::test(start_paused = true)]
    async fn their_number_is_bounded_until_they_are_used_or_end() {
        let tokens = Tokens::new();
        let first = tokens.insert(0).unwrap();
        for number in 1..LIMIT {
            tokens.insert(number).unwrap();
        }
        assert_eq!(tokens.insert(0), None);
        tokens.take(&first).unwrap();
        tokens.insert(0).unwrap();
        assert_eq!(tokens.insert(0), None);
        tokio::time::advance(LIFE).await;
        tokens.insert(0).unwrap();
        assert_eq!(tokens.lock().requests.len(), 1);
        assert_eq!(tokens.lock().ends.len(), 1, "nothing is kept of those that are gone");
    }
}
