//! What waits for the writer thread, in its order.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::writer::Job;

/// How long a write waits for one that somebody waits for.
const PUT_OFF: Duration = Duration::from_secs(1);
/// So many of them wait at most: they fit into a batch.
const PUT_OFF_WRITES: usize = 64;
/// Room that stays.
const KEPT: usize = 256;

/// How a write waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Somebody waits for it.
    Now,
    /// It is taken along by the next one for which somebody waits. Only the first of them wakes the thread, which notes its time: to wake
    /// it for each would be in the way of whoever is about to ask for more.
    Soon,
}

/// The jobs of one writer thread.
#[derive(Default)]
pub(crate) struct Jobs {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<(Order, Job)>,
    /// How many of them somebody waits for, and how many others there are.
    wanted: usize,
    put_off: usize,
    /// When these are written without company.
    due: Option<Instant>,
    /// No more will come.
    closed: bool,
    /// Nobody does them any more.
    ended: bool,
}

/// What the writer thread is woken for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    /// There are jobs to do now.
    Jobs,
    /// It is time for what the thread does by itself.
    Time,
    /// No job is left, and no more will come.
    Closed,
}

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jobs").field("waiting", &self.lock().waiting.len()).finish_non_exhaustive()
    }
}

impl State {
    fn is_urgent(&self) -> bool {
        self.wanted > 0 || self.put_off >= PUT_OFF_WRITES || (self.closed && !self.waiting.is_empty())
    }
}

impl Jobs {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a job behind all others. One that nobody will do is dropped, and with it what tells who waits.
    pub(crate) fn add(&self, order: Order, job: Job) {
        let mut state = self.lock();
        if state.ended {
            return;
        }
        let (was_urgent, had_due) = (state.is_urgent(), state.due.is_some());
        state.waiting.push_back((order, job));
        match order {
            Order::Now => state.wanted += 1,
            Order::Soon => {
                state.put_off += 1;
                state.due.get_or_insert_with(|| Instant::now() + PUT_OFF);
            }
        }
        let wake = (state.is_urgent() && !was_urgent) || (state.due.is_some() && !had_due);
        drop(state);
        if wake {
            self.changed.notify_one();
        }
    }

    /// No more will come.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    /// Nobody does them any more: those that wait are dropped.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        state.ended = true;
        let dropped = std::mem::take(&mut state.waiting);
        drop(state);
        drop(dropped);
    }

    /// Waits for jobs, or until `time`.
    pub(crate) fn wait(&self, time: Option<Instant>) -> Wake {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            if state.is_urgent() || state.due.is_some_and(|due| due <= now) {
                return Wake::Jobs;
            }
            if state.closed {
                return Wake::Closed;
            }
            if time.is_some_and(|time| time <= now) {
                return Wake::Time;
            }
            state = match [state.due, time].into_iter().flatten().min() {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(at) => self.changed.wait_timeout(state, at - now).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }

    /// The oldest job.
    pub(crate) fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        let (order, job) = state.waiting.pop_front()?;
        match order {
            Order::Now => state.wanted -= 1,
            Order::Soon => state.put_off -= 1,
        }
        if state.put_off == 0 {
            state.due = None;
        }
        // The room that a burst took is given back.
        if state.waiting.is_empty() && state.waiting.capacity() > KEPT {
            state.waiting = VecDeque::new();
        }
        Some(job)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::sync::Arc;

    use super::*;

    fn job(number: u32, done: &Arc<Mutex<Vec<u32>>>) -> Job {
        let done = Arc::clone(done);
        Box::new(move |_batch| {
            done.lock().unwrap().push(number);
            Box::new(|_committed| ())
        })
    }

    fn do_next(jobs: &Jobs) {
        let closed = crate::error::StoreError::Closed { directory: "none".into() };
        jobs.next().unwrap()(Err(closed))(Ok(()));
    }

    #[test]
    fn what_nobody_waits_for_waits_for_company_and_keeps_its_place() {
        let (jobs, done) = (Jobs::default(), Arc::default());
        let now = || Some(Instant::now());
        assert_eq!(jobs.wait(now()), Wake::Time);
        jobs.add(Order::Soon, job(1, &done));
        assert_eq!(jobs.wait(now()), Wake::Time, "it waits");
        jobs.add(Order::Now, job(2, &done));
        jobs.add(Order::Soon, job(3, &done));
        assert_eq!(jobs.wait(now()), Wake::Jobs);
        (0..3).for_each(|_| do_next(&jobs));
        assert!(jobs.next().is_none());
        assert_eq!(*done.lock().unwrap(), [1, 2, 3]);
        assert_eq!(jobs.wait(now()), Wake::Time);
        jobs.add(Order::Soon, job(4, &done));
        assert_eq!(jobs.wait(None), Wake::Jobs, "its time has come");
        do_next(&jobs);
        (0..PUT_OFF_WRITES).for_each(|_| jobs.add(Order::Soon, job(5, &done)));
        assert_eq!(jobs.wait(now()), Wake::Jobs, "they are many");
    }

    #[test]
    fn the_last_are_done_and_after_the_end_none_is_kept() {
        let (jobs, done) = (Jobs::default(), Arc::default());
        jobs.add(Order::Soon, job(1, &done));
        jobs.close();
        assert_eq!(jobs.wait(None), Wake::Jobs);
        do_next(&jobs);
        assert_eq!(jobs.wait(None), Wake::Closed);
        jobs.add(Order::Now, job(2, &done));
        jobs.end();
        jobs.add(Order::Now, job(3, &done));
        assert_eq!((jobs.next().is_none(), Arc::strong_count(&done)), (true, 1), "they are dropped");
    }

    #[test]
    fn who_waits_is_woken() {
        let (jobs, done) = (Arc::new(Jobs::default()), Arc::default());
        let waiting = Arc::clone(&jobs);
        let waiter = std::thread::spawn(move || waiting.wait(None));
        jobs.add(Order::Now, job(1, &done));
        assert_eq!(waiter.join().unwrap(), Wake::Jobs);
    }
}
