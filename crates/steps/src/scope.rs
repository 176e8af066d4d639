//! Whose steps they are, and what they are part of: it follows the work, also where that is a future that is polled here and there.

use std::cell::RefCell;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{SystemTime, UNIX_EPOCH};

use pin_project_lite::pin_project;

use crate::Recorder;
use crate::recorder::Kept;

/// Steps of a Pod that waits for its UID.
const WAITING: usize = 64;

thread_local! {
    /// What this thread works at now.
    static PRESENT: RefCell<Option<Place>> = const { RefCell::new(None) };
}

/// A Pod, and how many steps something is part of.
#[derive(Debug, Clone)]
struct Place {
    pod: Arc<Pod>,
    depth: u8,
}

#[derive(Debug)]
struct Pod {
    recorder: Recorder,
    name: Mutex<Name>,
}

#[derive(Debug)]
enum Name {
    Known(String),
    /// What ended before the UID was known.
    Waiting(Vec<Kept>),
}

impl Place {
    fn new(recorder: &Recorder, name: Name) -> Self {
        Self { pod: Arc::new(Pod { recorder: recorder.clone(), name: Mutex::new(name) }), depth: 0 }
    }

    fn keep(&self, name: &'static str, from: i64, to: i64) {
        let step = Kept { name, depth: self.depth, from, to };
        match &mut *self.pod.name.lock().unwrap_or_else(PoisonError::into_inner) {
            Name::Known(uid) => self.pod.recorder.add(uid, step),
            Name::Waiting(waiting) if waiting.len() < WAITING => waiting.push(step),
            Name::Waiting(_) => {}
        }
    }
}

/// What is done for a Pod, or one step of it, which is noted when this is dropped.
#[derive(Debug)]
#[must_use = "a step takes the work that is done in it"]
pub struct Scope {
    /// Of the steps in it; `None` outside of any Pod, and while it is the present one.
    within: Option<Place>,
    step: Option<Begun>,
}

/// A step under way.
#[derive(Debug)]
struct Begun {
    name: &'static str,
    from: i64,
    part_of: Place,
}

impl Scope {
    /// What is done for a Pod. It is no step itself.
    pub fn of_pod(recorder: &Recorder, uid: &str) -> Self {
        Self { within: Some(Place::new(recorder, Name::Known(uid.to_owned()))), step: None }
    }

    /// The same for a Pod that has no UID yet; see [`name_pod`].
    pub fn of_new_pod(recorder: &Recorder) -> Self {
        Self { within: Some(Place::new(recorder, Name::Waiting(Vec::new()))), step: None }
    }

    /// A step of what this thread works at; [`crate::step!`] is the usual way to say it.
    pub fn of_step(name: &'static str) -> Self {
        let Some(part_of) = PRESENT.with_borrow(Clone::clone) else { return Self { within: None, step: None } };
        let within = Place { pod: Arc::clone(&part_of.pod), depth: part_of.depth.saturating_add(1) };
        Self { within: Some(within), step: Some(Begun { name, from: now(), part_of }) }
    }

    /// Does some work in it, and ends it.
    pub fn in_scope<T>(mut self, work: impl FnOnce() -> T) -> T {
        let _entered = Entered::new(&mut self);
        work()
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        if let Some(Begun { name, from, part_of }) = self.step.take() {
            part_of.keep(name, from, now());
        }
    }
}

/// While it lives, its scope is what the thread works at.
struct Entered<'a> {
    scope: &'a mut Scope,
    before: Option<Place>,
    /// Outside of any Pod nothing changes.
    is_in: bool,
}

impl<'a> Entered<'a> {
    fn new(scope: &'a mut Scope) -> Self {
        let is_in = scope.within.is_some();
        let before = if is_in { PRESENT.replace(scope.within.take()) } else { None };
        Self { scope, before, is_in }
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        if self.is_in {
            self.scope.within = PRESENT.replace(mem::take(&mut self.before));
        }
    }
}

pin_project! {
    /// A future in a scope, see [`Within`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless they are polled"]
    pub struct Scoped<F> {
        #[pin]
        future: F,
        // `None` once the future is done.
        scope: Option<Scope>,
    }
}

impl<F: Future> Future for Scoped<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let Some(scope) = this.scope else { return this.future.poll(context) };
        let polled = {
            let _entered = Entered::new(scope);
            this.future.poll(context)
        };
        if polled.is_ready() {
            *this.scope = None;
        }
        polled
    }
}

