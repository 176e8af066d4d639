//! How many questions and connections there may be at once: for all, and for each client, so that none takes it all.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Questions that wait for an answer of others.
const QUESTIONS: usize = 1024;
const QUESTIONS_OF_ONE: usize = 128;
/// Connections over TCP.
const CONNECTIONS: usize = 256;
const CONNECTIONS_OF_ONE: usize = 16;

/// What is under way.
#[derive(Debug, Default)]
pub struct Limits {
    questions: Arc<Count>,
    connections: Arc<Count>,
}

#[derive(Debug, Default)]
struct Count(Mutex<HashMap<IpAddr, usize>>);

/// One of them; it is over when this is dropped.
#[derive(Debug)]
pub struct Held {
    count: Arc<Count>,
    client: IpAddr,
}

impl Limits {
    /// Room for one more question of this client.
    pub fn question(&self, client: IpAddr) -> Option<Held> {
        Count::take(&self.questions, client, QUESTIONS, QUESTIONS_OF_ONE)
    }

    /// Room for one more connection of this client.
    pub fn connection(&self, client: IpAddr) -> Option<Held> {
        Count::take(&self.connections, client, CONNECTIONS, CONNECTIONS_OF_ONE)
    }
}

impl Count {
    fn take(this: &Arc<Self>, client: IpAddr, of_all: usize, of_one: usize) -> Option<Held> {
        let mut counts = this.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, own) = (counts.values().sum::<usize>(), counts.get(&client).copied().unwrap_or_default());
        if all >= of_all || own >= of_one {
            return None;
        }
        counts.insert(client, own + 1);
        Some(Held { count: Arc::clone(this), client })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut counts = self.count.0.lock().unwrap_or_else(PoisonError::into_inner);
        match counts.get_mut(&self.client) {
            Some(own) if *own > 1 => *own -= 1,
            _ => {
                counts.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_leaves_room_for_others() {
        let limits = Limits::default();
        let [greedy, other]: [IpAddr; 2] = ["10.85.0.2".parse().unwrap(), "10.85.0.3".parse().unwrap()];
        let mut held: Vec<Held> = (0..QUESTIONS_OF_ONE).map(|_| limits.question(greedy).unwrap()).collect();
        assert!(limits.question(greedy).is_none());
        assert!(limits.question(other).is_some() && limits.connection(greedy).is_some());
        held.pop();
        assert!(limits.question(greedy).is_some());
        drop(held);
        assert!(limits.questions.0.lock().unwrap().is_empty(), "nothing is kept of who is gone");
    }
}
