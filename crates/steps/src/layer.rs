//! What turns spans into steps.

use std::time::{SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::{LookupSpan, SpanRef};

use crate::recorder::Kept;
use crate::{Recorder, TARGET, UID};

/// Steps of a Pod that waits for its UID.
const WAITING: usize = 64;

/// Writes steps into a [`Recorder`].
#[derive(Debug)]
pub struct StepLayer {
    recorder: Recorder,
}

/// A span that [`crate::of_pod`] made.
#[derive(Debug, Default)]
struct Pod {
    uid: Option<String>,
    /// What ended before the UID was known.
    waiting: Vec<Kept>,
}

/// A step under way.
#[derive(Debug)]
struct Begun(i64);

impl StepLayer {
    /// Writes into this one.
    pub fn new(recorder: Recorder) -> Self {
        Self { recorder }
    }

    /// Whether this is for a [`StepLayer`]: to be its filter, so that it sees nothing else.
    pub fn is_meant(metadata: &Metadata<'_>) -> bool {
        metadata.target() == TARGET
    }

    /// Gives a step to the Pod that it was done for.
    fn keep<S: for<'a> LookupSpan<'a>>(&self, inside: Option<SpanRef<'_, S>>, name: &'static str, from: i64, to: i64) {
        let mut depth = 0;
        for around in inside.into_iter().flat_map(|span| span.scope()) {
            let mut extensions = around.extensions_mut();
            if let Some(pod) = extensions.get_mut::<Pod>() {
                let step = Kept { name, depth, from, to };
                match &pod.uid {
                    Some(uid) => self.recorder.add(uid, step),
                    None if pod.waiting.len() < WAITING => pod.waiting.push(step),
                    None => {}
                }
                return;
            }
            depth = depth.saturating_add(1);
        }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for StepLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if attributes.metadata().fields().field(UID).is_some() {
            span.extensions_mut().insert(Pod { uid: fields.uid, waiting: Vec::new() });
        } else if let (Some(from), Some(to)) = (fields.from, fields.to) {
            self.keep(span.parent(), span.name(), from, to);
        } else {
            span.extensions_mut().insert(Begun(now()));
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        values.record(&mut fields);
        if let (Some(pod), Some(uid)) = (span.extensions_mut().get_mut::<Pod>(), fields.uid) {
            pod.waiting.drain(..).for_each(|step| self.recorder.add(&uid, step));
            pod.uid = Some(uid);
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else { return };
        let begun = span.extensions().get::<Begun>().map(|begun| begun.0);
        if let Some(begun) = begun {
            self.keep(span.parent(), span.name(), begun, now());
        }
    }
}

/// What spans of this crate say of themselves.
#[derive(Debug, Default)]
struct Fields {
    uid: Option<String>,
    from: Option<i64>,
    to: Option<i64>,
}

impl Visit for Fields {
    fn record_i64(&mut self, field: &Field, value: i64) {
        match field.name() {
            "from" => self.from = Some(value),
            "to" => self.to = Some(value),
            _ => {}
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == UID {
            self.uid = Some(value.to_owned());
        }
    }

    fn record_debug(&mut self, _field: &Field, _value: &dyn std::fmt::Debug) {}
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

    use tracing_subscriber::Layer as _;
    use tracing_subscriber::filter::filter_fn;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::{name_pod, note, of_new_pod, of_pod, step};

    fn recorded(work: impl FnOnce()) -> Recorder {
        let recorder = Recorder::default();
        let layer = StepLayer::new(recorder.clone()).with_filter(filter_fn(StepLayer::is_meant));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), work);
        recorder
    }

    fn shown(recorder: &Recorder, uid: &str) -> Vec<(&'static str, usize)> {
        recorder.steps(uid).into_iter().map(|step| (step.name, step.depth)).collect()
    }

    #[test]
    fn steps_belong_to_the_pod_around_them_and_know_what_they_are_part_of() {
        let recorder = recorded(|| {
            let _pod = of_pod("a").entered();
            let _span_of_others = tracing::info_span!("pass").entered();
            let outer = step!("make").entered();
            step!("write").in_scope(|| {});
            drop(outer);
            note!("elsewhere", 1, 2);
        });
        let expected = [("elsewhere", 0), ("make", 0), ("write", 1)];
        assert_eq!(shown(&recorder, "a"), expected);
        let steps = recorder.steps("a");
        assert_eq!((steps[0].from, steps[0].to), (1, 2));
        assert!(steps[1].from <= steps[2].from && steps[2].to <= steps[1].to);
        assert!(recorder.steps("b").is_empty());
    }

    #[test]
    fn a_pod_may_get_its_name_late_and_steps_of_nobody_are_lost() {
        let recorder = recorded(|| {
            step!("of nobody").in_scope(|| {});
            let _pod = of_new_pod().entered();
            step!("before").in_scope(|| {});
            name_pod("late");
            step!("after").in_scope(|| {});
        });
        let names: Vec<&str> = recorder.steps("late").into_iter().map(|step| step.name).collect();
        assert_eq!(names, ["before", "after"]);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let recorder = recorded(|| {
            for pod in 0..100 {
                of_pod(&pod.to_string()).in_scope(|| step!("one").in_scope(|| {}));
            }
            of_pod("99").in_scope(|| (0..300_i64).for_each(|at| note!("many", at, at)));
        });
        assert!(recorder.steps("35").is_empty());
        assert_eq!(recorder.steps("36").len(), 1);
        assert_eq!(recorder.steps("99").len(), 256);
        assert_eq!(recorder.steps("99").last().unwrap().name, "many");
    }
}