/// Does what a future does in a scope.
pub trait Within: Future + Sized {
    /// This future in that scope, which ends with it.
    fn within(self, scope: Scope) -> Scoped<Self> {
        Scoped { future: self, scope: Some(scope) }
    }
}

impl<F: Future> Within for F {}

/// Says whose the steps are that are done in [`Scope::of_new_pod`].
pub fn name_pod(uid: &str) {
    let Some(place) = PRESENT.with_borrow(Clone::clone) else { return };
    let mut name = place.pod.name.lock().unwrap_or_else(PoisonError::into_inner);
    if let Name::Waiting(waiting) = mem::replace(&mut *name, Name::Known(uid.to_owned())) {
        for step in waiting {
            place.pod.recorder.add(uid, step);
        }
    }
}

/// Notes a step that somebody else has measured, from and to so many nanoseconds since 1970.
pub fn note(name: &'static str, from: i64, to: i64) {
    if let Some(place) = PRESENT.with_borrow(Clone::clone) {
        place.keep(name, from, to);
    }
}

/// Nanoseconds since 1970, as infra stamps its own steps.
#[expect(clippy::disallowed_methods, reason = "what is measured is this machine's own time")]
fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Waker;

    use super::*;
    use crate::step;

    fn shown(recorder: &Recorder, uid: &str) -> Vec<(&'static str, usize)> {
        recorder.steps(uid).into_iter().map(|step| (step.name, step.depth)).collect()
    }

    #[test]
    fn steps_belong_to_the_pod_around_them_and_know_what_they_are_part_of() {
        let recorder = Recorder::default();
        Scope::of_pod(&recorder, "a").in_scope(|| {
            step!("make").in_scope(|| step!("write").in_scope(|| {}));
            note("elsewhere", 1, 2);
        });
        let expected = [("elsewhere", 0), ("make", 0), ("write", 1)];
        assert_eq!(shown(&recorder, "a"), expected);
        let steps = recorder.steps("a");
        assert_eq!((steps[0].from, steps[0].to), (1, 2));
        assert!(steps[1].from <= steps[2].from && steps[2].to <= steps[1].to);
        assert!(recorder.steps("b").is_empty());
    }

    #[test]
    fn a_future_has_its_scope_whenever_it_is_polled() {
        let recorder = Recorder::default();
        let mut polls = 0;
        let work = poll_fn(|_| {
            polls += 1;
            step!("look").in_scope(|| {});
            if polls < 3 { Poll::Pending } else { Poll::Ready(()) }
        });
        let step = Scope::of_pod(&recorder, "a").in_scope(|| step!("wait"));
        let mut work = pin!(work.within(step));
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..2 {
            assert!(work.as_mut().poll(&mut context).is_pending());
            step!("of nobody").in_scope(|| {});
        }
        assert_eq!(shown(&recorder, "a"), [("look", 1), ("look", 1)], "it has not ended");
        assert!(work.as_mut().poll(&mut context).is_ready());
        assert_eq!(shown(&recorder, "a"), [("wait", 0), ("look", 1), ("look", 1), ("look", 1)]);
    }

    #[test]
    fn a_panic_leaves_its_scope() {
        let recorder = Recorder::default();
        let work = || Scope::of_pod(&recorder, "a").in_scope(|| step!("fail").in_scope(|| panic!("on purpose")));
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_err();
        step!("of nobody").in_scope(|| {});
        assert_eq!(shown(&recorder, "a"), [("fail", 0)]);
    }

    #[test]
    fn a_pod_may_get_its_name_late_and_steps_of_nobody_are_lost() {
        let recorder = Recorder::default();
        step!("of nobody").in_scope(|| {});
        Scope::of_new_pod(&recorder).in_scope(|| {
            step!("before").in_scope(|| {});
            name_pod("late");
            step!("after").in_scope(|| {});
        });
        let names: Vec<&str> = recorder.steps("late").into_iter().map(|step| step.name).collect();
        assert_eq!(names, ["before", "after"]);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let recorder = Recorder::default();
        for pod in 0..100 {
            Scope::of_pod(&recorder, &pod.to_string()).in_scope(|| step!("one").in_scope(|| {}));
        }
        Scope::of_pod(&recorder, "99").in_scope(|| (0..300_i64).for_each(|at| note("many", at, at)));
        assert!(recorder.steps("35").is_empty());
        assert_eq!(recorder.steps("36").len(), 1);
        assert_eq!(recorder.steps("99").len(), 256);
        assert_eq!(recorder.steps("99").last().unwrap().name, "many");
    }
}
